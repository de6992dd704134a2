"""The included networks: NAME.safetensors with weights, architecture and its arguments; NAME.md, the model card.

They are found by NAME wherever a checkpoint is named.
"""

import os
from pathlib import Path


def included() -> dict[str, Path]:
    """The files of the included networks by name, sorted."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob('*.safetensors'))}


def checkpoint_file(name: str | Path) -> Path:
    """The file at a path, or else that of the included network of this name; the path if there is neither."""
    path = Path(name)
    is_file = os.path.isfile(path)  # noqa: PTH113 (Path's raises if the name is too long)
    return path if is_file else included().get(str(name), path)


def absence(name: str | Path) -> str:
    """What an error says of a checkpoint that does not exist; a name without folders may mean an included network."""
    listed = f'; included networks, by name: {", ".join(included())}' if Path(name).parent == Path() else ''
    return f'{name} does not exist{listed}'
