"""What an exported file must not use: the organisers run Python 3.9 and torch 1.13."""

import ast
import re

PYTHON = (3, 9)
NEWER = {  # module → its names that Python 3.9 and torch 1.13 do not have; empty for a module that they do not have
    'builtins': 'BaseExceptionGroup ExceptionGroup aiter anext',
    'contextlib': 'aclosing chdir',
    'dataclasses': 'KW_ONLY',
    'enum': 'StrEnum member nonmember verify',
    'inspect': 'get_annotations',
    'itertools': 'batched pairwise',
    'math': 'cbrt exp2 fma sumprod',
    'tomllib': '',
    'types': 'EllipsisType NoneType UnionType',
    'typing': 'Concatenate Never NotRequired ParamSpec Required Self TypeAlias TypeGuard Unpack assert_never override',
    'warnings': 'deprecated',
    'torch': 'GradScaler compile compiler export func rms_norm set_default_device vmap',
    'torch.amp': 'GradScaler custom_bwd custom_fwd',
    'torch.compiler': '',
    'torch.func': '',
    'torch.library': 'custom_op register_autograd register_fake',
    'torch.nn': 'Buffer CircularPad1d CircularPad2d CircularPad3d RMSNorm ZeroPad1d ZeroPad3d attention',
    'torch.nn.attention': '',
    'torch.nn.functional': 'rms_norm scaled_dot_product_attention',
    'torch.nn.utils.parametrizations': 'weight_norm',
}
NEWER_ON_TENSORS = ('itemsize', 'nbytes', 'nonzero_static', 'untyped_storage')
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
            found.setdefault(node.lineno, f'{what}, which Python 3.9 and torch 1.13 do not have, in `{line}`')
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
