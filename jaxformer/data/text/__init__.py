"""Text: tokenizers, and what turns texts into batches of tokens. NumPy only, no jax."""
