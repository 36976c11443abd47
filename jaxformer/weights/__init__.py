"""Parameters in other layouts and from other projects: a table of names for each family, read both ways.

The readers of other projects' checkpoints have no importer yet: until there is one, they are called from Python, as the
parity tests do. `layouts.py` (scanned and unrolled layers) is used throughout.
"""
