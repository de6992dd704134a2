"""Small data trees in the layout of each year, from the photographs of the demo."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from earn_plugin.data.bicubic import crop_to_multiple, imresize
from earn_plugin.data.image_files import write_image
from earn_plugin.prepare.demo import HELD_OUT

# written down from the official scripts: HR, LR by HR's number
LAYOUTS = {
    'DIV2K_valid': ('DIV2K_valid_HR/{:04}.png', 'DIV2K_valid_LR/{:04}x4.png', 801),
    'DIV2K_test': ('DIV2K_test_HR/{:04}.png', 'DIV2K_test_LR/{:04}.png', 901),
    'hybrid_test': ('LSDIR_DIV2K_test_HR/{:07}.png', 'LSDIR_DIV2K_test_LR/{:07}x4.png', 1),
    'mixed_valid': ('DIV2K_LSDIR_valid_HR/{:06}.png', 'DIV2K_LSDIR_valid_LR/{:06}x4.png', 1),
    'mixed_test': ('DIV2K_LSDIR_test_HR/{:06}.png', 'DIV2K_LSDIR_test_LR/{:06}x4.png', 1),
}


def photographs() -> list[np.ndarray]:
    """Parts of the demo's held-out photographs, BGR, of sizes that 4 does not divide."""
    sizes = ((50, 47), (61, 76), (45, 49))
    sources = [photograph()[..., ::-1] for photograph in HELD_OUT.values()]
    return [sources[i % 2][60 : 60 + h, 100 : 100 + w] for i, (h, w) in enumerate(sizes)]


def write_tree(root: Path, layout: str, count: int = 3) -> Path:
    hr, lr, first = LAYOUTS[layout]
    for number, image in enumerate(photographs()[:count], first):
        write_image(root / hr.format(number), image)
        write_image(root / lr.format(number), imresize(crop_to_multiple(image, 4), Fraction(1, 4)))
    return root
