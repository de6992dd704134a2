"""The source of a class as one file: all that it uses of its own module and of others, in an order that works."""

import ast
import builtins
import importlib
import importlib.util
import symtable
import sys
from pathlib import Path
from typing import NamedTuple

from earn_plugin.errors import UserError
from earn_plugin.ntire.adapting import EQUIVALENTS, adapted

PROMISED = ('torch', 'numpy', 'cv2')  # what the organisers' own scripts import, beside Python's modules
OURS = ('earn_plugin', 'basicsr')
PLAIN = 'earn_plugin.ntire.exported_helpers'


class Extracted(NamedTuple):
    """A class with all that it needs, as text, and the modules that it is from, in their order there."""

    text: str
    modules: list[str]


def extract(cls: type, *functions: str) -> Extracted:
    """One class as self-contained source, in the words in which it was written.

    Args:
        functions: of ``plain``, to come along before it.

    Raises:
        UserError: it needs something that cannot be brought along, named with the line that asks for it.
    """
    collector = Collector(cls.__module__)
    for name in functions:
        collector.follow(collector.module(cls.__module__), PLAIN, name)
    collector.add(cls.__module__, cls.__name__)
    return collector.result()


class Module:
    """The top level of a module: its text, adapted, and which of its statements make which names."""

    def __init__(self, name: str):
        self.name = name
        self.path = path_of(name)
        self.text = adapted(self.path.read_text(encoding='utf-8'))
        self.lines = self.text.split('\n')
        self.statements = ast.parse(self.text).body
        self.is_package = self.path.name == '__init__.py'
        self.makers: dict[str, list[ast.stmt]] = {}
        for statement in self.statements:
            if not is_main_guard(statement):
                for made in made_by(self.segment(statement)):
                    self.makers.setdefault(made, []).append(statement)
        for statement in self.statements:
            for name in touched_by(statement):
                makers = self.makers.get(name, [])
                if statement not in makers and not any(isinstance(m, ast.Import | ast.ImportFrom) for m in makers):
                    makers.append(statement)

    def segment(self, statement: ast.stmt) -> str:
        """The statement's lines, with its decorators and the comments right above it."""
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, 'decorator_list', []))])
        while first > 1 and self.lines[first - 2].startswith('#') and not self.lines[first - 2].startswith('#!'):
            first -= 1
        return '\n'.join(self.lines[first - 1 : statement.end_lineno])

    def origin(self, statement: ast.ImportFrom) -> str:
        """The absolute name of the module that a statement imports from."""
        if not statement.level:
            return statement.module or ''
        package = self.name.split('.') if self.is_package else self.name.split('.')[:-1]
        above = package[: len(package) - statement.level + 1]
        return '.'.join([*above, *filter(None, [statement.module])])

    def where(self, node: ast.AST) -> str:
        return f'{self.path}, line {original_line(self, node)}'


