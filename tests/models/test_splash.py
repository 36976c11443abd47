"""The TPU's kernel, interpreted on a CPU, against XLA's form: results and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer.models import attention as module_of_attention
from jaxformer.models.attention import attention
from jaxformer.models.masks import Mask
from jaxformer.models.splash import splash_attention, splash_problems

BATCH, HEADS, KV_HEADS, TOKENS, SIZE = 2, 2, 1, 256, 128
SEGMENTS = np.repeat([[1, 2, 3], [1, 1, 2]], [100, 100, 56], axis=1).astype(np.int32)
KEYS = np.arange(TOKENS)[None] < np.array([[256], [130]])
MASKS = {
    "full": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(causal=True, window=50),
    "segments": Mask(causal=True, segments=jnp.asarray(SEGMENTS)),
    "padding": Mask(keys=jnp.asarray(KEYS)),
}


def heads(seed, count):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, count, TOKENS, SIZE)).astype(np.float32)


@pytest.mark.parametrize("name", MASKS)
def test_the_kernel_gives_what_xla_gives(name):
    mask, scale = MASKS[name], 0.05
    query, key, value = heads(0, HEADS), heads(1, KV_HEADS), heads(2, KV_HEADS)
    ours = splash_attention(query, key, value, mask, scale, interpret=True)
    np.testing.assert_allclose(
        ours, attention(query, key, value, mask=mask, scale=scale), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_so_are_its_gradients():
    arrays = heads(0, HEADS), heads(1, KV_HEADS), heads(2, KV_HEADS)
    mask = MASKS["segments"]

    def loss(attend):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(attend(*a))), argnums=(0, 1, 2))(*arrays)

    ours = loss(lambda q, k, v: splash_attention(q, k, v, mask, 0.05, interpret=True))
    theirs = loss(lambda q, k, v: attention(q, k, v, mask=mask, scale=0.05))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)


@pytest.mark.parametrize(
    ("query", "key", "mask", "unbiased", "devices", "says"),
    [
        ((1, 2, 128, 128), (1, 2, 128, 128), Mask(causal=True), True, 1, None),
        ((1, 2, 128, 128), (1, 2, 128, 128), Mask(), False, 1, "a bias"),
        (
            (1, 2, 100, 128),
            (1, 2, 128, 128),
            Mask(),
            True,
            1,
            "100 queries and 128 keys, not multiples of 128",
        ),
        ((1, 2, 128, 64), (1, 2, 128, 64), Mask(), True, 1, "head size 64, not a multiple of 128"),
        ((1, 2, 128, 128), (1, 2, 256, 128), Mask(causal=True), True, 1, "a causal mask or segments"),
        (
            (1, 2, 128, 128),
            (1, 2, 128, 128),
            Mask(allowed=jnp.ones((1, 1, 1, 1), bool)),
            True,
            1,
            "of a cache",
        ),
        ((1, 2, 128, 128), (1, 2, 128, 128), Mask(), True, 4, "4 devices"),
    ],
)
def test_when_it_is_not_taken(query, key, mask, unbiased, devices, says):
    found = list(splash_problems(query, key, mask, unbiased, devices))
    assert (found == []) if says is None else (len(found) == 1 and says in found[0])


def test_a_tpu_takes_it_where_it_fits(monkeypatch):
    asked = []
    monkeypatch.setattr(module_of_attention.jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(module_of_attention.jax, "device_count", lambda: 1)
    monkeypatch.setattr(
        module_of_attention, "splash_attention", lambda q, k, v, mask, scale: asked.append((mask, scale)) or q
    )
    arrays = [jnp.zeros((1, 2, 128, 128), jnp.bfloat16)] * 3
    attention(*arrays, mask=Mask(causal=True), scale=128**-0.5)
    assert asked == [(Mask(causal=True), 128**-0.5)]
    attention(*(x[:, :, :100] for x in arrays), mask=Mask(causal=True), scale=128**-0.5)
    assert len(asked) == 1
