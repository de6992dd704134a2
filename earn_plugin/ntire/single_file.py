"""A network as one self-contained file: what it uses of its own module and of those that this one imports."""

import ast
import importlib.util
import re
import symtable
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from earn_plugin.errors import UserError
from earn_plugin.ntire.years import SCRIPTS_IMPORT

OURS = ('earn_plugin', 'basicsr')
HELPERS = 'earn_plugin.ntire.exported_helpers'
FUSED_ATTENTION = 'scaled_dot_product_attention'  # which torch 1.13 lacks: the plain one of HELPERS takes its place
Import = ast.Import | ast.ImportFrom


def single_file(cls: type, *helpers: str, packages: tuple[str, ...] = SCRIPTS_IMPORT) -> str:
    """The source of a class and of all that it uses, which runs without BasicSR and without this package.

    Definitions keep their text, with their comments. Registration is dropped, and torch's fused attention becomes the
    plain one, which torch 1.13 can run and fvcore can count.

    Args:
        helpers: functions of ``exported_helpers`` to include.
        packages: that it may import in addition to the standard library.

    Raises:
        UserError: it uses something that cannot be included; names the line.
    """
    file = _SingleFile(cls.__module__, packages)
    for name in helpers:
        file.add_from(file.home, HELPERS, name)
    file.add(file.home, cls.__name__)
    return file.text()


class _Module:
    """The top-level statements of a module, by the names that they define or change; and which of them are kept."""

    def __init__(self, name: str):
        self.name, self.path = name, source_path(name)
        if self.path is None:
            raise UserError(f'{name} has no Python source, so it cannot be included in the exported file')
        text = self.path.read_text(encoding='utf-8')
        self.lines = text.split('\n')
        self.definitions: dict[str, list[ast.stmt]] = defaultdict(list)
        self.kept: set[ast.stmt] = set()
        self.aliases: dict[str, str] = {}  # new name → name
        self.needs: list[str] = []  # modules that must stand before this one
        tree = ast.parse(text)
        imports = [(node, a) for node in ast.walk(tree) if isinstance(node, Import) for a in node.names]
        origins = {a.asname or a.name.partition('.')[0]: getattr(node, 'module', a.name) or '' for node, a in imports}
        self.of_torch = {name for name, origin in origins.items() if origin.partition('.')[0] == 'torch'}
        self.registries = {name for name, origin in origins.items() if origin.endswith('registry')}
        stars = [node for node, alias in imports if alias.name == '*']  # also those in a try or an if
        self.stars = sorted(stars, key=lambda star: star.lineno)
        for statement in tree.body:
            if statement not in stars and not (
                isinstance(statement, ast.If) and ast.unparse(statement.test).startswith('__name__ ==')
            ):
                own = {name for name, before in self.definitions.items() if not isinstance(before[0], Import)}
                for defined in names_in(self.source(statement))[0] | (names_changed(statement) & own):
                    self.definitions[defined].append(statement)

    def source(self, statement: ast.stmt) -> str:
        """The lines of a statement with the comments right above it; registration and fused attention are replaced."""
        decorators = getattr(statement, 'decorator_list', [])
        first = min(node.lineno for node in (statement, *decorators))
        while first > 1 and self.lines[first - 2].startswith('#') and not self.lines[first - 2].startswith('#!'):
            first -= 1
        numbers = set(range(first, statement.end_lineno + 1))
        for decorator in decorators:
            registry, registers, _ = ast.unparse(decorator).partition('.register')
            if registers and (registry.endswith('REGISTRY') or registry in self.registries):
                numbers -= set(range(decorator.lineno, decorator.end_lineno + 1))
        text = '\n'.join(self.lines[number - 1] for number in sorted(numbers))
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and node.attr == FUSED_ATTENTION:
                dotted = ast.unparse(node)
                if dotted.partition('.')[0] in self.of_torch:  # not a method of that name
                    text = text.replace(dotted, FUSED_ATTENTION)
        return text

    def statements(self, name: str) -> list[ast.stmt]:
        """Those that give a name its meaning: its definitions, or the last star import with that name.

        A name that no statement has is a builtin, or belongs to code that never runs.
        """
        stars = ([star] for star in reversed(self.stars) if name in self.exported_by(star))
        return self.definitions.get(name) or next(stars, [])

    def exported_by(self, star: ast.ImportFrom) -> Collection[str]:
        try:
            names = vars(sys.modules[self.origin(star)])
        except (ImportError, KeyError):  # of a branch that does not run
            return ()
        return names.get('__all__') or [name for name in names if not name.startswith('_')]

    def origin(self, statement: ast.ImportFrom) -> str:
        """The absolute name of the module that a statement imports from."""
        package = self.name if self.path.name == '__init__.py' else self.name.rpartition('.')[0]
        return importlib.util.resolve_name('.' * statement.level + (statement.module or ''), package)

    def line(self, node: ast.AST) -> str:
        return f'{self.path}, line {node.lineno}'


