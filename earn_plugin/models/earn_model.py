"""EARN's training: SRModel with any number of loss terms, fast and exact; it waits for the device only to log."""

from collections.abc import Iterator
from contextlib import nullcontext
from fnmatch import fnmatch
from itertools import chain
from typing import Any, NamedTuple

import torch
from basicsr.losses import build_loss
from basicsr.losses.basic_loss import WeightedTVLoss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from earn_plugin.devices import to_channels_last
from earn_plugin.errors import UserError, reason_of
from earn_plugin.models.compilation import compile_blocks
from earn_plugin.models.cuda_graph import CudaGraph
from earn_plugin.precision import autocast, check_float16, widen_dilated_convs
from earn_plugin.protocols import HasSmallestPatch

OPTIMIZERS = {'Adam': torch.optim.Adam, 'AdamW': torch.optim.AdamW}
NEVER = torch.iinfo(torch.int64).max
Buffers = list[tuple[Tensor, Tensor]]


class NonFinite(NamedTuple):
    """The first iteration in which a value was not finite, the value's name, and all values of that iteration."""

    iteration: int
    name: str
    values: dict[str, float]


@MODEL_REGISTRY.register()
class EARNModel(SRModel):
    """SRModel whose loss is a weighted sum of any terms.

    Options under ``train``, besides SRModel's:

    - ``losses`` maps names to losses with their options; each is logged as l_NAME. BasicSR's ``pixel_opt`` and
      ``perceptual_opt`` can be used with it or without it. The loss is the sum of all, each with its own
      ``loss_weight``.
    - ``optim_g`` can be Adam or AdamW, fused unless it has ``fused: false``.
    - ``grad_clip_g``: the largest norm over all gradients. The norm is logged as grad_norm_g.
    - ``precision``: fp32, bf16 or fp16, by torch's autocast: weights, optimiser and losses stay in float32.
    - ``memory_format``: channels_last for weights and images of four dimensions; or auto, with which ``basicsr train``
      measures what is faster.
    - ``compile``: compile the networks by torch.compile; validation runs them as they are.
    - ``cuda_graph``: on a GPU, start all kernels of the forward and backward passes at once; one process only.
    - ``accum_iter``: how many batches an iteration reads. They are processed one after another, and the optimiser takes
      one step with the gradient of the loss over all of them.
    - ``on_non_finite``: 'stop' (default), or 'skip': a network whose gradients are not finite does not change in that
      iteration, and training stops after ``max_skipped`` (20) of them in a row.
    - ``freeze``: patterns of the names of parameters of ``network_g`` that are not trained, such as conv_first or
      body.*.bias.

    The exponential moving average includes buffers.

    Raises:
        ValueError: options that contradict each other or the network.
    """

    def model_to_device(self, net: nn.Module) -> nn.Module:
        if self.is_train:
            train_opt = self.opt['train']
            if train_opt.get('cuda_graph') and self.opt['dist']:
                raise ValueError('train.cuda_graph is for one process; train without it')
            self.precision = train_opt.get('precision', 'fp32')
            self.accum_iter = train_opt.get('accum_iter', 1)
            self.is_channels_last = train_opt.get('memory_format') == 'channels_last'
            if self.precision == 'fp16':
                check_float16(net, 'train.precision: fp16', 'bf16')
            if self.precision == 'bf16' and self.device.type == 'cpu':
                widen_dilated_convs(net)
            if net is getattr(self, 'net_g', None):
                freeze(net, train_opt.get('freeze', []))
            if self.is_channels_last:
                to_channels_last(net)
            if train_opt.get('compile'):
                compile_blocks(net)
        return super().model_to_device(net)

    def init_training_settings(self) -> None:
        train_opt = self.opt['train']
        given = {'pix': train_opt.get('pixel_opt'), 'percep': train_opt.get('perceptual_opt')}
        terms = {name: options for name, options in given.items() if options}
        losses = train_opt.get('losses') or {}
        if twice := terms.keys() & losses.keys():
            raise ValueError(f'train.losses.{min(twice)}: pixel_opt is the term pix, perceptual_opt the term percep')
        terms |= losses
        train_opt |= {'pixel_opt': next(iter(terms.values()), None), 'perceptual_opt': None}  # SRModel requires one
        super().init_training_settings()
        if self.is_channels_last and self.ema_decay > 0:
            to_channels_last(self.net_g_ema)
        others = list(terms.items())[1:]
        self.criteria = dict.fromkeys(terms, self.cri_pix)
        self.criteria |= {name: build_loss(options).to(self.device) for name, options in others}
        self.check_patches()
        self.log_dict = {}
        self.first_bad: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}
        self.skipped = torch.zeros((), dtype=torch.int64, device=self.device)  # iterations without a step, in a row
        if self.precision == 'fp16' and self.device.type == 'cpu':
            get_root_logger().warning('train.precision: fp16 is slow on CPUs; bf16 is fast where they support it')
        self.max_skipped = train_opt.get('max_skipped', 20)
        # with a scale of 1, all that it does is to leave out steps whose gradients are not finite
        scale = 2.0**16 if self.precision == 'fp16' else 1.0
        enabled = self.precision == 'fp16' or train_opt.get('on_non_finite') == 'skip'
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=scale, enabled=enabled)
        if train_opt.get('cuda_graph') and self.device.type == 'cuda':
            self.record_graphs()

    def record_graphs(self) -> None:
        """Replace the forward and backward passes by CUDA graphs."""
        self.add_gradients = CudaGraph(self.add_gradients, self.net_g.parameters())

    def check_patches(self) -> None:
        patch = self.opt.get('datasets', {}).get('train', {}).get('gt_size')
        for name, criterion in self.criteria.items():
            if patch and isinstance(criterion, HasSmallestPatch) and patch < criterion.smallest:
                raise ValueError(f'the loss {name} needs a gt_size of at least {criterion.smallest}, got {patch}')

    def get_optimizer(self, optim_type, params, lr, **kwargs):
        if optim_type in OPTIMIZERS:
            fused = {} if 'foreach' in kwargs else {'fused': True}
            return OPTIMIZERS[optim_type](params, lr, **fused | kwargs)
        return super().get_optimizer(optim_type, params, lr, **kwargs)

    def feed_data(self, data: dict[str, Any]) -> None:
        super().feed_data(data)
        if getattr(self, 'is_channels_last', False):
            self.lq = self.lq.contiguous(memory_format=torch.channels_last)

    def loss_terms(self) -> dict[str, Tensor]:
        """The weighted terms of the loss of ``self.output`` against ``self.gt``, by the names in the log."""
        terms = {}
        for name, criterion in self.criteria.items():
            images = (self.output, self.gt)
            if isinstance(criterion, WeightedTVLoss):  # its second argument is a weight, not the target
                images = (self.output,)
            elif getattr(criterion, 'reads_lq', False):
                images = (self.output, self.lq)
            loss = criterion(*images)
            if isinstance(loss, tuple):  # BasicSR's PerceptualLoss: perceptual and style, each possibly None
                named = zip((f'l_{name}', f'l_{name}_style'), loss, strict=True)
                terms |= {key: value for key, value in named if value is not None}
            else:
                # means over parts and processes make the loss of all images; a sum over its images is not a mean
                is_sum = getattr(criterion, 'reduction', None) == 'sum'
                terms[f'l_{name}'] = loss * (self.accum_iter * self.opt.get('world_size', 1)) if is_sum else loss
        return terms

    def optimize_parameters(self, current_iter: int) -> None:
        try:
            self.log_dict = self.update(current_iter)
        except RuntimeError as error:
            if type(error).__module__.startswith(('torch._dynamo', 'torch._inductor')):
                raise UserError(f'train.compile: torch.compile fails ({reason_of(error)}); train without it') from error
            raise
        self.scaler.update(None if self.precision == 'fp16' else 1.0)
        self._record_non_finite(current_iter)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def update(self, current_iter: int) -> dict[str, Tensor]:
        """One step of the optimiser; returns the values to log, detached. Names of losses begin with l_.

        Afterwards, ``self.output`` has the results for all images, detached.
        """
        self.optimizer_g.zero_grad()
        before = self.buffers_of(self.net_g)
        images, outputs, logs = (self.lq, self.gt), [], []
        for batch in last_exchanges(self.net_g, self.batches(*images)):
            output, terms = self.add_gradients(*batch)
            outputs.append(output)
            logs.append(terms)
        self.lq, self.gt = images
        self.output = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        norm = self.take_step(self.optimizer_g, self.opt['train'].get('grad_clip_g'), before)
        return mean_of(logs) | {'grad_norm_g': norm}

    def add_gradients(self, lq: Tensor, gt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradients of one batch to those of the iteration; returns the output and the terms, detached."""
        self.lq, self.gt = lq, gt
        self.output = self.compute(self.net_g, self.lq)
        with autocast(self.device, self.precision):
            terms = self.loss_terms()
        self.backward(sum(terms.values()))
        self.output = self.output.detach()  # which frees what the backward pass needed
        return self.output, {name: term.detach() for name, term in terms.items()}

    def batches(self, *images: Tensor) -> list[tuple[Tensor, ...]]:
        """The batches that an iteration has read."""
        return list(zip(*(tensor.chunk(self.accum_iter) for tensor in images), strict=True))

    def compute(self, net: nn.Module, x: Tensor) -> Tensor:
        """The network's result in the precision of the options, converted to that of its input."""
        with autocast(self.device, self.precision):
            return net(x).to(x.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss of one batch to those of the iteration."""
        self.scaler.scale(loss / self.accum_iter).backward()

    def take_step(self, optimizer: torch.optim.Optimizer, max_norm: float | None, buffers: Buffers) -> Tensor:
        """Clip the gradients and take a step; returns their norm before.

        If gradients are not finite and the scaler is enabled, weights and buffers stay as they were.
        """
        self.scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if max_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        self.scaler.step(optimizer)
        for buffer, before in buffers:
            buffer.copy_(torch.where(norm.isfinite(), buffer, before))
        return norm

    def buffers_of(self, net: nn.Module) -> Buffers:
        """The buffers of a network and their values now, for ``take_step``; none without a scaler."""
        return [(buffer, buffer.clone()) for buffer in net.buffers()] if self.scaler.is_enabled() else []

    def _record_non_finite(self, current_iter: int) -> None:
        """Record on the device in which iteration each value was first not finite, and count the skipped iterations."""
        log = {name: value for name, value in self.log_dict.items() if name.startswith(('l_', 'grad_norm_'))}
        norms = [value for name, value in log.items() if name.startswith('grad_norm_')]
        self.skipped = torch.where(torch.stack(norms).isfinite().all(), 0, self.skipped + 1)
        values = torch.stack([value.detach().float().mean() for value in log.values()])
        bad = ~values.isfinite()
        if self.precision == 'fp16':  # gradients overflow now and then, and the scaler answers
            bad &= torch.tensor([name.startswith('l_') for name in log], device=bad.device)
        now = torch.where(bad, current_iter, NEVER)
        names = tuple(log)  # iterations can have different terms
        first, its_values = self.first_bad.get(names, (now, values))
        is_first = now.min() < first.min()
        self.first_bad[names] = torch.minimum(now, first), torch.where(is_first, values, its_values)

    def first_non_finite(self) -> NonFinite | None:
        """The first value that was not finite since the last call; waits for the device."""
        recorded, self.first_bad = self.first_bad, {}
        found = None
        for names, (first, values) in recorded.items():
            iteration, index = first.min(0)
            if iteration < (found.iteration if found else NEVER):
                found = NonFinite(iteration.item(), names[index], dict(zip(names, values.tolist(), strict=True)))
        return found

    def extra_state(self) -> dict[str, Any]:
        """What a training state has of this model besides networks, optimisers and schedulers."""
        state = {'scaler': self.scaler.state_dict()} if self.precision == 'fp16' else {}
        return state | {'skipped': int(self.skipped)} if self.scaler.is_enabled() else {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if self.precision == 'fp16' and 'scaler' in state:
            self.scaler.load_state_dict(state['scaler'])
        self.skipped.fill_(state.get('skipped', 0))

    def get_current_log(self) -> dict[str, float]:
        """The last iteration's terms as numbers, averaged over the processes; waits for the device."""
        return self.reduce_loss_dict(self.log_dict)

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        net = self.get_bare_model(self.net_g)
        averages, values = [], []
        for average, value in zip(
            chain(self.net_g_ema.parameters(), self.net_g_ema.buffers()),
            chain(net.parameters(), net.buffers()),
            strict=True,
        ):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)  # counters are not averaged
        get_ema_multi_avg_fn(decay)(averages, values, None)

    @master_only
    def print_network(self, net: nn.Module) -> None:
        count = sum(parameter.numel() for parameter in net.parameters())
        get_root_logger().info(f'{type(self.get_bare_model(net)).__name__} has {count:,} parameters.')


def last_exchanges(net: nn.Module, items: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The items; only the pass through ``net`` for the last exchanges gradients with other processes."""
    for number, item in enumerate(items, 1):
        is_alone = number == len(items) or not isinstance(net, DistributedDataParallel)
        with nullcontext() if is_alone else net.no_sync():
            yield item


def mean_of(logs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The means of the values of several batches."""
    return {name: torch.stack([log[name] for log in logs]).mean(0) for name in logs[0]} if len(logs) > 1 else logs[0]


def freeze(net: nn.Module, patterns: list[str]) -> None:
    """Exclude parameters from training: those whose names match a pattern or are below one.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    for pattern in patterns:
        frozen = [p for name, p in net.named_parameters() if fnmatch(name, pattern) or fnmatch(name, f'{pattern}.*')]
        if not frozen:
            layers = ', '.join(dict.fromkeys(name.partition('.')[0] for name, _ in net.named_parameters()))
            raise ValueError(f'train.freeze: no parameter of the network is named {pattern}; it has {layers}')
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ValueError(f'train.freeze: {", ".join(patterns)} leave nothing to train')
