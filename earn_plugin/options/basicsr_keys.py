"""Which option keys a piece of BasicSR code reads, found in its source.

BasicSR's classes take whole dicts of options, so no signature tells their keys. Their source does: every
``self.opt['train'].get('ema_decay')`` names one. So the keys of any data set or model, of other projects too, are
known without a table that ages.
"""

import ast
import functools
import inspect
import textwrap

Path = tuple[str, ...]


@functools.cache
def keys_read(thing) -> frozenset[Path]:
    """Paths of the option keys that a class (with its bases), a function or a module reads: ('train', 'ema_decay')."""
    if inspect.isclass(thing):
        own = [
            base for base in thing.__mro__ if base.__module__.partition('.')[0] not in ('builtins', 'torch', 'typing')
        ]
        if len(own) > 1 or own != [thing]:
            return frozenset().union(*(_keys_in_source(base) for base in own))
    return _keys_in_source(thing)


@functools.cache
def _keys_in_source(thing) -> frozenset[Path]:
    finder = _Finder()
    finder.visit(ast.parse(textwrap.dedent(inspect.getsource(thing))))
    return frozenset(finder.found)


class _Finder(ast.NodeVisitor):
    """Follows ``opt`` through subscripts, get, pop, ``in`` and plain assignments."""

    def __init__(self):
        self.found: set[Path] = set()
        self.aliases: dict[str, Path] = {}

    def path(self, node: ast.expr) -> Path | None:
        """The path below the options that an expression stands for; None if it is none."""
        text = ast.unparse(node)
        if text in self.aliases:
            return self.aliases[text]
        if text in ('opt', 'self.opt', 'dataset_opt'):
            return ()
        match node:
            case ast.Subscript(value=base, slice=ast.Constant(value=str(key))):
                above = self.path(base)
            case ast.Call(
                func=ast.Attribute(value=base, attr='get' | 'pop' | 'setdefault'),
                args=[ast.Constant(value=str(key)), *_],
            ):
                above = self.path(base)
            case _:
                return None
        return None if above is None else (*above, key)

    def visit_Assign(self, node: ast.Assign) -> None:
        path = self.path(node.value)
        if path is not None:
            for target in node.targets:
                self.aliases[ast.unparse(target)] = path
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        match node:
            case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[section]):
                above = self.path(section)
                if above is not None:
                    self.found.add((*above, key))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._add(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._add(node)

    def _add(self, node: ast.expr) -> None:
        path = self.path(node)
        if path:
            self.found.add(path)
        self.generic_visit(node)
