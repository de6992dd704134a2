"""Which option keys a BasicSR class reads, found in its source.

BasicSR passes whole dicts of options to its models and data sets, so no signature lists their keys, but the source
does: ``self.opt['train'].get('ema_decay')``. This covers all of BasicSR's models and data sets and those that users
register themselves, whose keys no table could list.
"""

import ast
import functools
import inspect
import textwrap
from typing import Any

Path = tuple[str, ...]


@functools.cache
def keys_read(thing: Any) -> frozenset[Path]:
    """Paths of the option keys that a class (with its bases), function or module reads: ('train', 'ema_decay')."""
    return frozenset().union(*map(_keys_in_source, _parts(thing)))


def has_source(thing: Any) -> bool:
    """Whether all of its source can be read; that of a compiled class, or of one made by ``type()``, cannot."""
    return all(_source_of(part) for part in _parts(thing))


def _parts(thing: Any) -> list[Any]:
    parts = inspect.getmro(thing) if inspect.isclass(thing) else (thing,)
    skipped = ('builtins', 'torch', 'typing')
    return [part for part in parts if getattr(part, '__module__', '').partition('.')[0] not in skipped]


def _source_of(thing: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        return ''


@functools.cache
def _keys_in_source(thing: Any) -> frozenset[Path]:
    nodes = list(ast.walk(ast.parse(_source_of(thing))))
    sections: dict[str, Path] = {'opt': (), 'self.opt': (), 'dataset_opt': ()}  # expression → its path in the options

    def path(node: ast.AST) -> Path | None:
        match node:
            case ast.Name() | ast.Attribute():
                return sections.get(ast.unparse(node))
            case (
                ast.Subscript(value=section, slice=ast.Constant(value=str(key)))
                | ast.Call(
                    func=ast.Attribute(value=section, attr='get' | 'pop' | 'setdefault'),
                    args=[ast.Constant(value=str(key)), *_],
                )
                | ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[section])
            ):
                above = path(section)
                return None if above is None else (*above, key)
        return None

    for node in nodes:
        if isinstance(node, ast.Assign) and (section := path(node.value)) is not None:
            sections |= {ast.unparse(target): section for target in node.targets}
    return frozenset(found for node in nodes if (found := path(node)))
