"""How much a network computes: NTIRE's two counters, what they do not count, and memory."""

import copy
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.devices import find_device
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.measure.memory import PeakMemory

CONVS = (nn.Conv2d, nn.ConvTranspose2d)
ACTIVATIONS = (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6)
COUNTED = (*CONVS, *ACTIVATIONS, nn.BatchNorm2d, nn.Linear)
# Operators that only allocate or move values; every other uncounted one is listed.
MOVES = re.compile(
    r'(new_)?(empty|full|ones|zeros?)(_like|_strided)?|_to_copy|_unsafe_view|arange|cat|clone|constant_pad_nd|copy|fill|'
    r'index|lift_fresh|repeat|resize|roll|scalar_tensor|set|stack'
)
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention  # whose count holds for all kinds of fused attention
# What fvcore ignores without a warning, although it computes.
IGNORED_BY_FVCORE = ('clamp', 'clamp_', 'max', 'relu', 'relu_')
# fvcore itself calls these shape manipulation when they come as one operator, and unsupported when they do not.
MOVES_OF_FVCORE = re.compile('alias|clone|expand_as|fill_|ones_like|pad|repeat|unflatten|unfold|view_as')
ATTENTION_ARGUMENTS = ('query', 'key', 'value', 'attn_mask', 'dropout_p', 'is_causal')


@dataclass(frozen=True)
class Complexity:
    """What one image costs. Multiply-adds are counted as one each."""

    input: tuple[int, ...]
    params: int
    hooks: int  # multiply-adds by the module hooks of NTIRE 2022 and 2023
    activations: int  # output elements of Conv2d and ConvTranspose2d
    convs: int  # their calls
    memory: float | None  # MiB; None if it was not measured
    memory_is: str
    uncounted_by_hooks: dict[str, int]  # operator → calls
    multiply_adds_uncounted_by_hooks: int  # of convs, matrix products and attentions among them
    fvcore: int | None = None  # multiply-adds by fvcore, NTIRE 2024 and later; None, as the next two, if it was not run
    uncounted_by_fvcore: dict[str, int] | None = None
    fused_attention: int | None = None  # multiply-adds that fvcore counts in an NTIRE export, where attention is plain

    @property
    def exported_fvcore(self) -> int:
        """Multiply-adds that fvcore counts in the file that ``basicsr ntire export`` writes."""
        return self.fvcore + self.fused_attention

    def __str__(self) -> str:
        hooks = f'{self.hooks:,} ({self.hooks / 1e9:.4f} G) by module hooks, as in NTIRE 2022 and 2023'
        fvcore = 'not counted by fvcore, which has to compute: choose a device other than meta'
        if self.fvcore is not None:
            fvcore = f'{self.fvcore:,} ({self.fvcore / 1e9:.4f} G) by fvcore, as in NTIRE 2024 to 2026'
        lines = [
            ('parameters', f'{self.params:,}'),
            ('multiply-adds', hooks),
            ('', fvcore),
            ('activations', f'{self.activations:,} ({self.activations / 1e6:.4f} M)'),
            ('conv calls', f'{self.convs:,}'),
            ('peak memory', self.memory_is if self.memory is None else f'{self.memory:,.1f} MiB {self.memory_is}'),
            ('not in hooks', list_calls(self.uncounted_by_hooks)),
        ]
        if self.multiply_adds_uncounted_by_hooks:
            uncounted = f'{self.multiply_adds_uncounted_by_hooks:,} multiply-adds of convs and matrix products'
            lines.append(('', f'among them {uncounted}'))
        if self.uncounted_by_fvcore is not None:
            lines.append(('not in fvcore', list_calls(self.uncounted_by_fvcore)))
        return '\n'.join(f'{title:<19}{value}' for title, value in lines)


def list_calls(uncounted: dict[str, int]) -> str:
    return ', '.join(f'{name} ×{calls}' for name, calls in uncounted.items()) or 'nothing'