class Collector:
    """What was found to be needed, so far."""

    def __init__(self, home: str):
        self.home = home
        self.modules: dict[str, Module] = {}
        self.wanted: dict[str, set[int]] = {}  # module → statements
        self.aliases: dict[str, list[str]] = {}  # module → new = old
        self.imports: set[str] = set()
        self.origins: dict[str, str] = {}  # name in the output → what it stands for
        self.needs: dict[str, list[str]] = {}  # module → modules that must stand before it

    def add(self, module_name: str, name: str) -> None:
        """Take along what a module calls ``name``, and all that this needs."""
        module = self.module(module_name)
        makers = module.makers.get(name, [])
        if not makers:
            if name in EQUIVALENTS:
                self.follow(module, PLAIN, name)
                return
            starred = next((s for s in module.statements if is_star(s)), None)
            if starred is not None:
                raise UserError(
                    f'{module.where(starred)}: the network uses {name}, and `import *` does not tell whether it '
                    'comes from there; import it by name'
                )
            raise UserError(f'{module.path}: {name} is used and nowhere made')
        for statement in makers:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self.add_import(module, statement, name)
            else:
                self.add_statement(module, statement)

    def follow(self, module: Module, origin: str, name: str) -> None:
        self.needs.setdefault(module.name, []).append(origin)
        self.add(origin, name)

    def add_statement(self, module: Module, statement: ast.stmt) -> None:
        index = module.statements.index(statement)
        if index in self.wanted.setdefault(module.name, set()):
            return
        self.wanted[module.name].add(index)
        for made in made_by(module.segment(statement)):
            self.claim(module, statement, made, f'{module.name}.{made}')
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.check_inner_import(module, node)
        sure, perhaps = used_by(module.segment(statement))
        for needed in sorted(sure | perhaps):
            known = needed in module.makers
            if known or (needed in sure and not hasattr(builtins, needed) and not needed.startswith('__')):
                self.add(module.name, needed)

    def add_import(self, module: Module, statement: ast.Import | ast.ImportFrom, name: str) -> None:
        alias = next(a for a in statement.names if (a.asname or a.name.partition('.')[0]) == name)
        if isinstance(statement, ast.Import):
            if not is_promised(alias.name):
                raise UserError(self.refusal(module, statement, alias.name, 'as a whole'))
            if alias.asname is None:
                self.claim(module, statement, name, name)
                self.imports.add(f'import {alias.name}')
            else:
                self.keep(module, statement, alias.name, alias.asname)
            return
        origin = module.origin(statement)
        if alias.name in EQUIVALENTS and origin == 'torch.nn.functional':
            origin = PLAIN
        if is_promised(origin):
            self.keep(module, statement, f'{origin}.{alias.name}', name)
        elif not self.is_followed(origin):
            raise UserError(self.refusal(module, statement, origin))
        elif origin.endswith('.registry'):
            raise UserError(
                f'{module.where(statement)}: the network asks the registry for its parts when it is built; import and '
                'name them'
            )
        elif alias.name not in self.module(origin).makers and is_module(f'{origin}.{alias.name}'):
            raise UserError(self.refusal(module, statement, f'{origin}.{alias.name}', 'as a whole'))
        else:
            self.follow(module, origin, alias.name)
            if alias.name != name:
                self.claim(module, statement, name, f'{origin}.{alias.name}')
                line = f'{name} = {alias.name}'
                if line not in self.aliases.setdefault(module.name, []):
                    self.aliases[module.name].append(line)

    def keep(self, module: Module, statement: ast.stmt, dotted: str, name: str) -> None:
        """An import that stays, always in the same form."""
        self.claim(module, statement, name, dotted)
        above, _, last = dotted.rpartition('.')
        line = f'from {above} import {last}' if above else f'import {last}'
        self.imports.add(line + (f' as {name}' if name != last else ''))

    def claim(self, module: Module, statement: ast.stmt, name: str, origin: str) -> None:
        """Note what a name of the output stands for.

        Raises:
            UserError: it stands for something else already.
        """
        before = self.origins.setdefault(name, origin)
        if before != origin:
            raise UserError(
                f'{module.where(statement)}: {name} is {origin} here and {before} elsewhere, and one file has room for '
                'one of them; rename one'
            )

    def check_inner_import(self, module: Module, node: ast.Import | ast.ImportFrom) -> None:
        names = [module.origin(node)] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            if not is_promised(name):
                raise UserError(self.refusal(module, node, name, 'inside other code'))

    def refusal(self, module: Module, node: ast.AST, imported: str, how: str = '') -> str:
        if self.is_followed(imported):
            return (
                f'{module.where(node)}: {imported} is imported {how}; import what the network uses of it by name, at '
                f"the file's top: from {imported} import …"
            )
        return (
            f"{module.where(node)}: {imported} is imported, which the organisers' machines may not have: a submission "
            f'is one file of Python, {", ".join(PROMISED[:-1])} and {PROMISED[-1]}. Write what the network uses of '
            f'{imported} into {module.path.name} or into a file beside it'
        )

    def is_followed(self, name: str) -> bool:
        """Whether a module's source may be taken along: ours, BasicSR's, or of the network's own project."""
        top = name.partition('.')[0]
        if top in OURS or top == self.home.partition('.')[0]:
            return True
        path = path_of(name, required=False)
        if path is None:
            return False
        root = path_of(self.home).parents[self.home.count('.') + self.module(self.home).is_package]
        installed = {'site-packages', 'dist-packages'} & set(path.parts)
        return not installed and path.is_relative_to(root)

    def module(self, name: str) -> Module:
        if name not in self.modules:
            self.modules[name] = Module(name)
        return self.modules[name]

    def in_order(self, name: str, before: list[str]) -> list[str]:
        """The modules that one needs, each after those that it needs itself, and the module."""
        if name not in before:
            before.append(name)
            placed = [below for needed in self.needs.get(name, []) for below in self.in_order(needed, before)]
            return [*placed, name]
        return []

    def result(self) -> Extracted:
        order = self.in_order(self.home, [])
        parts = ['from __future__ import annotations', '\n'.join(sorted_imports(self.imports))]
        for name in order:
            module = self.modules[name]
            parts += ['\n'.join(self.aliases[name])] if name in self.aliases else []
            parts += [module.segment(module.statements[index]) for index in sorted(self.wanted.get(name, []))]
        text = '\n\n\n'.join(part for part in parts if part).replace('annotations\n\n\n', 'annotations\n\n', 1)
        return Extracted(text + '\n', order)


