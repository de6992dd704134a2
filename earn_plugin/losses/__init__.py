"""The losses, one file for each kind; importing this package registers them in BasicSR.

Each is a ``WeightedLoss`` of ``pred`` and ``target`` with BasicSR's ``loss_weight`` and ``reduction``; ``TeacherLoss``
makes the target of the LR image.
"""

from earn_plugin.losses.frequency_loss import FrequencyLoss
from earn_plugin.losses.ssim_loss import SSIMLoss
from earn_plugin.losses.teacher_loss import TeacherLoss
from earn_plugin.losses.tv_loss import TVLoss
from earn_plugin.losses.vgg_loss import TextureLoss, VGGPerceptualLoss

__all__ = ['FrequencyLoss', 'SSIMLoss', 'TVLoss', 'TeacherLoss', 'TextureLoss', 'VGGPerceptualLoss']
