"""The BasicSR model types; importing this puts them into BasicSR's registry."""

from earn_plugin.models.earn_model import EARNModel

__all__ = ['EARNModel']
