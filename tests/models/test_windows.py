"""Windows of feature maps, and biases by distance against a loop."""

import jax
import numpy as np
import pytest

from jaxformer.models.windows import GridBias, from_windows, to_windows


def test_windows_are_cut_row_by_row_and_joined_again():
    x = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = np.asarray(to_windows(x, (2, 3)))
    assert windows.shape == (8, 6, 1)
    np.testing.assert_array_equal(windows[1, :, 0], [3, 4, 5, 9, 10, 11])
    np.testing.assert_array_equal(windows[4, :, 0], x[1, :2, :3].ravel())
    np.testing.assert_array_equal(from_windows(windows, (2, 3), (4, 6)), x)


@pytest.mark.parametrize("grid", [(3, 3), (2, 3), (1, 2)])
def test_a_bias_is_that_of_the_distance(grid):
    table = np.random.default_rng(0).normal(size=(25, 2)).astype(np.float32)  # of distances from -2 to 2
    bias = np.asarray(GridBias(2, 3).apply({"params": {"embedding": table}}, *grid))
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    assert bias.shape == (1, 2, len(places), len(places))
    for q, (y, x) in enumerate(places):
        for k, (v, u) in enumerate(places):
            np.testing.assert_allclose(bias[0, :, q, k], table[(y - v + 2) * 5 + x - u + 2], rtol=1e-6)


def test_an_einsum_of_ones_has_the_gradient_of_a_lookup():
    def total(table):
        return GridBias(1, 2).apply({"params": {"embedding": table}}, 2, 2).sum()

    counts = jax.grad(total)(np.zeros((9, 1), np.float32))
    np.testing.assert_allclose(counts[:, 0], [1, 2, 1, 2, 4, 2, 1, 2, 1])
