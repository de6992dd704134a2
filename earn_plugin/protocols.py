"""What other code may rely on by attribute, checked with ``isinstance``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Fusible(Protocol):
    """A network with a fused form: the same function with fewer operations, built by its argument ``fused=True``.

    To be checked for the class: an instance may have a layer named ``fuse``, as many networks do.
    """

    def fuse(self) -> nn.Module:
        """The network in its fused form with the weights converted; the network itself if it is fused already."""


@runtime_checkable
class HasReach(Protocol):
    """A network that says what tiles need in order to equal the whole image.

    ``reach`` is the number of pixels of the input around a pixel that its result depends on, apart from what is
    computed from the entire image; tiles start at multiples of ``alignment``.
    """

    reach: int
    alignment: int


@runtime_checkable
class RunsByParts(HasReach, Protocol):
    """A network that computes something from the entire image, such as means, and can run the others by parts."""

    def by_parts(self, x: Tensor, runner: Any) -> Iterator[tuple[int, int, Tensor]]:
        """The result for an image 1×C×H×W, tile by tile: top row, left column, values.

        Args:
            runner: an ``inference.parts.PartRunner``, which runs local parts on the image or on features of its size.
        """


@runtime_checkable
class HasSmallestPatch(Protocol):
    """A loss that needs images of at least ``smallest`` pixels on the shorter side."""

    smallest: int


@runtime_checkable
class ReadsLQ(Protocol):
    """A loss that is called with the LR image as its second argument, not the HR image, where ``reads_lq`` is True."""

    reads_lq: bool


@runtime_checkable
class MakesLR(Protocol):
    """A data set that can make its LR images from the HR images; ``makes_lr`` is True where it does."""

    makes_lr: bool


@runtime_checkable
class HasExtraState(Protocol):
    """A model that has more to resume from than networks, optimisers and schedulers, such as a gradient scaler."""

    def extra_state(self) -> dict[str, Any]:
        """Tensors and plain data, for the training state."""

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore them; not called for states that have none."""
