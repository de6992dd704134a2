"""Options files: found, read, overridden, checked, and completed with BasicSR's default values."""
