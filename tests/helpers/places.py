"""Where the repository and what lies beside it are."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / 'tests/golden'
SHARED = ROOT.parent / 'shared'
