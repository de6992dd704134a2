"""EARN's training: SRModel with any number of loss terms, which waits for the device only to log."""

from itertools import chain
from operator import itemgetter

import torch
from basicsr.losses import build_loss
from basicsr.losses.basic_loss import WeightedTVLoss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from earn_plugin.protocols import HasSmallestPatch

OPTIMIZERS = {'Adam': torch.optim.Adam, 'AdamW': torch.optim.AdamW}
NEVER = torch.iinfo(torch.int64).max


@MODEL_REGISTRY.register()
class EARNModel(SRModel):
    """SRModel whose loss is a weighted sum of any terms.

    ``train: losses:`` maps names to losses with their options; each is logged as l_NAME. BasicSR's ``pixel_opt`` and
    ``perceptual_opt`` can be used with it or without it. The loss is the sum of all, each with its own ``loss_weight``.
    ``optim_g`` can be Adam or AdamW; ``grad_clip_g`` is the largest norm over all gradients. The exponential moving
    average includes buffers.
    """

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
        others = list(terms.items())[1:]
        self.criteria = dict.fromkeys(terms, self.cri_pix)
        self.criteria |= {name: build_loss(options).to(self.device) for name, options in others}
        self.check_patches()
        self.log_dict = {}
        self.first_bad: dict[tuple[str, ...], Tensor] = {}

    def check_patches(self) -> None:
        patch = self.opt.get('datasets', {}).get('train', {}).get('gt_size')
        for name, criterion in self.criteria.items():
            if patch and isinstance(criterion, HasSmallestPatch) and patch < criterion.smallest:
                raise ValueError(f'the loss {name} needs a gt_size of at least {criterion.smallest}, got {patch}')

    def get_optimizer(self, optim_type, params, lr, **kwargs):
        if optim_type in OPTIMIZERS:
            return OPTIMIZERS[optim_type](params, lr, **kwargs)
        return super().get_optimizer(optim_type, params, lr, **kwargs)

    def setup_optimizers(self) -> None:
        super().setup_optimizers()
        clip_before_steps(self.optimizer_g, self.opt['train'].get('grad_clip_g'))

    def loss_terms(self) -> dict[str, Tensor]:
        """The weighted terms of the loss of ``self.output`` against ``self.gt``, by the names in the log."""
        terms = {}
        for name, criterion in self.criteria.items():
            if isinstance(criterion, WeightedTVLoss):  # its second argument is a weight, not the target
                terms[f'l_{name}'] = criterion(self.output)
                continue
            loss = criterion(self.output, self.gt)
            if isinstance(loss, tuple):  # BasicSR's PerceptualLoss: perceptual and style, each possibly None
                named = zip((f'l_{name}', f'l_{name}_style'), loss, strict=True)
                terms |= {key: value for key, value in named if value is not None}
            else:
                terms[f'l_{name}'] = loss
        return terms

    def optimize_parameters(self, current_iter: int) -> None:
        self.log_dict = self.update(current_iter)
        self._record_non_finite(current_iter)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def update(self, current_iter: int) -> dict[str, Tensor]:
        """One step of the optimiser; returns the values to log, detached. Names of losses begin with l_."""
        self.optimizer_g.zero_grad()
        self.output = self.net_g(self.lq)
        terms = self.loss_terms()
        sum(terms.values()).backward()
        self.optimizer_g.step()
        return {name: term.detach() for name, term in terms.items()}

    def _record_non_finite(self, current_iter: int) -> None:
        """Record on the device in which iteration each loss was first not finite."""
        names = tuple(name for name in self.log_dict if name.startswith('l_'))  # iterations can have different terms
        bad = ~torch.stack([self.log_dict[name].float().isfinite().all() for name in names])
        now = torch.where(bad, current_iter, torch.full_like(bad, NEVER, dtype=torch.int64))
        self.first_bad[names] = torch.minimum(now, self.first_bad.get(names, now))

    def first_non_finite(self) -> tuple[int, str] | None:
        """Iteration and name of the first loss that was not finite since the last call; waits for the device."""
        recorded, self.first_bad = self.first_bad, {}
        found = (pair for names, first in recorded.items() for pair in zip(first.tolist(), names, strict=True))
        iteration, name = min(found, key=itemgetter(0), default=(NEVER, ''))  # ties: the first computed
        return None if iteration == NEVER else (iteration, name)

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


def clip_before_steps(optimizer: torch.optim.Optimizer, max_norm: float | None) -> None:
    """Register a hook that scales all gradients before each step so that their total norm is at most ``max_norm``.

    None registers no hook.
    """

    def clip(optimizer, args, kwargs) -> None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group['params']], max_norm)

    if max_norm is not None:
        optimizer.register_step_pre_hook(clip)
