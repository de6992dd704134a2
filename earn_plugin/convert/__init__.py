"""Networks found by name or checkpoint, and checkpoints converted between the authors' form and ours."""

from earn_plugin.convert.conversion import convert
from earn_plugin.convert.networks import load

__all__ = ['convert', 'load']
