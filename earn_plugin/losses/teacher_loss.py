"""Knowledge distillation: the distance between a network's output and that of a trained one."""

from pathlib import Path
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.losses.basic_loss import WeightedTVLoss
from basicsr.losses.gan_loss import GANLoss
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from earn_plugin.errors import UserError
from earn_plugin.protocols import HasSmallestPatch, ReadsLQ


@LOSS_REGISTRY.register()
class TeacherLoss(nn.Module):
    """``criterion(pred, teacher(lq))``: the output of a trained network takes the place of the HR image.

    ``pred`` is N×C×sH×sW, the LR image ``lq`` N×C×H×W in [0, 1]. The teacher stays in evaluation mode; it gets no
    gradient, is not trained, and is not saved with the model. Under autocast it runs in bfloat16, but not in float16.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), for outputs that are images.

    Args:
        teacher: a file or an included network, as ``earn_plugin.load`` takes it, of the same scale and channels.
        criterion: type and arguments of a registered loss of two images, such as {type: L1Loss}.
        loss_weight: factor on the loss, in addition to the criterion's own.

    Raises:
        UserError: the file is missing, damaged or not recognised.
        ValueError: the criterion does not compare two images, or the teacher's output has another shape than ``pred``.
    """

    reads_lq = True  # as ``protocols.ReadsLQ``: it is called with the LR image

    def __init__(self, teacher: str, criterion: dict[str, Any], loss_weight: float = 1.0):
        from earn_plugin.convert.networks import load  # not above: it imports basicsr, which registers this loss

        super().__init__()
        self.teacher = load(Path(teacher).expanduser()).requires_grad_(False)
        self.criterion = build_loss(criterion)
        if isinstance(self.criterion, ReadsLQ | GANLoss | WeightedTVLoss):
            raise ValueError(f'the criterion of a TeacherLoss must compare two images; {criterion["type"]} does not')
        self.loss_weight = loss_weight
        self.reduction = getattr(self.criterion, 'reduction', 'mean')
        if isinstance(self.criterion, HasSmallestPatch):
            self.smallest = self.criterion.smallest

    def train(self, mode: bool = True) -> 'TeacherLoss':
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, pred: Tensor, lq: Tensor) -> Tensor:
        device = lq.device.type
        # networks that work on [0, 255] exceed float16's largest number
        is_half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != torch.float16
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=is_half):
            target = self.teacher(lq)
        if target.shape != pred.shape:
            raise ValueError(f'the teacher returns {tuple(target.shape)}, the network {tuple(pred.shape)}')
        loss = self.criterion(pred, target.to(pred.dtype))
        if isinstance(loss, tuple):  # BasicSR's PerceptualLoss: perceptual and style, each possibly None
            loss = sum(part for part in loss if part is not None)
        return self.loss_weight * loss


def teacher_problem(path: Path, shape: tuple[int, int, int, int], scale: int) -> str | None:
    """Why a file cannot be the teacher for LR images of a shape, N×C×H×W, and a scale."""
    from earn_plugin.convert.networks import load, output_of  # as above

    try:
        teacher = load(path)
    except UserError as error:
        return str(error)
    n, channels, height, width = shape
    try:
        with torch.no_grad():
            found = tuple(output_of(teacher, torch.zeros(shape)).shape)
    except UserError as error:
        return f'{path} cannot enlarge images of {channels} channels and {height}×{width}: {error}'
    if found == (n, channels, height * scale, width * scale):
        return None
    if len(found) == len(shape) and found[1] != channels:
        return f'{path} returns images of {found[1]} channels, those that are trained on have {channels}'
    size = '×'.join(map(str, found[2:]))
    return f'{path} enlarges {height}×{width} to {size}, but scale is {scale}: give a teacher of this scale'
