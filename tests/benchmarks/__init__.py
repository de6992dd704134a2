"""The scripts behind README's tables, run as ``python -m tests.benchmarks.NAME``."""

import earn_plugin  # noqa: F401  (must precede basicsr; the processes that a script starts import this too)
