"""A model's parameters at random, without compiling its init; tiny images."""

import jax
import numpy as np


def random_params(model, *args, scale=0.2):
    """Parameters around those that training would have: no zero and no one is left to hide a mistake."""
    shapes = jax.eval_shape(lambda key: model.init(key, *args), jax.random.key(0))["params"]
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda s: (scale * generator.normal(size=s.shape)).astype(s.dtype), shapes)


def images(batch=2, size=8):
    """float32 [batch, size, size, 3]."""
    return np.random.default_rng(1).normal(size=(batch, size, size, 3)).astype(np.float32)
