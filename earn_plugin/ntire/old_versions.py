"""What an exported file must not use: the organisers run Python 3.9, torch 1.13 and, if they have it, timm 0.6."""

import ast
import re

PYTHON = (3, 9)
NEWER = {  # module → its names that those versions do not have; empty for a module that they do not have
    'builtins': 'BaseExceptionGroup ExceptionGroup aiter anext',
    'collections.abc': 'Buffer',
    'contextlib': 'AsyncContextDecorator aclosing chdir',
    'copy': 'replace',
    'dataclasses': 'KW_ONLY',
    'datetime': 'UTC',
    'enum': 'CONFORM CONTINUOUS EJECT EnumCheck EnumType FlagBoundary KEEP NAMED_FLAGS ReprEnum STRICT StrEnum UNIQUE '
    'global_enum member nonmember property verify',
    'inspect': 'get_annotations getmembers_static',
    'itertools': 'batched pairwise',
    'math': 'cbrt exp2 fma sumprod',
    'operator': 'call',
    'random': 'binomialvariate',
    'statistics': 'correlation covariance kde kde_random linear_regression',
    'sys': 'exception orig_argv stdlib_module_names',
    'timm': 'layers',
    'timm.layers': '',
    'tomllib': '',
    'types': 'EllipsisType NoneType NotImplementedType UnionType get_original_bases',
    'typing': 'Concatenate LiteralString Never NotRequired ParamSpec ReadOnly Required Self TypeAlias TypeAliasType '
    'TypeGuard TypeIs TypeVarTuple Unpack assert_never assert_type dataclass_transform override reveal_type',
    'warnings': 'deprecated',
    'torch': 'Event GradScaler OutOfMemoryError SymBool SymFloat SymInt accelerator compile compiler cond '
    'empty_permuted export float8_e4m3fn float8_e5m2 func get_autocast_dtype get_default_device get_device_module mps '
    'newaxis nonzero_static rms_norm set_autocast_dtype set_default_device signal sym_max sym_min uint16 uint32 uint64 '
    'unravel_index vmap while_loop xpu',
    'torch.amp': 'GradScaler custom_bwd custom_fwd is_autocast_available',
    'torch.backends.cuda': 'SDPAParams can_use_efficient_attention can_use_flash_attention mem_efficient_sdp_enabled',
    'torch.compiler': '',
    'torch.func': '',
    'torch.library': 'custom_op register_autograd register_fake triton_op',
    'torch.nn': 'Buffer CircularPad1d CircularPad2d CircularPad3d LPPool3d RMSNorm ZeroPad1d ZeroPad3d attention',
    'torch.nn.attention': '',
    'torch.nn.functional': 'grouped_mm lp_pool3d rms_norm scaled_dot_product_attention scaled_mm',
    'torch.nn.utils': 'fuse_linear_bn_eval get_total_norm',
    'torch.nn.utils.parametrizations': 'weight_norm',
    'torch.utils.checkpoint': 'CheckpointPolicy create_selective_checkpoint_contexts set_checkpoint_early_stop',
}
NEWER_ON_TENSORS = ('dim_order', 'itemsize', 'module_load', 'nbytes', 'nonzero_static', 'untyped_storage')
NEWER_ARGUMENTS = {'zip': {'strict'}, 'dataclass': {'slots', 'kw_only'}}
TYPES = {'int', 'float', 'str', 'bool', 'list', 'tuple', 'dict', 'set', 'None', 'Tensor'}


def find_newer(text: str) -> list[str]:
    """What in a file needs newer versions, one line each.

    Names are looked up in a table, so attributes of variables are taken for those of tensors.
    """
    try:
        tree = ast.parse(text, feature_version=PYTHON)
    except SyntaxError as error:
        return [f'{error.msg}, which Python 3.9 cannot read, in `{(error.text or "").strip()}`']
    origins, unevaluated = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origins |= {alias.asname or alias.name: f'{node.module}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Import):
            origins |= {alias.asname: alias.name for alias in node.names if alias.asname}
            origins |= {name: name for alias in node.names if (name := alias.name.partition('.')[0])}
        for annotation in (getattr(node, 'annotation', None), getattr(node, 'returns', None)):
            unevaluated |= {id(below) for below in ast.walk(annotation)} if annotation else set()
    found = {}
    for node in ast.walk(tree):
        what = '' if id(node) in unevaluated else _newer(node, origins)
        if what:
            line = text.split('\n')[node.lineno - 1].strip()
            versions = 'timm 0.6 does' if what.startswith('timm') else 'Python 3.9 and torch 1.13 do'
            found.setdefault(node.lineno, f'{what}, which {versions} not have, in `{line}`')
    return list(found.values())


def _newer(node: ast.AST, origins: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute | ast.Name) and re.fullmatch(r'[\w.]+', dotted := ast.unparse(node)):
        root, dot, rest = dotted.partition('.')
        dotted = origins.get(root, f'builtins.{root}' if not dot else root) + dot + rest
        if _is_newer(dotted):
            return dotted.removeprefix('builtins.')
        if isinstance(node, ast.Attribute) and node.attr in NEWER_ON_TENSORS and root not in {'self', *origins}:
            return f'.{node.attr}'
    if isinstance(node, ast.ImportFrom | ast.Import):
        above = f'{node.module}.' if isinstance(node, ast.ImportFrom) else ''
        return next((above + alias.name for alias in node.names if _is_newer(above + alias.name)), '')
    if isinstance(node, ast.Call):
        known = NEWER_ARGUMENTS.get(ast.unparse(node.func).rpartition('.')[2], set())
        given = sorted(known & {keyword.arg for keyword in node.keywords})
        return f'{ast.unparse(node.func)}({given[0]}=…)' if given else ''
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = {re.sub(r'\[.*', '', ast.unparse(side), flags=re.DOTALL) for side in (node.left, node.right)}
        return ast.unparse(node) if sides & TYPES else ''
    return ''


def _is_newer(dotted: str) -> bool:
    above, _, last = dotted.rpartition('.')
    return last in NEWER.get(above, '').split() or '' in (NEWER.get(dotted), NEWER.get(above))
