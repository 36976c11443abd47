"""jaxformer: Transformers, Vision Transformers and CNN-Transformer hybrids as pure functions in JAX."""

__version__ = "0.1.0"
