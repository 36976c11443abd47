"""Small decoders of every kind, and texts for them."""

from itertools import product

import jax
import numpy as np

from helpers.tiny import random_params
from jaxformer.models.gpt import GPT
from jaxformer.models.rotary import Rotary

VOCAB, WINDOW = 13, 3
TINY = {
    "vocab_size": VOCAB,
    "context_length": 16,
    "width": 16,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 24,
    "tied": False,
}
SCHEMES = ("learned", "sinusoidal", "rotary", "alibi", "relative", "none")
WINDOWS = {
    "dense": {},
    "banded": {"window": WINDOW},
    "alternating": {"window": WINDOW, "window_every": 2},
}
# Every scheme and every window meets all of these.
EXTRAS = (
    {},
    {"num_kv_heads": 2, "qk_norm": True, "norm": "rms", "use_bias": False, "qkv_bias": True},
    {"num_kv_heads": 1, "head_dim": 6, "activation": "swiglu", "rotary": Rotary(share=0.7)},
)
GPTS = {
    f"{scheme}, {window}": GPT(**TINY, positions=scheme, **WINDOWS[window], **EXTRAS[(i + j) % 3])
    for (i, scheme), (j, window) in product(enumerate(SCHEMES), enumerate(WINDOWS))
}


def texts(*shape, seed=0):
    """Token ids int32 of this shape."""
    return np.random.default_rng(seed).integers(0, VOCAB, shape).astype(np.int32)


def params_of(model, *args):
    """Random parameters with which tokens change one another a lot, so that a leak between them shows."""
    return random_params(model, *args, scale=0.5)


def jitted(model, params):
    """The model as a compiled function of what it is called with."""
    apply = jax.jit(model.apply)
    return lambda *args, **kwargs: apply({"params": params}, *args, **kwargs)


def close(ours, theirs, tolerance=1e-5):
    """Asserts that two arrays are the same, as far as float32 goes."""
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
