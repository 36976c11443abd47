"""Positions against PyTorch's interpolation and MoCo v3's formula."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer.models.positions import resize_position_table, sincos2d


def table_of(prefix, grid, features=4):
    shape = (1, prefix + grid[0] * grid[1], features)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_same_grid_is_the_identity():
    table = table_of(1, (3, 2))
    np.testing.assert_array_equal(resize_position_table(table, (3, 2), (3, 2), 1), table)


@pytest.mark.parametrize("new_grid", [(6, 5), (2, 2)])
def test_prefix_is_untouched(new_grid):
    table = table_of(2, (3, 4))
    resized = resize_position_table(table, (3, 4), new_grid, 2)
    assert resized.shape == (1, 2 + new_grid[0] * new_grid[1], 4)
    np.testing.assert_array_equal(resized[:, :2], table[:, :2])


@pytest.mark.parametrize("new_grid", [(7, 5), (2, 3), (2, 9)])
def test_a_constant_table_stays_constant(new_grid):
    row = np.arange(4, dtype=np.float32)
    table = jnp.asarray(np.tile(row, (1, 16, 1)))
    resized = resize_position_table(table, (4, 4), new_grid)
    np.testing.assert_allclose(resized, np.tile(row, (1, new_grid[0] * new_grid[1], 1)), rtol=1e-6)


@pytest.mark.parametrize(("grid", "new_grid"), [((3, 4), (6, 8)), ((3, 3), (7, 5)), ((6, 8), (3, 5))])
def test_resizing_is_pytorchs_bilinear(grid, new_grid):
    torch = pytest.importorskip("torch")
    table = table_of(1, grid)
    square = torch.tensor(np.asarray(table[:, 1:])).reshape(1, *grid, 4).permute(0, 3, 1, 2)
    shrinks = new_grid[0] < grid[0]
    expected = torch.nn.functional.interpolate(
        square, new_grid, mode="bilinear", align_corners=False, antialias=shrinks
    )
    expected = expected.permute(0, 2, 3, 1).reshape(1, -1, 4).numpy()
    resized = resize_position_table(table, grid, new_grid, 1)
    np.testing.assert_allclose(resized[:, 1:], expected, rtol=1e-5, atol=1e-5)


def test_another_length_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 10, D\]"):
        resize_position_table(table_of(0, (3, 3)), (3, 3), (4, 4), 1)


def mocov3(row, column, features, temperature):
    """One position of MoCo v3's table: sines, then cosines of the column, then both of the row.

    Written from vits.py (build_2d_sincos_position_embedding) of facebookresearch/moco-v3, in scalars, with one
    difference: big_vision's frequencies end at 1 / temperature (d / (n - 1), where MoCo v3 has d / n).
    """
    n = features // 4
    omegas = [temperature ** (-d / (n - 1)) for d in range(n)]
    return [f(p * w) for p in (column, row) for f in (math.sin, math.cos) for w in omegas]


def test_sincos2d_is_mocov3s():
    expected = [mocov3(r, c, 16, 10_000.0) for r in range(3) for c in range(5)]
    np.testing.assert_allclose(sincos2d(3, 5, 16)[0], expected, rtol=1e-5, atol=1e-6)
