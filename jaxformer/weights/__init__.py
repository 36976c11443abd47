"""Parameters from other projects: a table of names for each family of models.

These readers have no importer yet: until there is one, they are called from Python, as the parity tests do.
"""
