"""Our networks for spandrel, which chaiNNer, ComfyUI and other programs load checkpoints with."""

import inspect
import logging
from pathlib import Path
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from earn_plugin.convert.authors import FORMATS, DualAttentionRCANFormat
from earn_plugin.convert.checkpoint_format import CheckpointFormat
from earn_plugin.convert.networks import infer_arguments, load_strictly, shapes_of
from earn_plugin.convert.weight_files import Weights, is_weights, published_name
from earn_plugin.protocols import RunsByParts

try:
    from spandrel import (
        MAIN_REGISTRY,
        Architecture,
        ArchRegistry,
        ArchSupport,
        ImageModelDescriptor,
        ModelTiling,
        StateDict,
    )
except ImportError as error:
    raise ImportError('earn_plugin.spandrel needs spandrel: pip install spandrel') from error

CHECKPOINT = Path('the checkpoint')  # for messages; spandrel does not give its path
HALF = ('LGVAN',)  # A2N with the authors' weights overflows on a checkerboard; the others are not measured


class PublishedArchitecture(Architecture[nn.Module]):
    """A network of this package, with the authors' parameter names or with ours, in training or fused form.

    Args:
        kind: its checkpoints.
        choices: arguments for when they cannot be inferred from the weights.
    """

    def __init__(self, kind: CheckpointFormat, choices: dict[str, Any]):
        super().__init__(id=kind.arch, detect=lambda state_dict: self._is_own(state_dict) is not None)
        self.kind, self.choices = kind, choices

    def _is_own(self, state_dict: StateDict) -> bool | None:
        """Whether the names are ours, or the authors'; None if they belong to another network."""
        if not is_weights(state_dict):
            return None
        shapes = shapes_of(state_dict)
        if self.kind.matches(shapes):
            return False
        return True if self.kind.matches(self.kind.own_shapes(shapes)) else None

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        is_own = self._is_own(state_dict)
        network, arguments = self._build(state_dict, is_own)
        names = {'num_feat': 'nf', 'num_group': 'ng', 'num_block': 'nb'}
        tags = [f'{arguments[name]}{short}' for name, short in names.items() if name in arguments]
        return ImageModelDescriptor(
            network,
            network.state_dict(),
            architecture=self,
            purpose='SR',
            tags=tags + ['fused'] * arguments.get('fused', False),
            supports_half=self.kind.arch in HALF,
            supports_bfloat16=True,
            scale=arguments['upscale'],
            input_channels=arguments['num_in_ch'],
            output_channels=arguments['num_out_ch'],
            tiling=ModelTiling.DISCOURAGED if isinstance(network, RunsByParts) else ModelTiling.SUPPORTED,
        )

    def _build(self, weights: Weights, is_own: bool) -> tuple[nn.Module, dict[str, Any]]:
        shapes = shapes_of(weights)
        shapes = self.kind.own_shapes(shapes) if is_own else shapes
        inferred = self.kind.own_arguments(shapes) if is_own else self.kind.arguments(shapes)
        possible = {name: values for name, values in self.kind.undetectable(shapes).items() if name not in inferred}
        chosen = {name: self.choices.get(name, values[0]) for name, values in possible.items()}
        description, _ = infer_arguments(CHECKPOINT, self.kind, shapes, chosen, is_own)
        arguments = description['arguments']
        build = ARCH_REGISTRY.get(published_name(self.kind.arch))
        defaults = inspect.signature(build).parameters
        if odd := ', '.join(f'{name}={value}' for name, value in chosen.items() if value != defaults[name].default):
            logging.getLogger('earn_plugin').warning(
                '%s is loaded with %s, which its weights do not show', self.kind.title, odd
            )
        network = build(**arguments)
        names = CheckpointFormat() if is_own else self.kind
        names.title = self.kind.title
        load_strictly(CHECKPOINT, network, weights, names, arguments)
        return network.eval(), arguments


def install(registry: ArchRegistry = MAIN_REGISTRY, *, a2n_scale: int = 2) -> None:
    """Let spandrel load our networks and their authors' checkpoints; may be called more than once.

    Args:
        registry: of spandrel; the default is the one that its ``ModelLoader`` uses.
        a2n_scale: 2 or 3, for A2N checkpoints of these scales, whose weights have the same shapes.
    """
    others = tuple(support.architecture.id for support in registry)
    for kind in [*FORMATS, DualAttentionRCANFormat()]:
        if kind.arch == 'RCAN':  # spandrel has it
            continue
        choices = {'upscale': a2n_scale} if kind.arch == 'A2N' else {}
        if kind.arch in registry:
            if isinstance(known := registry[kind.arch].architecture, PublishedArchitecture):
                known.choices = choices
            continue
        # before all others: HAN's names contain all that spandrel looks for in an RCAN
        registry.add(ArchSupport.from_architecture(PublishedArchitecture(kind, choices), before=others))