class _SingleFile:
    """Collects statements, starting from what is asked for, and joins them in an order that works."""

    def __init__(self, home: str, packages: tuple[str, ...]):
        self.packages = packages
        self.modules: dict[str, _Module] = {}
        self.home = self.module(home)
        self.added: set[tuple[str, str]] = set()  # module, name
        self.imports: dict[str, set[str]] = defaultdict(set)  # 'from X import' → names; 'import X' → nothing
        self.meanings: dict[str, str] = {}  # name in the file → what it stands for

    def module(self, name: str) -> _Module:
        if name not in self.modules:
            self.modules[name] = _Module(name)
        return self.modules[name]

    def add(self, module: _Module, name: str) -> None:
        """Include what a module calls ``name``, and all that this uses."""
        if (module.name, name) in self.added:
            return
        self.added.add((module.name, name))
        if name == FUSED_ATTENTION and name not in module.definitions:
            self.add_from(module, HELPERS, name)
        for statement in module.statements(name):
            if isinstance(statement, ast.Import):
                self.add_import(module, statement, name)
            elif isinstance(statement, ast.ImportFrom):
                self.add_import_from(module, statement, name)
            elif statement not in module.kept:
                module.kept.add(statement)
                self.check_inner_imports(module, statement)
                defined, used = names_in(module.source(statement))
                for new in defined:
                    self.claim(module, statement, new, f'{module.name}.{new}')
                for wanted in sorted(used):
                    self.add(module, wanted)

    def add_from(self, module: _Module, origin: str, name: str) -> None:
        module.needs.append(origin)
        self.add(self.module(origin), name)

    def add_import(self, module: _Module, statement: ast.Import, name: str) -> None:
        for alias in statement.names:
            if name == (alias.asname or alias.name.partition('.')[0]):
                if not is_allowed(alias.name, self.packages):
                    raise self.refusal(module, statement, alias.name, 'as a whole')
                self.claim(module, statement, name, alias.name if alias.asname else name)
                self.imports[ast.unparse(ast.Import([alias]))]

    def add_import_from(self, module: _Module, statement: ast.ImportFrom, name: str) -> None:
        is_star = statement.names[0].name == '*'
        alias = next((a for a in statement.names if name == (a.asname or a.name)), ast.alias(name))
        origin = module.origin(statement)
        if (origin, alias.name) == ('torch.nn.functional', FUSED_ATTENTION):
            origin = HELPERS
        if is_allowed(origin, self.packages):
            self.claim(module, statement, name, f'{origin}.{alias.name}')
            self.imports[f'from {origin} import'].add(alias.name if name == alias.name else ast.unparse(alias))
            return
        if not self.is_own(origin):
            raise self.refusal(module, statement, origin)
        if origin.endswith('.registry'):
            raise UserError(
                f'{module.line(statement)}: the network asks the registry for its parts when it is built; import them '
                'by name'
            )
        submodule = f'{origin}.{alias.name}'
        if not is_star and alias.name not in self.module(origin).definitions and source_path(submodule):
            raise self.refusal(module, statement, submodule, 'as a whole')
        self.add_from(module, origin, alias.name)
        if name != alias.name:
            self.claim(module, statement, name, f'{alias.name} as {name}')
            module.aliases[name] = alias.name

    def check_inner_imports(self, module: _Module, statement: ast.stmt) -> None:
        for node in ast.walk(statement):
            if isinstance(node, Import):
                from_ = [module.origin(node)] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                for origin in from_:
                    if not is_allowed(origin, self.packages):
                        raise self.refusal(module, node, origin, 'inside other code')

    def claim(self, module: _Module, statement: ast.stmt, name: str, meaning: str) -> None:
        before = self.meanings.setdefault(name, meaning)
        if before != meaning:
            raise UserError(
                f'{module.line(statement)}: {name} is {meaning} here and {before} elsewhere, but the exported file can '
                'hold only one of them; rename one'
            )

    def refusal(self, module: _Module, node: ast.AST, imported: str, how: str = '') -> UserError:
        if self.is_own(imported):
            return UserError(
                f'{module.line(node)}: {imported} is imported {how}; import what the network uses by name, at the top '
                f'of the file: from {imported} import …'
            )
        return UserError(
            f"{module.line(node)}: {imported} is imported, which the organisers' machines may not have: a submission "
            f'is one file that uses the standard library, {", ".join(self.packages[:-1])} and {self.packages[-1]}. '
            f'Write what the network uses of {imported} into {module.path.name} or into a file next to it'
        )

    def is_own(self, name: str) -> bool:
        """Whether the source of a module may be included: ours, BasicSR's, or of the network's own project."""
        top, path = name.partition('.')[0], source_path(name)
        if path is None or top in (*OURS, self.home.name.partition('.')[0]):
            return path is not None
        depth = self.home.name.count('.') + (self.home.path.name == '__init__.py')
        installed = {'site-packages', 'dist-packages'} & set(path.parts)
        return not installed and path.is_relative_to(self.home.path.parents[depth])

    def ordered(self, module: _Module, seen: set[str]) -> list[_Module]:
        """A module after those that it needs."""
        seen.add(module.name)
        before = [self.ordered(self.modules[name], seen) for name in module.needs if name not in seen]
        return [*(above for modules in before for above in modules), module]

    def text(self) -> str:
        imports = [' '.join(filter(None, (line, ', '.join(sorted(names))))) for line, names in self.imports.items()]
        imports.sort(
            key=lambda line: (line.split()[1].partition('.')[0] in self.packages, line.startswith('from'), line)
        )
        parts = ['from __future__ import annotations\n' + ''.join(f'\n{line}' for line in imports)]
        for module in self.ordered(self.home, set()):
            parts.append('\n'.join(f'{new} = {old}' for new, old in module.aliases.items()))
            parts += [module.source(s) for s in sorted(module.kept, key=lambda s: s.lineno)]
        return '\n\n\n'.join(filter(None, parts)) + '\n'


def names_in(source: str) -> tuple[set[str], set[str]]:
    """The names that a top-level statement defines, and those that it takes from its module, also inside functions."""
    tables, used = [symtable.symtable(source, 'statement', 'exec')], set()
    defined = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    while tables:
        table = tables.pop()
        is_function = table.get_type() == 'function'
        referenced = [s for s in table.get_symbols() if s.is_referenced()]
        used |= {s.get_name() for s in referenced if s.is_global() or not is_function}
        tables += table.get_children()
    return defined, used


def names_changed(statement: ast.stmt) -> set[str]:
    """The names whose values a top-level statement may change: ``a.b = …``, ``a[b] = …``, ``a.b(…)``, also in loops."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return set()
    changes = [node for node in ast.walk(statement) if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr)]
    return {re.match(r'\w*', ast.unparse(change))[0] for change in changes}


def is_allowed(module: str, packages: tuple[str, ...]) -> bool:
    top = module.partition('.')[0]
    return top in packages or top in sys.stdlib_module_names


def source_path(name: str) -> Path | None:
    """The Python file of a module, if it has one."""
    file = getattr(sys.modules.get(name), '__file__', None)
    if file is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec else None
    return Path(file).resolve() if file and file.endswith('.py') and Path(file).is_file() else None
