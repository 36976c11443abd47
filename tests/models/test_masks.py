"""Masks, written out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer.models.attention import attention
from jaxformer.models.masks import Mask
from jaxformer.models.stack import stacked_masks

CAUSAL = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
BANDED = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
DOCUMENTS = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
SEGMENTS = np.array([[1, 1, 2, 0]], np.int32)
KEYS = np.array([[True, True, True, False]])


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (Mask(causal=True), CAUSAL),
        (Mask(causal=True, window=2), BANDED),
        (Mask(causal=True, window=1), np.eye(4)),
        (Mask(causal=True, window=9), CAUSAL),
        (Mask(segments=SEGMENTS), DOCUMENTS),
        (Mask(causal=True, segments=SEGMENTS), np.minimum(CAUSAL, DOCUMENTS)),
        (Mask(keys=KEYS), [[1, 1, 1, 0]] * 4),
        (Mask(True, 2, SEGMENTS, KEYS), np.minimum(BANDED, np.minimum(DOCUMENTS, [[1, 1, 1, 0]]))),
        (Mask(True, allowed=np.array([[[[False, True, True, True]]]])), np.minimum(CAUSAL, [0, 1, 1, 1])),
    ],
    ids=["causal", "window", "itself", "wide", "segments", "causal segments", "keys", "all", "allowed"],
)
def test_who_sees_whom(mask, expected):
    array = np.broadcast_to(mask.array(4, 4), (1, 1, 4, 4))[0, 0]
    np.testing.assert_array_equal(array, np.array(expected, bool))


def test_nothing_is_hidden_by_default():
    assert Mask().array(3, 5) is None


def test_causal_and_windows_alone_are_structural():
    assert Mask(True, 3).is_structural
    assert not any(m.is_structural for m in (Mask(segments=SEGMENTS), Mask(keys=KEYS), Mask(allowed=KEYS)))


def test_a_row_that_sees_nothing_is_finite():
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 8)).astype(np.float32)
    y = attention(x, x, x, mask=Mask(keys=np.zeros((1, 4), bool)), scale=1.0)
    assert bool(jnp.isfinite(y).all())


def test_masks_of_a_stack_go_round():
    masks = stacked_masks([Mask(True), Mask(True, 2, keys=np.repeat(KEYS, 3, 0))], 3, 4).allowed
    assert masks.shape == (3, 3, 1, 4, 4)
    for layer, expected in ((0, CAUSAL), (1, np.minimum(BANDED, [1, 1, 1, 0])), (2, CAUSAL)):
        np.testing.assert_array_equal(masks[layer, :, 0], [np.array(expected, bool)] * 3)
    assert stacked_masks([], 3, 4) is None
    assert stacked_masks([Mask(), Mask(True)], 2, 4).allowed[0].all()
