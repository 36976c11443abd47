"""Positions of text: sinusoids, ALiBi's slopes, T5's buckets, and which of them see absolute positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_text import GPTS, SCHEMES, close, jitted, params_of, texts

from jaxformer.models.positions import RelativeBias, alibi_bias, alibi_slopes, sinusoidal


def test_sinusoids_are_the_papers():
    """Vaswani et al. 2017, section 3.5, number by number."""
    positions = np.array([[0, 1, 5], [40, 300, 2]], np.int32)
    expected = np.zeros((2, 3, 6))
    for row in range(2):
        for place in range(3):
            for i in range(3):
                angle = positions[row, place] / 10_000 ** (2 * i / 6)
                expected[row, place, 2 * i] = math.sin(angle)
                expected[row, place, 2 * i + 1] = math.cos(angle)
    np.testing.assert_allclose(sinusoidal(positions, 6), expected, rtol=1e-4, atol=1e-5)


def test_alibi_slopes_are_the_papers():
    """Press et al. 2022, section 3, and `get_slopes` of its code where heads are no power of two."""
    eight = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    np.testing.assert_allclose(alibi_slopes(8), eight, rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(16), 2 ** (-0.5 * np.arange(1, 17)), rtol=1e-6)
    twelve = [*eight, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    np.testing.assert_allclose(alibi_slopes(12), twelve, rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(1), [2**-8])


def test_alibi_falls_with_the_distance():
    bias = alibi_bias(np.array([[5, 2]]), np.array([[5, 4, 0]]), 8)
    assert bias.shape == (1, 8, 2, 3)
    np.testing.assert_allclose(bias[0, 1], [[0, -1 / 4, -5 / 4], [-3 / 4, -2 / 4, -2 / 4]], rtol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20)])
def test_buckets_are_t5s(bidirectional, buckets, farthest):
    torch = pytest.importorskip("torch")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = np.arange(-300, 301, dtype=np.int32)
    theirs = t5.T5Attention._relative_position_bucket(
        torch.tensor(distances.astype(np.int64)), bidirectional, buckets, farthest
    )
    ours = RelativeBias(2, bidirectional, buckets, farthest).buckets(jnp.asarray(distances))
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert set(np.asarray(ours).tolist()) <= set(range(buckets))


def test_the_bias_is_the_heads_entry_of_the_bucket():
    module = RelativeBias(3, bidirectional=True, num_buckets=8, max_distance=16)
    queries, keys = np.array([[4, 0], [1, 30]], np.int32), np.array([[0, 4, 5], [1, 2, 0]], np.int32)
    params = params_of(module, queries, keys)
    bias = jax.jit(module.apply)({"params": params}, queries, keys)
    assert bias.shape == (2, 3, 2, 3)
    buckets = module.buckets(jnp.asarray(keys[:, None] - queries[:, :, None]))
    for row, head, query, key in np.ndindex(bias.shape):
        expected = params["embedding"][int(buckets[row, query, key]), head]
        assert float(bias[row, head, query, key]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_which_schemes_see_where_a_text_begins(scheme):
    model, tokens = GPTS[f"{scheme}, dense"], texts(1, 7)
    apply = jitted(model, params_of(model, tokens))
    here, there = (apply(tokens, positions=np.arange(7)[None] + n).logits for n in (0, 6))
    if scheme in ("learned", "sinusoidal"):
        assert np.abs(here - there).max() > 1e-2
    else:
        close(here, there, 1e-4)
