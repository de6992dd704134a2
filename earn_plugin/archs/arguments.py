"""Checks of the networks' arguments: each raises ValueError with what was given, what is possible and what to do."""

import math


def check_positive(**arguments: int) -> None:
    """Raise ValueError for the first argument that is not a whole number of at least 1."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f'{name} must be a whole number of at least 1, got {value!r}')


def check_choice(choices: tuple, **arguments) -> None:
    """Raise ValueError for the first argument that is none of the choices; 2.0 and True are no 2 and 1."""
    for name, value in arguments.items():
        if type(value) is not type(choices[0]) or value not in choices:
            raise ValueError(f'{name} must be one of {", ".join(map(repr, choices))}, got {value!r}')


def check_multiple(of: int, reason: str, **arguments: int) -> None:
    """Raise ValueError for the first argument that ``of`` does not divide, and name the nearest that fits."""
    for name, value in arguments.items():
        if value % of:
            nearest = max(of, round(value / of) * of)
            raise ValueError(f'{name} must be a multiple of {of} ({reason}), got {value}; try {nearest}')


def check_channels(num_in_ch: int, num_out_ch: int, rgb_mean: tuple[float, ...]) -> None:
    """Raise ValueError unless input, output and mean have the same number of channels, and the mean is in [0, 1]."""
    check_positive(num_in_ch=num_in_ch, num_out_ch=num_out_ch)
    if not isinstance(rgb_mean, (list, tuple)) or not all(is_number(value) and 0 <= value <= 1 for value in rgb_mean):
        raise ValueError(
            f'rgb_mean must be a list of numbers from 0 to 1, one a channel, got {rgb_mean!r}; divide a mean of 8 bit '
            'images by 255'
        )
    for name, value in (('num_in_ch', num_in_ch), ('num_out_ch', num_out_ch)):
        if value != len(rgb_mean):
            raise ValueError(
                f'{name} must equal the number of values in rgb_mean ({len(rgb_mean)}), got {value} and {rgb_mean}; '
                f'give rgb_mean {value} value(s), or convert the images'
            )


def check_same(num_in_ch: int, num_out_ch: int) -> None:
    """Raise ValueError unless input and output have the same number of channels."""
    check_positive(num_in_ch=num_in_ch, num_out_ch=num_out_ch)
    if num_in_ch != num_out_ch:
        raise ValueError(
            f'num_in_ch and num_out_ch must be equal, got {num_in_ch} and {num_out_ch}; set both to the channels of '
            'the images'
        )


def check_range(img_range: float) -> None:
    """Raise ValueError unless the range is a finite number above 0."""
    if not is_number(img_range) or not 0 < img_range < math.inf:
        raise ValueError(
            f'img_range must be a number above 0, got {img_range!r}; images are in [0, 1], most papers have 255'
        )


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
