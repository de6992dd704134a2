"""The BasicSR model types; importing this puts them into BasicSR's registry."""

from earn_plugin.models.earn_gan_model import EARNGANModel
from earn_plugin.models.earn_model import EARNModel

__all__ = ['EARNGANModel', 'EARNModel']
