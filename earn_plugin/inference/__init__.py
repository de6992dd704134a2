"""Enlarges pictures with a trained network: in tiles equal to the whole image, from and to files of any common kind."""

from earn_plugin import compat

with compat.registry_alone():  # a picture should not wait for the import of BasicSR's training
    from earn_plugin import archs  # noqa: F401  (registers the networks)
    from earn_plugin.inference.upscaling import upscale

__all__ = ['upscale']
