"""A network as one self-contained file: its module and those that it imports, joined, without what it does not use."""

import ast
import importlib.util
import re
import symtable
import sys
from collections import defaultdict
from pathlib import Path

from earn_plugin.errors import UserError

ALLOWED = ('torch', 'numpy', 'cv2')  # what the organisers' own scripts import, in addition to the standard library
OURS = ('earn_plugin', 'basicsr')
HELPERS = 'earn_plugin.ntire.exported_helpers'
FUSED_ATTENTION = 'scaled_dot_product_attention'  # which torch 1.13 lacks: the plain one of HELPERS takes its place


def single_file(cls: type, *helpers: str) -> str:
    """The source of a class and of all that it uses, which runs without BasicSR and without this package.

    Definitions keep their text, with their comments. Registration is dropped, and torch's fused attention becomes the
    plain one, which torch 1.13 can run and fvcore can count.

    Args:
        helpers: functions of ``exported_helpers`` to include.

    Raises:
        UserError: it uses something that cannot be included; names the line.
    """
    joiner = _Joiner(cls.__module__)
    for name in helpers:
        joiner.follow(joiner.home, HELPERS, name)
    joiner.add(joiner.home, cls.__name__)
    return joiner.text()


class _Module:
    """The top-level statements of a module, by the names that they define or change."""

    def __init__(self, name: str):
        self.name, self.path = name, source_path(name)
        if self.path is None:
            raise UserError(f'{name} has no Python source, so it cannot be included in the exported file')
        text = self.path.read_text(encoding='utf-8')
        self.lines = text.split('\n')
        self.statements = ast.parse(text).body
        self.definitions: dict[str, list[ast.stmt]] = defaultdict(list)
        for statement in self.statements:
            if not (isinstance(statement, ast.If) and ast.unparse(statement.test).startswith('__name__ ==')):
                for defined in names_defined(self.source(statement)):
                    self.definitions[defined].append(statement)
        for statement in self.statements:
            for changed in names_changed(statement) & self.definitions.keys():
                before = self.definitions[changed]
                if statement not in before and not any(isinstance(s, ast.Import | ast.ImportFrom) for s in before):
                    before.append(statement)

    def source(self, statement: ast.stmt) -> str:
        """The lines of a statement with the comments right above it, without registration."""
        decorators = getattr(statement, 'decorator_list', [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        dropped = [range(d.lineno, d.end_lineno + 1) for d in decorators if '.register' in ast.unparse(d)]
        while first > 1 and self.lines[first - 2].startswith('#') and not self.lines[first - 2].startswith('#!'):
            first -= 1
        numbers = range(first, statement.end_lineno + 1)
        text = '\n'.join(self.lines[n - 1] for n in numbers if not any(n in lines for lines in dropped))
        return re.sub(rf'\b(torch\.nn\.|nn\.)?(F|functional)\.{FUSED_ATTENTION}\b', FUSED_ATTENTION, text)

    def origin(self, statement: ast.ImportFrom) -> str:
        """The absolute name of the module that a statement imports from."""
        package = self.name if self.path.name == '__init__.py' else self.name.rpartition('.')[0]
        return importlib.util.resolve_name('.' * statement.level + (statement.module or ''), package)

    def line(self, node: ast.AST) -> str:
        return f'{self.path}, line {node.lineno}'


class _Joiner:
    """Collects statements, starting from what is asked for, and joins them in an order that works."""

    def __init__(self, home: str):
        self.modules: dict[str, _Module] = {}
        self.home = self.module(home)
        self.kept: dict[str, set[int]] = defaultdict(set)  # module → indices of statements
        self.aliases: dict[str, dict[str, str]] = defaultdict(dict)  # module → new name → name
        self.imports: dict[str, set[str]] = defaultdict(set)  # 'from X import' → names; 'import X' → nothing
        self.meanings: dict[str, str] = {}  # name in the file → what it stands for
        self.needs: dict[str, list[str]] = defaultdict(list)  # module → modules that must stand before it

    def module(self, name: str) -> _Module:
        if name not in self.modules:
            self.modules[name] = _Module(name)
        return self.modules[name]

    def add(self, module: _Module, name: str) -> None:
        """Include what a module calls ``name``, and all that this uses."""
        for statement in module.definitions.get(name, []):
            index = module.statements.index(statement)
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self.add_import(module, statement, name)
            elif index not in self.kept[module.name]:
                self.kept[module.name].add(index)
                self.add_statement(module, statement)

    def add_statement(self, module: _Module, statement: ast.stmt) -> None:
        source = module.source(statement)
        for defined in names_defined(source):
            self.claim(module, statement, defined, f'{module.name}.{defined}')
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                origins = [module.origin(node)] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                for origin in origins:
                    if not is_allowed(origin):
                        raise UserError(self.refusal(module, node, origin, 'inside other code'))
        stars = [s for s in module.statements if isinstance(s, ast.ImportFrom) and s.names[0].name == '*']
        for used in sorted(names_used(source)):
            if used in module.definitions:
                self.add(module, used)
            elif used == FUSED_ATTENTION:
                self.follow(module, HELPERS, used)
            else:
                for star in stars:
                    self.add_import(module, star, used)

    def add_import(self, module: _Module, statement: ast.Import | ast.ImportFrom, name: str) -> None:
        alias = next((a for a in statement.names if (a.asname or a.name.partition('.')[0]) == name), ast.alias(name))
        if isinstance(statement, ast.Import):
            if not is_allowed(alias.name):
                raise UserError(self.refusal(module, statement, alias.name, 'as a whole'))
            self.claim(module, statement, name, alias.name if alias.asname else name)
            self.imports[f'import {alias.name}' + (f' as {name}' if alias.asname else '')]
            return
        origin, is_star = module.origin(statement), statement.names[0].name == '*'
        if is_allowed(origin) and alias.name != FUSED_ATTENTION:
            self.claim(module, statement, '*' if is_star else name, f'{origin}.{alias.name}')
            imported = alias.name + (f' as {name}' if name != alias.name else '')
            self.imports[f'from {origin} import'].add('*' if is_star else imported)
        elif is_allowed(origin):
            self.follow(module, HELPERS, FUSED_ATTENTION)
            self.rename(module, statement, FUSED_ATTENTION, name)
        elif not self.is_own(origin):
            raise UserError(self.refusal(module, statement, origin))
        elif origin.endswith('.registry'):
            raise UserError(
                f'{module.line(statement)}: the network asks the registry for its parts when it is built; import them '
                'by name'
            )
        elif alias.name in self.module(origin).definitions:
            self.follow(module, origin, alias.name)
            self.rename(module, statement, alias.name, name)
        elif source_path(f'{origin}.{alias.name}') and not is_star:
            raise UserError(self.refusal(module, statement, f'{origin}.{alias.name}', 'as a whole'))

    def follow(self, module: _Module, origin: str, name: str) -> None:
        self.needs[module.name].append(origin)
        self.add(self.module(origin), name)

    def rename(self, module: _Module, statement: ast.stmt, name: str, new: str) -> None:
        if new != name:
            self.claim(module, statement, new, f'{name} as {new}')
            self.aliases[module.name][new] = name

    def claim(self, module: _Module, statement: ast.stmt, name: str, meaning: str) -> None:
        before = self.meanings.setdefault(name, meaning)
        if before != meaning and name != '*':
            raise UserError(
                f'{module.line(statement)}: {name} is {meaning} here and {before} elsewhere, but the exported file can '
                'hold only one of them; rename one'
            )

    def refusal(self, module: _Module, node: ast.AST, imported: str, how: str = '') -> str:
        if self.is_own(imported):
            return (
                f'{module.line(node)}: {imported} is imported {how}; import what the network uses by name, at the top '
                f'of the file: from {imported} import …'
            )
        return (
            f"{module.line(node)}: {imported} is imported, which the organisers' machines may not have: a submission "
            f'is one file that uses the standard library, {", ".join(ALLOWED[:-1])} and {ALLOWED[-1]}. Write what the '
            f'network uses of {imported} into {module.path.name} or into a file next to it'
        )

    def is_own(self, name: str) -> bool:
        """Whether the source of a module may be included: ours, BasicSR's, or of the network's own project."""
        top, path = name.partition('.')[0], source_path(name)
        if path is None or top in (*OURS, self.home.name.partition('.')[0]):
            return path is not None
        depth = self.home.name.count('.') + (self.home.path.name == '__init__.py')
        installed = {'site-packages', 'dist-packages'} & set(path.parts)
        return not installed and path.is_relative_to(self.home.path.parents[depth])

    def ordered(self, name: str, seen: set[str]) -> list[str]:
        """A module after those that it needs."""
        seen.add(name)
        before = [above for needed in self.needs[name] if needed not in seen for above in self.ordered(needed, seen)]
        return [*before, name]

    def text(self) -> str:
        imports = [line if not names else f'{line} {", ".join(sorted(names))}' for line, names in self.imports.items()]
        imports.sort(key=lambda line: (line.split()[1].partition('.')[0] in ALLOWED, line.startswith('from'), line))
        parts = ['from __future__ import annotations\n' + ''.join(f'\n{line}' for line in imports)]
        for name in self.ordered(self.home.name, set()):
            module = self.modules[name]
            parts += ['\n'.join(f'{new} = {old}' for new, old in self.aliases[name].items())]
            parts += [module.source(module.statements[index]) for index in sorted(self.kept[name])]
        return '\n\n\n'.join(filter(None, parts)) + '\n'


def names_defined(source: str) -> set[str]:
    """The names that a top-level statement defines or imports, also within its branches."""
    symbols = symtable.symtable(source, 'statement', 'exec').get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_namespace()}


def names_used(source: str) -> set[str]:
    """The names that a top-level statement takes from its module, at once or when its functions run."""
    tables, used = [symtable.symtable(source, 'statement', 'exec')], set()
    while tables:
        table = tables.pop()
        inside_function = table.get_type() == 'function'
        used |= {
            s.get_name() for s in table.get_symbols() if s.is_referenced() and (s.is_global() or not inside_function)
        }
        tables += table.get_children()
    return used


def names_changed(statement: ast.stmt) -> set[str]:
    """The names whose values a top-level statement may change: ``a.b = …``, ``a[b] = …``, ``a.b(…)``."""
    targets = [statement.target] if isinstance(statement, ast.AugAssign) else getattr(statement, 'targets', [])
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [statement.value.func]
    names = set()
    for target in targets:
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        names |= {target.id} if isinstance(target, ast.Name) else set()
    return names


def is_allowed(module: str) -> bool:
    top = module.partition('.')[0]
    return top in ALLOWED or top in sys.stdlib_module_names


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
