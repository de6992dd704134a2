"""Options files: found, read, overridden, checked, and completed with BasicSR's default values.

Nothing here builds a network or runs code from a file; the recipes themselves are in the top-level folder options.
"""
