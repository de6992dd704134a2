"""What a kind of checkpoints has in common: how to recognise it, its names for our parameters, its arguments."""

import re
from collections import defaultdict
from typing import Any

from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Renames = tuple[tuple[str, str], ...]


class CheckpointFormat:
    """The checkpoints of one authors' code; the base class is for ours, whose names and shapes are the network's."""

    title: str  # for messages
    arch: str  # the registered network
    detect: tuple[str, ...]  # names that all of these checkpoints have, and that no other kind has together
    renames: Renames = ()  # patterns in our names and their replacements, applied in order; {argument} is filled in
    unused = r'(?!)'  # names that the authors save and their network does not use
    nested: tuple[str, ...] = ()  # the keys under which their files have the weights

    def required(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The only values that the authors' code supports, given the other arguments."""
        return {}

    def arguments(self, shapes: Shapes) -> dict[str, Any]:
        """The network's arguments, as far as they can be inferred from the shapes."""
        raise NotImplementedError

    def own_arguments(self, shapes: Shapes) -> dict[str, Any]:
        """The same for a file with our names, from what ``own_shapes`` gives."""
        return self.arguments(shapes)

    def undetectable(self, shapes: Shapes) -> dict[str, tuple]:
        """Arguments that cannot be inferred from the weights, and their choices."""
        return {}

    def matches(self, shapes: Shapes) -> bool:
        return all(name in shapes for name in self.detect)

    def own_shapes(self, shapes: Shapes) -> Shapes:
        """Our network's shapes under the authors' names; numbers in them that depend on its sizes are 0."""
        named = {self.authors_name(name, defaultdict(int)): shape for name, shape in shapes.items()}
        return {name: self.authors_shape(name, shape) for name, shape in named.items()}

    def authors_name(self, name: str, arguments: dict[str, Any]) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement.format_map(arguments), name)
        return name

    def authors_shape(self, authors_name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The authors' shape of a tensor of ours."""
        return shape

    def constants(self, arguments: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that the authors save and our network does not need."""
        return {}

    def warnings(self, arguments: dict[str, Any], weights: dict[str, Tensor]) -> list[str]:
        """Where the converted network differs from the checkpoint."""
        return []
