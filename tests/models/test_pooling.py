"""Max-pooling is XLA's, and so is its gradient; halving by the maximum is NumPy's."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxformer.models.resampling import halved, max_pool


def reference(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=[(1, 1), (1, 1)])


@pytest.mark.parametrize("shape", [(6, 8), (7, 5), (1, 4), (2, 1)])
def test_results_and_gradients(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    expected, expected_pull = jax.vjp(reference, x)
    result, pull = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(result, expected)
    weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    np.testing.assert_allclose(pull(weights)[0], expected_pull(weights)[0], rtol=1e-6)


def test_the_first_of_equals_gets_the_gradient():
    x = np.zeros((1, 4, 4, 1), np.float32)
    gradient = np.asarray(jax.grad(lambda x: max_pool(x).sum())(x))[0, :, :, 0]
    np.testing.assert_array_equal(gradient, np.asarray(jax.grad(lambda x: reference(x).sum())(x))[0, :, :, 0])
    assert gradient.sum() == 4


def test_halving_gives_the_gradient_to_the_first_of_equals():
    """Most windows hold equals, which are computed in the same program, so that XLA may compute them again."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 6, 8, 5)).astype(np.float32)
    weights = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)

    @jax.jit
    def pooled(x, moved):
        def loss(moved):
            result = halved(jax.nn.silu(x * 1.7 + 0.3) + moved, "max")
            return (result * weights).sum(), result

        return jax.grad(loss, has_aux=True)(moved)

    gradient, result = pooled(x, np.zeros_like(x))
    windows = x.reshape(2, 3, 2, 4, 2, 5).transpose(0, 1, 3, 5, 2, 4).reshape(2, 3, 4, 5, 4)
    np.testing.assert_allclose(result, jax.nn.silu(windows.max(-1) * 1.7 + 0.3), rtol=1e-6)
    expected = np.where(np.arange(4) == windows.argmax(-1)[..., None], weights[..., None], 0)
    expected = expected.reshape(2, 3, 4, 5, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)
    np.testing.assert_array_equal(gradient, expected)
