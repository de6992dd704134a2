"""What other code may rely on by attribute, checked with ``isinstance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Fusible(Protocol):
    """A network with a fused form: the same function with fewer operations, built by its argument ``fused=True``.

    To be checked for the class: an instance may have a layer named ``fuse``, as many networks do.
    """

    def fuse(self) -> nn.Module:
        """The network in its fused form with the weights converted; the network itself if it is fused already."""


@runtime_checkable
class HasSmallestPatch(Protocol):
    """A loss that needs images of at least ``smallest`` pixels on the shorter side."""

    smallest: int


@runtime_checkable
class MakesLR(Protocol):
    """A data set that can make its LR images from the HR images; ``makes_lr`` is True where it does."""

    makes_lr: bool
