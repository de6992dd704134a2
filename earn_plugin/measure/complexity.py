"""How much a network computes, as NTIRE's two counters see it, and what they do not see."""

import copy
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.measure.memory import PeakMemory

CONVS = (nn.Conv2d, nn.ConvTranspose2d)
ACTIVATIONS = (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6)
COUNTED = (*CONVS, *ACTIVATIONS, nn.BatchNorm2d, nn.Linear)
# Operators that only make room or move values; whatever else runs uncounted is named.
MOVES = re.compile(
    r'(new_)?(empty|full|ones|zeros?)(_like|_strided)?|_to_copy|_unsafe_view|arange|cat|clone|constant_pad_nd|copy|fill|'
    r'index|lift_fresh|repeat|resize|roll|scalar_tensor|set|stack'
)
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention  # whose count holds for its kin
# What fvcore leaves out without a word, though it computes.
FVCORE_SILENT = ('clamp', 'clamp_', 'max', 'relu', 'relu_')
# fvcore itself calls these shape manipulation when they come as one operator, and unsupported when they do not.
FVCORE_MOVES = {'clone', 'ones_like', 'pad', 'unflatten', 'view_as', 'expand_as', 'unfold', 'repeat', 'alias', 'fill_'}


class Complexity(NamedTuple):
    """What one image costs. Multiply-adds are counted as one each."""

    input: tuple[int, ...]
    params: int
    hooks: int  # multiply-adds by the module hooks of NTIRE 2022 and 2023
    fvcore: int | None  # multiply-adds by fvcore, NTIRE 2024 and later; None if it was not run
    activations: int  # output elements of Conv2d and ConvTranspose2d
    convs: int  # their calls
    memory: float | None  # MiB; None if it was not measured
    memory_is: str
    unseen_by_hooks: dict[str, int]  # operator → calls that the counter takes for nothing
    multiply_adds_unseen_by_hooks: int  # of convs, matrix products and attentions among them
    unseen_by_fvcore: dict[str, int] | None

    def text(self) -> str:
        hooks = f'{self.hooks:,} ({self.hooks / 1e9:.4f} G) by module hooks, as in NTIRE 2022 and 2023'
        fvcore = 'not counted by fvcore: it has to compute, and the meta device does not'
        if self.fvcore is not None:
            fvcore = f'{self.fvcore:,} ({self.fvcore / 1e9:.4f} G) by fvcore, as in NTIRE 2024 to 2026'
        lines = [
            ('parameters', f'{self.params:,}'),
            ('multiply-adds', hooks),
            ('', fvcore),
            ('activations', f'{self.activations:,} ({self.activations / 1e6:.4f} M)'),
            ('conv calls', f'{self.convs:,}'),
            ('peak memory', self.memory_is if self.memory is None else f'{self.memory:,.1f} MiB {self.memory_is}'),
            ('hooks take for 0', listed(self.unseen_by_hooks)),
        ]
        if self.multiply_adds_unseen_by_hooks:
            lines.append(('', f'among them {self.multiply_adds_unseen_by_hooks:,} multiply-adds of convs and products'))
        if self.unseen_by_fvcore is not None:
            lines.append(('fvcore takes for 0', listed(self.unseen_by_fvcore)))
        return '\n'.join(f'{title:<19}{value}' for title, value in lines)


def listed(unseen: dict[str, int]) -> str:
    return ', '.join(f'{name} ×{calls}' for name, calls in unseen.items()) or 'nothing'


class HookCounter(TorchDispatchMode):
    """The counter of NTIRE 2022 and 2023: forward hooks on modules. What runs outside of those is noted by name.

    A module that is called twice counts twice. Biases count nothing; a Linear counts as the official script has it,
    which is wrong for inputs of more than two dimensions.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.multiply_adds = self.activations = self.convs = self.unseen_multiply_adds = 0
        self.unseen: Counter[str] = Counter()
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
        self.multiply_adds += multiply_adds(module, inputs[0], output)
        if isinstance(module, CONVS):
            self.activations += output.numel()
            self.convs += 1

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        name = operator._schema.name.partition('::')[2].removesuffix('_')
        if not self._inside and not operator.is_view and not MOVES.fullmatch(name):
            self.unseen[name] += 1
            packet = ATTENTION if name.startswith('_scaled_dot_product') else operator._overloadpacket
            if packet in flop_registry:
                self.unseen_multiply_adds += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        return out


def multiply_adds(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """What the hooks of NTIRE 2022 and 2023 count for a call of a module."""
    if isinstance(module, CONVS):
        weights = prod(module.kernel_size) * module.in_channels * (module.out_channels // module.groups)
        return weights * output.shape[0] * prod(output.shape[2:])
    if isinstance(module, nn.Linear):
        return x.shape[0] * (output.shape[0] if x.dim() == 1 else x.shape[1] * output.shape[1])
    return output.numel() * (2 if isinstance(module, nn.BatchNorm2d) and module.affine else 1)


class UncomputedAttention(TorchFunctionMode):
    """Fused attention between the first query and the first key in the place of all.

    fvcore takes either for nothing, and between all pixels it is most of the work of a trace.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention and len(args) == 3 and set(kwargs or {}) <= {'scale'}:
            query, key, value = args
            first = function(query[..., :1, :], key[..., :1, :], value[..., :1, :])
            return first.expand(*query.shape[:-1], value.shape[-1])
        return function(*args, **(kwargs or {}))


