"""Windows of feature maps, and biases by distance against a loop."""

import jax
import numpy as np
import pytest

from jaxformer.models.windows import GridBias, Windows


def test_windows_are_cut_row_by_row_and_joined_again():
    x = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = Windows((4, 6), 2, "block")
    parts = np.asarray(windows.cut(x))
    assert parts.shape == (12, 4, 1)
    np.testing.assert_array_equal(parts[1, :, 0], [2, 3, 8, 9])
    np.testing.assert_array_equal(parts[6, :, 0], x[1, :2, :2].ravel())
    np.testing.assert_array_equal(windows.joined(parts), x)


def test_places_of_a_grid_window_lie_equally_far_apart():
    places = np.arange(24).reshape(1, 4, 6, 1)
    windows = Windows((4, 6), 2, "grid")  # rows 2 apart, columns 3 apart
    parts = np.asarray(windows.cut(places))
    assert parts.shape == (6, 4, 1)
    np.testing.assert_array_equal(parts[0, :, 0], [0, 3, 12, 15])
    np.testing.assert_array_equal(parts[5, :, 0], [8, 11, 20, 23])
    np.testing.assert_array_equal(windows.joined(parts), places)


@pytest.mark.parametrize("kind", ["block", "shifted", "grid"])
@pytest.mark.parametrize("shape", [(5, 7), (2, 9), (3, 3), (1, 1)])
def test_maps_of_any_size_are_joined_again(kind, shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3))
    windows = Windows(shape, 3, kind)
    np.testing.assert_allclose(windows.joined(windows.cut(x)), x, rtol=1e-6)


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
