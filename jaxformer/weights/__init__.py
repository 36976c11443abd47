"""Parameters of other projects: a table of names for each family of models, read and written.

`pretrained.py` opens what Hugging Face transformers publishes, `beginning.py` begins a training with it
(`model.pretrained`), `export.py` writes our models for transformers. The tables of image models are called from Python, as the
parity tests do.
"""
