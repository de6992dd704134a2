"""Lists what is registered, with the parameter counts of the networks, the included networks, recipes and ablations."""

import contextlib
import inspect
import io
import warnings

import torch
from basicsr.utils import registry

from earn_plugin.options.options_file import ablations, recipes
from earn_plugin.weights import included


def is_ours(thing) -> bool:
    return thing.__module__.startswith('earn_plugin.')


def parameter_count(network: type) -> str:
    """Number of parameters with the default arguments, or which arguments have no default."""
    parameters = inspect.signature(network).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if needed:
        return f'needs {", ".join(needed)}'
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # some networks print and warn when they are built
        try:
            with torch.device('meta'):  # allocates nothing
                built = network()
        except (NotImplementedError, RuntimeError):  # its constructor needs values, which meta tensors do not have
            try:
                built = network()
            except RuntimeError:
                return 'its default arguments are inconsistent'
    return f'{sum(p.numel() for p in built.parameters()):,} parameters'


def print_catalogue() -> None:
    """Print everything that is registered, ours before BasicSR's."""
    for title, things in (
        ('networks', registry.ARCH_REGISTRY),
        ('losses', registry.LOSS_REGISTRY),
        ('models', registry.MODEL_REGISTRY),
        ('data sets', registry.DATASET_REGISTRY),
        ('metrics', registry.METRIC_REGISTRY),
    ):
        print(title)
        for name, thing in sorted(things, key=lambda item: (not is_ours(item[1]), item[0])):
            package = 'earn_plugin' if is_ours(thing) else 'basicsr'
            about = parameter_count(thing) if title == 'networks' else package
            short = name.removesuffix('_basicsr')  # as which BasicSR's registry finds it, unless that is another
            print(f'  {name if short in things else short:<32}{about}')
    cards = [path.with_suffix('.md') for path in included().values()]
    for title, files in (
        ('included networks (--model NAME)', cards),
        ('recipes (-opt NAME)', recipes()),
        ('ablations (ablate NAME)', ablations()),
    ):
        print(title)
        for path in files:
            with path.open(encoding='utf-8') as file:
                print(f'  {path.stem:<32}{file.readline().removeprefix("#").strip()}')
