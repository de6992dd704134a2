"""Which photographs of a folder are held out for validation: their names alone decide."""

import hashlib
import re
from collections import defaultdict
from pathlib import Path

SHARE = 0.1  # of the photographs
MOST = 10


def split(names: list[str]) -> tuple[list[str], list[str]]:
    """The images to train on, and those to validate on: about a tenth of the photographs, at least 1 and at most 10.

    A photograph is held out if the hash of its name is among the smallest. So photographs that are added later never
    move one that was trained on to those held out. The sub-images NAME_s001, NAME_s002, … of a photograph overlap and
    stay together; one in the middle stands for them in validation. A single photograph is in both parts.

    Args:
        names: files or keys of an LMDB, in the order in which both parts have them.
    """
    photographs = defaultdict(list)
    for name in names:
        photographs[_photograph(name)].append(name)
    ranked = sorted(photographs, key=_hash)
    below = sum(_hash(photograph) < SHARE for photograph in ranked)
    held = set(ranked[: max(1, min(below, MOST, len(ranked) - 1))])
    middle = {of_one[len(of_one) // 2] for photograph, of_one in photographs.items() if photograph in held}
    train = [name for name in names if _photograph(name) not in held]
    return train or names, [name for name in names if name in middle]


def _photograph(name: str) -> str:
    return re.sub(r'_s\d{3,}$', '', Path(name).stem)


def _hash(photograph: str) -> float:
    """Evenly distributed in [0, 1)."""
    digest = hashlib.sha256(photograph.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:6], 'big') / 2**48
