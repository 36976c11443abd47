"""Attention rollout and its pictures."""

import numpy as np
import pytest

from jaxformer.observe.attention_maps import (
    attention_grid,
    attention_rollout,
    heads_image,
    overlay,
    received,
    square_grid,
)


def test_rollout_against_a_computation_by_hand():
    # Two layers, two heads, two tokens. Heads averaged: A1 = [[.6, .4], [.2, .8]], A2 = [[.5, .5], [1, 0]].
    first = [[[0.8, 0.2], [0.4, 0.6]], [[0.4, 0.6], [0.0, 1.0]]]
    second = [[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]]]
    # Half identity: [[.8, .2], [.1, .9]] and [[.75, .25], [.5, .5]]; rows sum to 1. Second times first:
    expected = [
        [0.75 * 0.8 + 0.25 * 0.1, 0.75 * 0.2 + 0.25 * 0.9],
        [0.5 * 0.8 + 0.5 * 0.1, 0.5 * 0.2 + 0.5 * 0.9],
    ]
    np.testing.assert_allclose(attention_rollout(np.array([first, second])), expected, atol=1e-12)


def test_rollout_renormalises_rows():
    dropped = np.array([[[[0.3, 0.1], [0.0, 0.5]]]])  # rows that lost weight, as with dropout
    np.testing.assert_allclose(attention_rollout(dropped), [[0.65 / 0.7, 0.05 / 0.7], [0.0, 1.0]])


def test_rollout_of_layers_that_look_at_themselves_is_the_identity():
    np.testing.assert_allclose(attention_rollout(np.broadcast_to(np.eye(5), (3, 2, 5, 5))), np.eye(5))


def test_the_class_tokens_view_leaves_out_the_prefix():
    weights = np.zeros((3, 9, 9))  # class token, 2 registers, 2 x 3 patches
    weights[:, 0] = np.arange(9)
    maps = attention_grid(weights, (2, 3), prefix_tokens=3, query="class_token")
    assert maps.shape == (3, 2, 3)
    np.testing.assert_array_equal(maps[0], [[3, 4, 5], [6, 7, 8]])


def test_the_mean_view_averages_the_patches_queries_alone():
    weights = np.random.default_rng(0).random((5, 5))
    expected = weights[1:, 1:].mean(axis=0).reshape(2, 2)
    np.testing.assert_allclose(attention_grid(weights, (2, 2), prefix_tokens=1, query="mean"), expected)


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="17 tokens are not 0 in front of 4 x 4"):
        attention_grid(np.zeros((17, 17)), (4, 4))


def test_windows_are_put_back_where_they_were():
    """Two windows of two tokens on a 1 x 3 grid; the second one's last token is padding, which says nothing."""
    weights = np.array([[[[0.9, 0.1], [0.4, 0.6]]], [[[1.0, 0.0], [0.5, 0.5]]]])  # [N, H, T, S]
    places = np.array([[2, 0], [1, -1]])
    maps = received(weights, np.array([[1, 1], [1, 0]]), places, (1, 3))
    np.testing.assert_allclose(maps, [[[0.7, 1.0, 1.3]]])


def test_square_grids():
    assert square_grid(197) == ((14, 14), 1)
    assert square_grid(16) == ((4, 4), 0)
    assert square_grid(21) == ((4, 4), 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_overlay_is_brightest_where_attention_is(channels):
    attention = np.zeros((4, 4))
    attention[1, 2] = 1.0
    image = np.full((64, 64, channels), 100, np.uint8)
    drawn = overlay(image, attention)
    assert drawn.shape == (64, 64, 3)
    assert drawn.dtype == np.uint8
    brightness = drawn.sum(-1).astype(int)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert (row // 16, column // 16) == (1, 2)


def test_a_flat_map_darkens_evenly():
    image = np.full((16, 16, 3), 200, np.uint8)
    assert len(np.unique(overlay(image, np.ones((4, 4))))) <= 3


def test_heads_are_laid_out_with_layers_in_rows():
    maps = np.zeros((2, 3, 4, 4))
    maps[1, 2, 0, 0] = 1.0
    picture = heads_image(maps, cell=40, gap=4)
    assert picture.shape == (2 * 44 - 4, 3 * 44 - 4, 4)
    row, column = np.unravel_index(picture[..., :3].sum(-1).argmax(), picture.shape[:2])
    assert 44 <= row < 54
    assert 88 <= column < 98
    assert (picture[40:44, :, 3] == 0).all()  # the gap
