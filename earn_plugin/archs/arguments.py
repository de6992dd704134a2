"""Checks of the networks' arguments whose failure torch would report late, unclearly or not at all.

Each raises a ValueError that says what was given and what is possible.
"""

import math


def check_counts(**arguments: int) -> None:
    """Raise ValueError for the first argument that is not an integer of at least 1."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f'{name} must be an integer of at least 1, got {value!r}')


def check_choice(choices: tuple, **arguments) -> None:
    """Raise ValueError for the first argument that is not one of the choices; 2.0 and True do not equal 2 and 1."""
    for name, value in arguments.items():
        if type(value) is not type(choices[0]) or value not in choices:
            raise ValueError(f'{name} must be one of {", ".join(map(repr, choices))}, got {value!r}')


def check_multiple(of: int, reason: str, **arguments: int) -> None:
    """Raise ValueError for the first argument that ``of`` does not divide; names the nearest one that it divides."""
    for name, value in arguments.items():
        if value % of:
            nearest = max(of, round(value / of) * of)
            raise ValueError(f'{name} must be a multiple of {of} ({reason}), got {value}; try {nearest}')


def check_images(
    num_in_ch: int, num_out_ch: int, img_range: float = 1.0, rgb_mean: tuple[float, ...] | None = None
) -> None:
    """Raise ValueError unless all have the same number of channels, the range is above 0 and the mean is in [0, 1]."""
    check_counts(num_in_ch=num_in_ch, num_out_ch=num_out_ch)
    if num_in_ch != num_out_ch:
        raise ValueError(
            f'num_in_ch and num_out_ch must be equal, got {num_in_ch} and {num_out_ch}; set both to the channels of '
            'the images'
        )
    if not 0 < img_range < math.inf:
        raise ValueError(f'img_range must be a number above 0, got {img_range!r}; most papers use 255')
    if rgb_mean is None:
        return
    if not isinstance(rgb_mean, (list, tuple)) or not all(0 <= value <= 1 for value in rgb_mean):
        raise ValueError(
            f'rgb_mean must be a list of numbers from 0 to 1, got {rgb_mean!r}; divide the mean of 8-bit images by 255'
        )
    if num_in_ch != len(rgb_mean):
        raise ValueError(
            f'num_in_ch must equal the number of values in rgb_mean, got {num_in_ch} and {rgb_mean}; give rgb_mean '
            f'{num_in_ch} value(s), or convert the images'
        )
