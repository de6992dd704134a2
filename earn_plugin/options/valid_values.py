"""What the values of an options file may be, by the names of the options: types, ranges, choices, names of files."""

import math
import os
import sys
from typing import Any, NamedTuple

from earn_plugin.options.argument_types import fits, kind_name

LARGEST = 1e15  # of numbers for which there is no other limit
SMALLEST = sys.float_info.min
BELOW_1 = math.nextafter(1, 0)
LONGEST_NAME = 255 - len('train_debug__20250101_000000.log')  # bytes, which BasicSR's files and folders add to a name


class Valid(NamedTuple):
    """The valid values of an option: numbers (also in a list) from ``low`` to ``high``, texts among ``choices``."""

    kind: Any = float
    low: float = SMALLEST
    high: float = LARGEST
    is_whole: bool = False
    choices: tuple[str, ...] = ()
    is_name: bool = False  # part of the name of a file

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value."""
        if not fits(value, self.kind):
            return wrong_kind(self.kind, value)
        if isinstance(value, str) and self.choices and value not in self.choices:
            return f'must be {" or ".join(self.choices)}, got {shown(value)}'
        if isinstance(value, str) and self.is_name:
            return name_problem(value)
        numbers = [number for number in (value if isinstance(value, list) else [value]) if fits(number, float)]
        if any(not self.low <= number <= self.high for number in numbers):
            low = 'positive' if self.low == SMALLEST else f'at least {self.low}'
            high = 'below 1' if self.high == BELOW_1 else f'at most {self.high:.15g}'
            return f'must be {low} and {high}, got {value}'
        if self.is_whole and any(number % 1 for number in numbers):
            return f'must be a whole number, got {value}'
        return None


NUMBER, WHOLE, COUNT = Valid(), Valid(is_whole=True), Valid(int)  # positive; options files also have 5e5 for a number
NOT_NEGATIVE, NOT_NEGATIVE_COUNT = Valid(low=0), Valid(int, 0)
FLAG, TEXT, NAME = Valid(bool), Valid(str), Valid(str, is_name=True)

OPTIONS = {
    **dict.fromkeys(('model_type', 'filename_tmpl'), TEXT),
    **dict.fromkeys(('total_iter', 'val_freq', 'print_freq', 'save_checkpoint_freq'), WHOLE),
    **dict.fromkeys(('grad_clip_g', 'grad_clip_d'), NUMBER),
    **dict.fromkeys(('net_d_iters', 'keep_states', 'gt_size', 'batch_size_per_gpu', 'center_crop'), COUNT),
    **dict.fromkeys(('accum_iter', 'max_skipped'), COUNT),
    **dict.fromkeys(('net_d_init_iters', 'num_prefetch_queue'), NOT_NEGATIVE_COUNT),
    **dict.fromkeys(('use_hflip', 'use_rot', 'pin_memory', 'persistent_workers', 'save_img', 'pbar'), FLAG),
    **dict.fromkeys(('use_tb_logger', 'find_unused_parameters', 'strict_load_g', 'strict_load_d'), FLAG),
    **dict.fromkeys(('fused', 'self_ensemble', 'compile', 'cuda_graph', 'deterministic', 'skip_unsuitable'), FLAG),
    **dict.fromkeys(('param_key_g', 'param_key_d', 'project', 'backend'), TEXT),
    **dict.fromkeys(('io_backend', 'wandb'), Valid(dict)),
    **dict.fromkeys(('name', 'resume_id'), NAME),
    'dataset_enlarge_ratio': Valid(float | str, high=1e9, choices=('auto',)),
    'part': Valid(str, choices=('train', 'val')),
    'ema_decay': Valid(low=0, high=BELOW_1),
    'manual_seed': Valid(int, 0, 2**32 - 1),
    'num_gpu': Valid(int | str, 0, 1024, choices=('auto',)),
    'num_worker_per_gpu': Valid(int, 0, 256),
    'port': Valid(int, 1, 65535),
    'prefetch_mode': Valid(str, choices=('cpu', 'cuda')),
    'on_error': Valid(str, choices=('stop', 'skip')),
    'on_non_finite': Valid(str, choices=('stop', 'skip')),
    'precision': Valid(str, choices=('fp32', 'bf16', 'fp16')),
    'memory_format': Valid(str, choices=('contiguous', 'channels_last', 'auto')),
    'freeze': Valid(list[str]),
    'color': Valid(str, choices=('y', 'rgb')),
    'scale': Valid(high=64, is_whole=True),
    'suffix': NAME,
    'warmup_iter': Valid(low=-1, is_whole=True),  # -1: none
    'mean': Valid(list[float], -LARGEST),
    'std': Valid(list[float]),
}
ITERATIONS = Valid(list[float], 0, is_whole=True)
ARGUMENTS = {  # of what has a type
    'optimizer': {
        'lr': Valid(high=1e38),  # float32 has no larger one
        'betas': Valid(list[float], 0, BELOW_1),
        'eps': NOT_NEGATIVE,
        'weight_decay': NOT_NEGATIVE,
    },
    'scheduler': {
        'milestones': ITERATIONS,
        'restarts': ITERATIONS,
        'gamma': NUMBER,
        'periods': Valid(list[float]),
        'restart_weights': Valid(list[float]),
        'eta_min': NOT_NEGATIVE,
    },
    'loss': {
        **dict.fromkeys(('loss_weight', 'perceptual_weight', 'style_weight'), NOT_NEGATIVE),
        'reduction': Valid(str, choices=('mean', 'sum')),
    },
    'metric': {
        'crop_border': NOT_NEGATIVE_COUNT,
        'better': Valid(str, choices=('higher', 'lower')),
        'input_order': Valid(str, choices=('HWC',)),  # as BasicSR's models pass images
    },
    'network': dict.fromkeys(
        ('num_in_ch', 'num_out_ch', 'num_feat', 'num_block', 'num_upfeat'), Valid(int, high=2**16)
    ),
}


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 200 else f'{text[:200]}…'


def wrong_kind(kind: Any, value: Any) -> str:
    remedy = ''
    if isinstance(value, str) and _is_number(value):
        remedy = f'; YAML reads {shown(value)} as text, write !!float {shown(value)[1:-1]}'
    return f'must be {kind_name(kind)}, got {shown(value)}{remedy}'


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def value_problem(value: Any) -> str | None:
    """What no option can be: a number that is not finite or has more than 64 bits, text that cannot be encoded."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'must be finite, got {value}'
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return 'is too large: it has more than 64 bits'
    if isinstance(value, str) and ('\0' in value or any('\ud800' <= letter <= '\udfff' for letter in value)):
        return f'has characters that neither paths nor files can have, got {shown(value)}'
    return None


def name_problem(name: str) -> str | None:
    """Why a text cannot be part of a file's name."""
    wrong = sorted({letter for letter in name if letter in '/\\' or not letter.isprintable()})
    if wrong:
        return f'is used in file names and cannot have {", ".join(map(repr, wrong))}, got {shown(name)}'
    if not name.strip() or name.startswith('.'):
        return f'is used in file names and cannot be empty or begin with a dot, got {shown(name)}'
    if len(os.fsencode(name)) > LONGEST_NAME:
        return f'is used in file names and can have {LONGEST_NAME} bytes, got {len(os.fsencode(name))}: {shown(name)}'
    return None