def count_fvcore(network: nn.Module, x: Tensor) -> tuple[int, dict[str, int]]:
    """Multiply-adds by fvcore, and the operators that it takes for nothing, with their calls."""
    from fvcore.nn import FlopCountAnalysis  # not above: with today's torch its import warns, which measure() silences

    unseen: Counter[str] = Counter()

    def noting(name: str):
        def note(inputs: list[Any], outputs: list[Any]) -> int:
            unseen[name] += 1
            return 0

        return note

    analysis = FlopCountAnalysis(network, x)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    for name in FVCORE_SILENT:
        analysis.set_op_handle(f'aten::{name}', noting(name.removesuffix('_')))
    with UncomputedAttention():
        total = int(analysis.total())
    for name, calls in analysis.unsupported_ops().items():
        name = name.rpartition('::')[2].removeprefix('PythonOp.')
        if name not in FVCORE_MOVES:
            unseen[name.removesuffix('_')] += calls
    return total, dict(unseen.most_common())


def find_device(name: str | None) -> torch.device:
    """The device of a name; for None the GPU where there is one.

    Raises:
        UserError: there is none of that name.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError:
        raise UsageError(f'{name} is no device; possible: cpu, cuda, cuda:1, …') from None
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise UserError('there is no CUDA device that torch can use (see `basicsr doctor`); leave --device out')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ModuleNotFoundError) as error:
        raise UserError(f'torch cannot use {device} here ({reason_of(error)}); leave --device out') from error
    return device


def measure(
    found: FoundNetwork, size: tuple[int, ...] = (256, 256), device: torch.device | None = None, fvcore: bool = True
) -> Complexity:
    """Count a network's parameters, multiply-adds, activations and convs for one image, and measure its memory.

    As in the official scripts nothing requires a gradient, and gradients are not switched off: networks that work in
    parts without gradients are counted whole, the same on every device.

    Args:
        found: the network; it is moved to the device, and stays there.
        size: of the input: H, W, or its whole shape without the batch, such as T, C, H, W for videos.
        device: 'meta' computes nothing, so it counts the largest networks at once, without fvcore and memory.
        fvcore: whether to run fvcore, which takes another pass.

    Raises:
        UserError: the network does not take such an input.
    """
    device = device or find_device(None)
    network = found.network.to(device).requires_grad_(False)
    x = image_for(found, size, device)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    with explained(found, x):
        with PeakMemory() as tensors, HookCounter(network) as hooks:
            network(x)
        memory, memory_is = peak_memory(network, x, tensors.peak)
        counted = count_fvcore(network, x) if fvcore and device.type != 'meta' else (None, None)
    return Complexity(
        tuple(x.shape[1:]),
        sum(parameter.numel() for parameter in network.parameters()),
        hooks.multiply_adds,
        counted[0],
        hooks.activations,
        hooks.convs,
        memory,
        memory_is,
        dict(hooks.unseen.most_common()),
        hooks.unseen_multiply_adds,
        counted[1],
    )


def count(
    found: FoundNetwork, size: tuple[int, ...], device: torch.device | None = None, fvcore: bool = True
) -> Complexity:
    """The same figures but the memory, at less expense: hooks count without computing where the network allows it."""
    device = device or find_device(None)
    try:
        counted = measure(found._replace(network=copy.deepcopy(found.network)), size, torch.device('meta'))
    except UserError:  # its forward asks for values, or an operator has no form without
        return measure(found, size, device, fvcore)
    if not fvcore:
        return counted
    network, x = found.network.to(device).requires_grad_(False), image_for(found, size, device)
    with explained(found, x):
        total, unseen = count_fvcore(network, x)
    return counted._replace(fvcore=total, unseen_by_fvcore=unseen)


def image_for(found: FoundNetwork, size: tuple[int, ...], device: torch.device) -> Tensor:
    shape = size if len(size) > 2 else (found.arguments.get('num_in_ch', 3), *size)
    if len(size) < 2 or min(shape) < 1:
        raise UsageError(f'a size is H W, or the whole shape without the batch, all at least 1; got {size}')
    return torch.rand(1, *shape, device=device)


@contextmanager
def explained(found: FoundNetwork, x: Tensor) -> Iterator[None]:
    """Run a network without its warnings, which are of no interest here.

    Raises:
        UserError: whatever the network raises.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except Exception as error:  # networks have no list of what an input that they do not take makes them raise
        hint = '; try another --device' if x.device.type == 'meta' else ''
        raise UserError(
            f'{found.arch} cannot be run on an input of {"×".join(map(str, x.shape))} on {x.device.type}: '
            f'{reason_of(error)}; give what it takes by --size (H W, or the whole shape without the batch){hint}'
        ) from error


def peak_memory(network: nn.Module, x: Tensor, tensors: int) -> tuple[float | None, str]:
    """MiB of a pass, and what was measured: on CUDA torch's own maximum, on the CPU the tensors that it made."""
    if x.device.type == 'meta':
        return None, 'not measured: nothing was computed'
    if x.device.type == 'cuda':
        return torch.cuda.max_memory_allocated(x.device) / 2**20, 'by max_memory_allocated of CUDA'
    held = sum(tensor.nbytes for tensor in (x, *network.parameters(), *network.buffers()))
    return (held + tensors) / 2**20, 'of tensors at one time, weights and input with them, on the CPU'


def show(found: FoundNetwork, size: tuple[int, ...], device: str | None, as_json: bool) -> None:
    """Print a network's complexity as text or as JSON."""
    complexity = measure(found, size, find_device(device))
    if as_json:
        described = {'network': found.arch, 'form': found.form, 'arguments': found.arguments}
        print(json.dumps({**described, **complexity._asdict()}, indent=2, default=str))
        return
    given = ', '.join(f'{name}={value}' for name, value in found.arguments.items())
    print(f'{found.arch}({given}), {found.form}, input 1×{"×".join(map(str, complexity.input))}')
    print(complexity.text())
