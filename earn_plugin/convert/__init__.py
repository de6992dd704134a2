"""Checkpoints of the papers' authors turned into ours and back, and any of them loaded."""

from earn_plugin.convert.conversion import convert, load

__all__ = ['convert', 'load']
