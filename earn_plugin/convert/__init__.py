"""Networks found by name or checkpoint, and checkpoints converted between the authors' form and ours.

``authors`` has a table of parameter names for each authors' code; ``weight_files`` reads and writes the files.
"""

from earn_plugin.convert.conversion import convert
from earn_plugin.convert.networks import load

__all__ = ['convert', 'load']