class HookCounter(TorchDispatchMode):
    """The counter of NTIRE 2022 and 2023: forward hooks on modules. Operators outside of those are listed by name.

    A module that is called twice counts twice. Biases are not counted; a Linear counts as in the official script, which
    is wrong for inputs of more than two dimensions.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.multiply_adds = self.activations = self.convs = self.uncounted_multiply_adds = 0
        self.uncounted: Counter[str] = Counter()
        self._inside = 0  # calls of counted modules that are under way
        self._handles = []
        for module in network.modules():
            if isinstance(module, COUNTED):
                self._handles += [
                    module.register_forward_pre_hook(self._enter),
                    module.register_forward_hook(self._leave),
                ]

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()
        return super().__exit__(*error)

    def _enter(self, module: nn.Module, inputs: tuple) -> None:
        self._inside += 1

    def _leave(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._inside -= 1
        self.multiply_adds += official_multiply_adds(module, inputs[0], output)
        if isinstance(module, CONVS):
            self.activations += output.numel()
            self.convs += 1

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        name = operator._schema.name.partition('::')[2].removesuffix('_')
        if not self._inside and not operator.is_view and not MOVES.fullmatch(name):
            self.uncounted[name] += 1
            packet = ATTENTION if name.startswith('_scaled_dot_product') else operator._overloadpacket
            if packet in flop_registry:
                self.uncounted_multiply_adds += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        return out


def official_multiply_adds(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """What the hooks of NTIRE 2022 and 2023 count for a call of a module."""
    if isinstance(module, CONVS):
        weights = prod(module.kernel_size) * module.in_channels * (module.out_channels // module.groups)
        return weights * output.shape[0] * prod(output.shape[2:])
    if isinstance(module, nn.Linear):
        return x.shape[0] * (output.shape[0] if x.dim() == 1 else x.shape[1] * output.shape[1])
    return output.numel() * (2 if isinstance(module, nn.BatchNorm2d) and module.affine else 1)


class FusedAttentionCounter(TorchFunctionMode):
    """Counts the matrix products of fused attention, which fvcore counts only where they are plain.

    While fvcore traces, attention is computed for the first query and key alone: that changes no count, and between all
    pixels of an image it would be most of the work.
    """

    multiply_adds = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        given = {**dict(zip(ATTENTION_ARGUMENTS, args, strict=False)), **(kwargs or {})}
        query, key, value = (given.pop(name) for name in ATTENTION_ARGUMENTS[:3])
        sizes = (*query.shape[:-1], key.shape[-2], query.shape[-1] + value.shape[-1])
        self.multiply_adds += prod(map(int, sizes))  # in a trace, sizes are tensors
        if given.keys() - {'scale'}:
            return function(query, key, value, **given)
        first = function(query[..., :1, :], key[..., :1, :], value[..., :1, :])
        return first.expand(*query.shape[:-1], value.shape[-1])


def count_fvcore(network: nn.Module, x: Tensor) -> dict[str, Any]:
    """The fields of ``Complexity`` that need fvcore."""
    from fvcore.nn import FlopCountAnalysis  # not above: with today's torch its import warns, which is silenced here

    uncounted: Counter[str] = Counter()

    def record(name: str):
        def no_flops(inputs: list[Any], outputs: list[Any]) -> int:
            uncounted[name] += 1
            return 0

        return no_flops

    analysis = FlopCountAnalysis(network, x)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    for name in IGNORED_BY_FVCORE:
        analysis.set_op_handle(f'aten::{name}', record(name.removesuffix('_')))
    with FusedAttentionCounter() as attention:
        total = int(analysis.total())
    for name, calls in analysis.unsupported_ops().items():
        name = name.rpartition('::')[2].removeprefix('PythonOp.')
        if not MOVES_OF_FVCORE.fullmatch(name):
            uncounted[name.removesuffix('_')] += calls
    return {
        'fvcore': total,
        'uncounted_by_fvcore': dict(uncounted.most_common()),
        'fused_attention': attention.multiply_adds,
    }


def measure_complexity(
    found: FoundNetwork, size: tuple[int, ...] = (256, 256), device: torch.device | None = None, fvcore: bool = True
) -> Complexity:
    """Count a network's parameters, multiply-adds, activations and convs for one image, and measure its memory.

    As in the official scripts no parameter requires a gradient, and gradients are not switched off: networks that work
    on parts of the image without gradients are counted on the complete image, with the same result on every device.

    Args:
        found: the network; it is moved to the device.
        size: of the input: H, W, or its shape without the batch dimension, such as T, C, H, W for videos.
        device: 'meta' counts the largest networks at once, without fvcore and memory.
        fvcore: whether to run fvcore, which takes another pass.

    Raises:
        UserError: the network does not take such an input.
    """
    device = device or find_device(None)
    network = found.network.to(device).requires_grad_(False)
    x = example_input(found, size, device)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    with _errors_explained(found, x):
        with PeakMemory() as tensors, HookCounter(network) as hooks:
            network(x)
        memory, memory_is = _peak_memory(network, x, tensors.peak)
        by_fvcore = count_fvcore(network, x) if fvcore and device.type != 'meta' else {}
    return Complexity(
        input=tuple(x.shape[1:]),
        params=sum(parameter.numel() for parameter in network.parameters()),
        hooks=hooks.multiply_adds,
        activations=hooks.activations,
        convs=hooks.convs,
        memory=memory,
        memory_is=memory_is,
        uncounted_by_hooks=dict(hooks.uncounted.most_common()),
        multiply_adds_uncounted_by_hooks=hooks.uncounted_multiply_adds,
        **by_fvcore,
    )


def count_complexity(
    found: FoundNetwork, size: tuple[int, ...], device: torch.device | None = None, fvcore: bool = True
) -> Complexity:
    """The same figures but the memory, cheaper: where the network allows it, the hooks count without computing."""
    device = device or find_device(None)
    try:
        counted = measure_complexity(replace(found, network=copy.deepcopy(found.network)), size, torch.device('meta'))
    except UserError:  # its forward needs values, or an operator has no meta implementation
        return measure_complexity(found, size, device, fvcore)
    if not fvcore:
        return counted
    network, x = found.network.to(device).requires_grad_(False), example_input(found, size, device)
    with _errors_explained(found, x):
        return replace(counted, **count_fvcore(network, x))


def example_input(found: FoundNetwork, size: tuple[int, ...], device: torch.device) -> Tensor:
    shape = size if len(size) > 2 else (found.arguments.get('num_in_ch', 3), *size)
    if len(size) < 2 or min(shape) < 1:
        raise UsageError(f'a size is H W, or the shape without the batch dimension, all at least 1; got {size}')
    return torch.rand(1, *shape, device=device)


@contextmanager
def _errors_explained(found: FoundNetwork, x: Tensor) -> Iterator[None]:
    """Run a network without its warnings, and turn whatever it raises into a UserError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except Exception as error:  # an input that does not fit makes a network raise anything
        hint = '; try another --device' if x.device.type == 'meta' else ''
        raise UserError(
            f'{found.arch} cannot be run on an input of {"×".join(map(str, x.shape))} on {x.device.type}: '
            f'{reason_of(error)}; set the input by --size (H W, or the shape without the batch dimension){hint}'
        ) from error


def _peak_memory(network: nn.Module, x: Tensor, tensors: int) -> tuple[float | None, str]:
    """MiB of a pass, and what was measured: on CUDA torch's own maximum, on the CPU the tensors that were created."""
    if x.device.type == 'meta':
        return None, 'not measured: nothing was computed'
    if x.device.type == 'cuda':
        return torch.cuda.max_memory_allocated(x.device) / 2**20, 'by max_memory_allocated of CUDA'
    held = sum(tensor.nbytes for tensor in (x, *network.parameters(), *network.buffers()))
    return (held + tensors) / 2**20, 'of tensors at one time, including weights and input, on the CPU'


def print_complexity(found: FoundNetwork, size: tuple[int, ...], device: str | None, as_json: bool) -> None:
    """Print a network's complexity as text or as JSON."""
    complexity = measure_complexity(found, size, find_device(device))
    if as_json:
        described = {'network': found.arch, 'form': found.form, 'arguments': found.arguments}
        print(json.dumps({**described, **asdict(complexity)}, indent=2, default=str))
        return
    print(f'{found}, {found.form}, input 1×{"×".join(map(str, complexity.input))}\n{complexity}')
