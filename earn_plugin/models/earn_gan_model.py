"""Adversarial training: SRGANModel with EARNModel's loss terms and logging."""

from functools import partial

import torch
from basicsr.models.srgan_model import SRGANModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from earn_plugin.models.cuda_graph import CudaGraph
from earn_plugin.models.earn_model import EARNModel, last_exchanges, mean_of


@MODEL_REGISTRY.register()
class EARNGANModel(EARNModel, SRGANModel):
    """EARNModel with a discriminator.

    The generator's loss is the sum of EARNModel's terms and l_g_gan. ``network_d``, ``gan_opt``, ``optim_d``,
    ``net_d_iters`` and ``net_d_init_iters`` are as in SRGANModel; ``grad_clip_d`` is EARNModel's ``grad_clip_g`` for
    the discriminator. The log has the discriminator's losses (l_d_real, l_d_fake), the means of its logits (out_d_real,
    out_d_fake) and of their sigmoids (d_real, d_fake): for gan_type vanilla or wgan_softplus the probability of being
    real that it assigns to real and to generated images.

    Source: SRGAN, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (CVPR 2017).
    """

    def init_training_settings(self) -> None:
        if taken := {'g_gan', 'd_real', 'd_fake'}.intersection(self.opt['train'].get('losses') or {}):
            raise ValueError(f'train.losses.{min(taken)}: a term of the GAN has that name; choose another')
        self.judges = {name: partial(self.judge, name) for name in ('real', 'fake')}
        super().init_training_settings()

    def record_graphs(self) -> None:
        super().record_graphs()
        self.judges = {name: CudaGraph(judge, self.net_d.parameters()) for name, judge in self.judges.items()}

    def check_patches(self) -> None:
        super().check_patches()
        patch = self.opt.get('datasets', {}).get('train', {}).get('gt_size')
        size = getattr(self.get_bare_model(self.net_d), 'input_size', patch)  # of BasicSR's VGGStyleDiscriminator
        if patch and size != patch:
            raise ValueError(f'the discriminator needs a gt_size of {size}, got {patch}')

    def loss_terms(self) -> dict[str, Tensor]:
        return super().loss_terms() | {'l_g_gan': self.cri_gan(self.compute(self.net_d, self.output), True)}

    def update(self, current_iter: int) -> dict[str, Tensor]:
        before = self.buffers_of(self.net_d)
        if current_iter % self.net_d_iters == 0 and current_iter > self.net_d_init_iters:
            self.net_d.requires_grad_(False)
            log = super().update(current_iter)
            self.net_d.requires_grad_(True)
        else:
            log = {}
            before += self.buffers_of(self.net_g)
            self.optimizer_g.zero_grad()
            with torch.no_grad():
                self.output = torch.cat([self.compute(self.net_g, lq) for lq in self.lq.chunk(self.accum_iter)])
            self.optimizer_g.step()  # changes nothing; torch warns if a scheduler steps before the optimiser
        self.optimizer_d.zero_grad()
        pairs = self.batches(self.gt, self.output)
        passes = [each for real, fake in pairs for each in (('real', real), ('fake', fake))]
        logs = [self.judges[name](images) for name, images in last_exchanges(self.net_d, passes)]
        norm = self.take_step(self.optimizer_d, self.opt['train'].get('grad_clip_d'), before)
        return log | mean_of(logs[::2]) | mean_of(logs[1::2]) | {'grad_norm_d': norm}

    def judge(self, name: str, images: Tensor) -> dict[str, Tensor]:
        """Add the gradients of the discriminator for 'real' or 'fake' images; returns the values to log."""
        logits = self.compute(self.net_d, images)
        loss = self.cri_gan(logits, name == 'real', is_disc=True)
        self.backward(loss)
        logits = logits.detach()
        return {f'l_d_{name}': loss.detach(), f'out_d_{name}': logits.mean(), f'd_{name}': logits.sigmoid().mean()}
