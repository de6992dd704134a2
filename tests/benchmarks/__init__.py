"""The scripts behind README's tables, run as ``python -m tests.benchmarks.NAME``."""

import earn_plugin  # noqa: F401  (before basicsr, as users are told; also in the processes that a script starts)
