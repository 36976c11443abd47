"""Max-pooling is XLA's, and so is its gradient."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxformer.models.resampling import max_pool


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
