"""Forward and backward passes as a CUDA graph: the processor starts all of their kernels at once."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from earn_plugin.errors import UserError, reason_of

WARM_UP = 3  # calls before the recording: torch's libraries choose kernels and reserve memory in them


class CudaGraph:
    """A function of tensors that adds to gradients and returns tensors, recorded once and then replayed.

    Results and gradients are those of the function. Inputs of another size than the recorded one are passed to it.

    Args:
        function: it must not depend on values that change between calls, other than its inputs, parameters and
            buffers, and must not wait for the GPU.
        parameters: those that get gradients.

    Raises:
        UserError: CUDA cannot record the function.
    """

    def __init__(self, function: Callable[..., Any], parameters: Iterable[nn.Parameter]):
        self.function = function
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.stream = torch.cuda.Stream()
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.beside(*inputs)
        # a copy: the gradients of the last call are in the tensors that the next overwrites
        earlier = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        if self.graph is None:
            self.record(*inputs)
        if [each.shape for each in inputs] != [each.shape for each in self.inputs]:
            return self.function(*inputs)
        for recorded, given in zip(self.inputs, inputs, strict=True):
            recorded.copy_(given)
        self.graph.replay()
        for parameter, gradient, before in zip(self.parameters, self.gradients, earlier, strict=True):
            parameter.grad = gradient
            if before is not None:
                gradient.add_(before)
        return tree_map(torch.clone, self.results)

    def beside(self, *inputs: Tensor) -> Any:
        """Call the function on another stream, as torch requires of the calls before a recording."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            results = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return results

    def record(self, *inputs: Tensor) -> None:
        self.inputs = [each.clone() for each in inputs]
        for parameter in self.parameters:
            parameter.grad = None  # so that the graph does not add to it
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: others, such as the one that pins batches, may use CUDA meanwhile
            with torch.cuda.graph(graph, capture_error_mode='thread_local'):
                self.results = self.function(*self.inputs)
        except RuntimeError as error:
            raise UserError(f'train.cuda_graph: CUDA cannot record it ({reason_of(error)}); train without') from error
        self.graph, self.gradients = graph, [parameter.grad for parameter in self.parameters]
