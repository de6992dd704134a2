"""``python -m earn_plugin``: the basicsr command."""

import sys

from earn_plugin.cli import main

sys.exit(main())
