"""The model types, subclasses of BasicSR's; importing this package registers them in BasicSR.

A model has one step of training: losses, optimisers, moving average. The loop around it is ``training.train``.
"""

from earn_plugin.models.earn_gan_model import EARNGANModel
from earn_plugin.models.earn_model import EARNModel

__all__ = ['EARNGANModel', 'EARNModel']
