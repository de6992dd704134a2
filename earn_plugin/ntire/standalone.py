"""An exported network in this interpreter, and what the organisers' fvcore counts in it beside ours.

What runs as one operator of torch, or of ours, fvcore takes for nothing; the file has several plain ones there.
"""

import sys
from types import ModuleType
from typing import Any, NamedTuple

import torch

from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.errors import UserError, reason_of
from earn_plugin.measure.complexity import count
from earn_plugin.ntire.single_file import extract

COUNTED = ((16, 12), (24, 20), (17, 33))  # two to tell what is counted otherwise, and one to see that it is so
OFFICIAL = (256, 256)


class Extra(NamedTuple):
    """Multiply-adds that fvcore counts in the file and not in our network."""

    a_pixel: int = 0  # of the input
    a_pair: int = 0  # of pixels of the input: attention
    rest: int = 0  # where it follows neither: measured at the official size, and true for that alone

    def __call__(self, height: int, width: int) -> int:
        return self.a_pixel * height * width + self.a_pair * (height * width) ** 2 + self.rest


def standalone(found: FoundNetwork) -> FoundNetwork:
    """A network as an export writes it, with the same weights.

    Raises:
        UserError: why it cannot be exported as it is.
    """
    name = type(found.network).__name__
    text = extract(type(found.network)).text
    try:
        copy = names_of(text, f'exported_{name}')[name](**found.arguments)
        copy.load_state_dict(found.network.state_dict())
    except Exception as error:  # there is no list of what a text that lacks something makes Python raise
        raise UserError(reason_of(error)) from error
    return found._replace(network=copy.eval())


def names_of(text: str, title: str) -> dict[str, Any]:
    """What the text of an exported file makes, by name. An import would leave its cache beside the file."""
    module = ModuleType(title)
    sys.modules[title] = module  # where dataclasses look for what their annotations name
    exec(compile(text, title, 'exec'), module.__dict__)
    return module.__dict__


def extra_of(ours: FoundNetwork, theirs: FoundNetwork) -> Extra:
    """What fvcore counts more in ``theirs``, the exported network: found on small images where they can tell."""

    def more(size: tuple[int, int]) -> int:
        counted = (count(found, size, torch.device('cpu')).fvcore for found in (theirs, ours))
        return next(counted) - next(counted)

    counts = {height * width: more((height, width)) for height, width in COUNTED}
    (small, first), (large, second), *_ = counts.items()
    a_pair = (second * small - first * large) // (small * large * (large - small))
    extra = Extra(first // small - a_pair * small, a_pair)
    if all(extra(pixels, 1) == count for pixels, count in counts.items()) and min(extra) >= 0:
        return extra
    return Extra(rest=more(OFFICIAL))
