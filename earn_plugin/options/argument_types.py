"""The types of a function's arguments, and whether a value of an options file fits them."""

import ast
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

NAMES = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'text', type(None): 'nothing (~)'}
NAMES |= {dict: 'a mapping', list: 'a list', tuple: 'a list'}


def kind_name(kind: Any) -> str:
    """A type in a user's words; of a union only what an options file can hold."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return ' or '.join(kind_name(k) for k in arguments if (typing.get_origin(k) or k) in NAMES)
    if origin is list and arguments in ((float,), (str,)):
        return 'a list of numbers' if arguments == (float,) else 'a list of texts'
    return NAMES.get(origin) or getattr(origin, '__name__', 'another type')


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of an options file is valid for a type; a list is for a tuple, a whole number for a float."""
    if kind is Any:
        return True
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, k) for k in arguments)
    if origin in (tuple, list):
        return isinstance(value, list) and all(fits(v, arguments[0]) for v in value if arguments)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin) if isinstance(origin, type) else True


def kind_of(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    """The type of an argument: its annotation, or else what its default implies."""
    if parameter.name in hints:
        return hints[parameter.name]
    default = parameter.default
    if isinstance(default, bool | str):
        return type(default)
    if isinstance(default, int | float):  # BasicSR itself passes 0.1 for res_scale=1, a pair for img_size=64
        return float | list
    return object


def arguments_of(function: Callable, skip: Iterable[str] = ()) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """The named arguments of a function or class, and their annotations."""
    parameters = {
        p.name: p
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in skip
    }
    try:
        return parameters, typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):  # annotations that only a type checker understands
        return parameters, {}


def takes_any_key(function: Callable) -> bool:
    """Whether a function uses its **kwargs, or may; many of BasicSR's have one only to ignore unknown keys."""
    kwargs = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD]
    if not kwargs:
        return False
    code = function.__init__ if inspect.isclass(function) else function
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(code))))
    except (OSError, TypeError, SyntaxError):  # compiled, or made by exec()
        return True
    return any(isinstance(node, ast.Name) and node.id == kwargs[0] for node in ast.walk(tree))
