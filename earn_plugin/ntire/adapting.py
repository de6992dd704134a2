"""Make a module's text plain inference code for old Python and torch, changing only what has to change."""

import ast
import io
import re
import textwrap

EQUIVALENTS = ('scaled_dot_product_attention',)  # of torch.nn.functional, in plain.py
Edit = tuple[int, int, str]  # first and last byte, what stands there instead


def adapted(text: str) -> str:
    """The text of a module without registration and without what only training needs.

    - decorators of a registry go,
    - where a condition is ``torch.is_grad_enabled()``, alone or before ``and``, it is taken as False and the branches
      are folded: the organisers' scripts run networks with gradients enabled, where ours would go the way of training,
    - functions that torch 1.13 lacks give way to their equivalents,
    - ``zip(…, strict=…)`` loses what Python 3.9 lacks.
    """
    while edits := edits_of(text):  # an edit may stand inside another
        edits.sort(key=lambda edit: edit[1] - edit[0])
        start, end, new = edits[0]
        content = text.encode()
        text = (content[:start] + new.encode() + content[end:]).decode()
    return text


def lines_of(text: str) -> list[str]:
    """The lines as Python numbers them, with their endings; ``splitlines`` splits at form feeds, too."""
    return list(io.StringIO(text, newline=''))


def edits_of(text: str) -> list[Edit]:
    lines = [line.encode() for line in lines_of(text)]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def span(node: ast.AST) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def whole_lines(first: int, last: int) -> tuple[int, int]:
        return starts[first - 1], starts[last]

    def folded(node: ast.If) -> str:
        indent = ' ' * node.col_offset
        if not node.orelse:
            return ''
        first = node.body[-1].end_lineno + 1  # the line of else
        while not re.match(rb'\s*else\s*:', lines[first - 1]):
            first += 1
        kept = b''.join(lines[first : node.orelse[-1].end_lineno]).decode()
        return textwrap.indent(textwrap.dedent(kept), indent)

    edits = []
    tree = ast.parse(text)
    registries = registries_in(tree)
    for node in ast.walk(tree):
        for decorator in getattr(node, 'decorator_list', []):
            if is_registration(decorator, registries):
                edits.append((*whole_lines(decorator.lineno, decorator.end_lineno), ''))
        for block in (getattr(node, name, None) for name in ('body', 'orelse', 'finalbody')):
            for below in block if isinstance(block, list) else []:
                if isinstance(below, ast.If) and asks_for_gradients(below.test) and not has_elif(below, lines):
                    alone = '' if len(block) > 1 or below.orelse else ' ' * below.col_offset + 'pass\n'
                    edits.append((*whole_lines(below.lineno, below.end_lineno), folded(below) or alone))
        if isinstance(node, ast.IfExp) and asks_for_gradients(node.test):
            kept = ast.get_source_segment(text, node.orelse)
            closed = isinstance(node.orelse, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Constant)
            edits.append((*span(node), kept if closed else f'({kept})'))
        if isinstance(node, ast.Attribute) and node.attr in EQUIVALENTS and is_functional(node.value):
            edits.append((*span(node), node.attr))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'zip':
            plain = ast.Call(node.func, node.args, [k for k in node.keywords if k.arg != 'strict'])
            if len(plain.keywords) < len(node.keywords):
                edits.append((*span(node), ast.unparse(plain)))
    return edits


def registries_in(tree: ast.Module) -> set[str]:
    """What a module calls the registries that it imports."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    from_registry = (node for node in imports if (node.module or '').endswith('registry'))
    return {alias.asname or alias.name for node in from_registry for alias in node.names}


def is_registration(decorator: ast.expr, registries: set[str]) -> bool:
    called = re.match(r'(\w+)\.register\b', ast.unparse(decorator))
    return called is not None and ('REGISTRY' in called[1] or called[1] in registries)


def asks_for_gradients(test: ast.expr) -> bool:
    """Whether a condition is False where gradients are off."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return asks_for_gradients(test.values[0])
    return re.fullmatch(r'(torch\.)?is_grad_enabled\(\)', ast.unparse(test)) is not None


def is_functional(node: ast.expr) -> bool:
    return ast.unparse(node) in ('F', 'functional', 'nn.functional', 'torch.nn.functional')


def has_elif(node: ast.If, lines: list[bytes]) -> bool:
    return len(node.orelse) == 1 and lines[node.orelse[0].lineno - 1].lstrip().startswith(b'elif')