def made_by(text: str) -> set[str]:
    """The names that a top-level statement makes."""
    symbols = symtable.symtable(text, 'segment', 'exec').get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_namespace()}


def touched_by(statement: ast.stmt) -> set[str]:
    """The names whose values a top-level statement may change: ``a.b = …``, ``a[b] = …``, ``a.b(…)``."""
    targets = [statement.target] if isinstance(statement, ast.AugAssign) else getattr(statement, 'targets', [])
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [statement.value.func]
    return {root_of(target) for target in targets if isinstance(target, ast.Attribute | ast.Subscript)} - {''}


def used_by(text: str) -> tuple[set[str], set[str]]:
    """The names that a top-level statement takes from its module, at once or when its functions run.

    Returns:
        Those that it does take, and those that a class may take before it makes its own.
    """
    table = symtable.symtable(text, 'segment', 'exec')
    sure = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    perhaps: set[str] = set()
    below = table.get_children()
    while below:
        inner = below.pop()
        referenced = [s for s in inner.get_symbols() if s.is_referenced()]
        sure |= {s.get_name() for s in referenced if s.is_global()}
        if inner.get_type() == 'class':
            perhaps |= {s.get_name() for s in referenced}
        below += inner.get_children()
    return sure, perhaps


def root_of(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ''


def is_star(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.names[0].name == '*'


def is_main_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test).startswith('__name__ ==')


def is_promised(module: str) -> bool:
    top = module.partition('.')[0]
    return top in PROMISED or top in sys.stdlib_module_names


def is_module(name: str) -> bool:
    return path_of(name, required=False) is not None


def path_of(name: str, required: bool = True) -> Path | None:
    """The file of a module.

    Raises:
        UserError: it has none that can be read, and one is required.
    """
    file = getattr(sys.modules.get(name), '__file__', None)
    if file is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        file = spec.origin if spec else None
    if file is not None and file.endswith('.py') and Path(file).is_file():
        return Path(file).resolve()
    if required:
        raise UserError(f'{name} has no source that could be taken along')
    return None


def original_line(module: Module, node: ast.AST) -> int:
    """Where the line of the adapted text stands in the file."""
    line = module.lines[node.lineno - 1]
    written = module.path.read_text(encoding='utf-8').split('\n')
    return written.index(line) + 1 if line in written else node.lineno


def sorted_imports(lines: set[str]) -> list[str]:
    """Python's own first, a blank line, then the others; what comes from one module in one line."""
    joined: dict[str, list[str]] = {}
    for line in sorted(lines):
        source, _, name = line.partition(' import ') if line.startswith('from') else (line, '', '')
        joined.setdefault(source, []).append(name)
    own, others = [], []
    for source, names in sorted(joined.items(), key=lambda item: (item[0].startswith('from'), item[0])):
        line = f'{source} import {", ".join(sorted(names))}' if source.startswith('from') else source
        (others if source.split()[1].partition('.')[0] in PROMISED else own).append(line)
    return [*own, *([''] if own and others else []), *others]


def register(path: Path) -> None:
    """Import a file that registers networks, as a module of the package that it stands in, if it stands in one.

    Raises:
        UserError: there is none, or importing it fails.
    """
    if not path.is_file() or path.suffix != '.py':
        raise UserError(f'--arch-file {path} is no file of Python')
    path = path.resolve()
    parts = [path.stem]
    folder = path.parent
    while (folder / '__init__.py').exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module('.'.join(parts))
    except Exception as error:  # whatever the file does
        raise UserError(f'--arch-file {path} cannot be imported: {type(error).__name__}: {error}') from error
