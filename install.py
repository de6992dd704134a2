"""Install earn_plugin for development, with the versions of constraints.txt:

    python3 install.py

It installs into the active virtual environment or, if none is active, into .venv next to this file.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / '.venv'

# The setup.py of BasicSR 1.4.2 calls exec() without a namespace and then reads what it defined from locals(). Since
# Python 3.13 (PEP 667) that fails with KeyError: '__version__'. Python imports sitecustomize when it starts.
SITECUSTOMIZE = """
import builtins, sys

builtin_exec = builtins.exec

def exec(source, /, globals=None, locals=None, **closure):
    if globals is None:
        caller = sys._getframe(1)
        globals, locals = caller.f_globals, caller.f_locals if locals is None else locals
    builtin_exec(source, globals, locals, **closure)

builtins.exec = exec
"""


def run(*command: str, **environment: str) -> None:
    code = subprocess.run(command, cwd=HERE, env={**os.environ, **environment}).returncode
    if code:
        print(f'\nNot installed: "{" ".join(command)}" failed with exit code {code}; see above.', file=sys.stderr)
        sys.exit(code)


def main() -> None:
    version = '.'.join(map(str, sys.version_info[:2]))
    if sys.version_info < (3, 10):  # noqa: UP036 - older Pythons get this far
        sys.exit(f'earn_plugin needs Python 3.10 or newer; this is {version}, {sys.executable}')
    python = Path(sys.executable)
    if sys.prefix == sys.base_prefix:  # no virtual environment is active
        config = VENV / 'pyvenv.cfg'
        if config.exists() and f' = {version}.' not in config.read_text(encoding='utf-8'):
            sys.exit(f'{VENV} belongs to a Python other than {version}; remove it, or run install.py with its Python')
        run(sys.executable, '-m', 'venv', str(VENV))
        python = VENV / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')

    install = (str(python), '-m', 'pip', 'install', '-c', 'constraints.txt')
    run(*install, '--upgrade', 'pip', 'setuptools')
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'sitecustomize.py').write_text(SITECUSTOMIZE, encoding='utf-8')
        environment = {'PYTHONPATH': folder} if sys.version_info >= (3, 13) else {}
        # BasicSR's build asks for torch but does not use it: an isolated build would download a second torch.
        run(*install, '--no-build-isolation', '-e', '.[dev]', **environment)

    print(f'\nInstalled in {python.parent.parent}. Next:')
    print(f'  {python.with_name("basicsr")} train -opt demo_EARN_x4')
    print(f'  {python.with_name("pytest")}')


if __name__ == '__main__':
    main()
