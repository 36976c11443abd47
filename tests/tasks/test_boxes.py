"""Boxes: forms, overlap against a NumPy oracle, and no NaN anywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jaxformer.tasks.set_losses import SetLosses, giou, pairs, to_xyxy


def random_boxes(shape, seed=0):
    """float32 [*shape, 4] in cxcywh, some touching, some far apart."""
    generator = np.random.default_rng(seed)
    centre, size = generator.uniform(size=(*shape, 2)), generator.uniform(0.01, 0.7, size=(*shape, 2))
    return np.concatenate([centre, size], axis=-1).astype(np.float32)


def oracle(a, b):
    """Generalised IoU of two boxes in xyxy, in plain Python and float64."""
    a, b = [float(x) for x in a], [float(x) for x in b]
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = area_a + area_b - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union - (hull - union) / hull


def corners(boxes):
    """xyxy of boxes in cxcywh."""
    x, y, w, h = np.moveaxis(boxes.astype(np.float64), -1, 0)
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)


def test_corners_of_boxes():
    np.testing.assert_allclose(to_xyxy(jnp.array([0.5, 0.4, 0.2, 0.6])), [0.4, 0.1, 0.6, 0.7], rtol=1e-6)
    boxes = random_boxes((3, 5))
    np.testing.assert_allclose(to_xyxy(boxes), corners(boxes), atol=1e-6)


def test_overlap_is_that_of_the_oracle():
    a, b = corners(random_boxes((2, 30))), corners(random_boxes((2, 20), seed=1))
    expected = np.array([[[oracle(p, q) for q in b[i]] for p in a[i]] for i in range(2)])
    a, b = a.astype(np.float32), b.astype(np.float32)
    np.testing.assert_allclose(giou(*pairs(a, b)), expected, atol=2e-6)
    np.testing.assert_allclose(giou(a[:, :20], b), expected[:, np.arange(20), np.arange(20)], atol=2e-6)
    assert expected.min() < -0.5
    assert expected.max() > 0.5


# Corners, and generalised IoU by hand.
BY_HAND = {
    "same": ([0, 0, 2, 2], [0, 0, 2, 2], 1),
    "touching": ([0, 0, 1, 1], [1, 0, 2, 1], 0),
    "apart": ([0, 0, 1, 1], [3, 0, 4, 1], -1 / 2),
    "inside": ([0, 0, 4, 4], [1, 1, 3, 3], 1 / 4),
    "a point in a box": ([0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], 0),
    "a point outside": ([0, 0, 1, 1], [2, 2, 2, 2], -3 / 4),
    "the same point": ([1, 1, 1, 1], [1, 1, 1, 1], 0),
    "two points": ([0, 0, 0, 0], [1, 1, 1, 1], -1),
    "two of a line": ([0, 1, 0, 1], [2, 1, 2, 1], 0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand_and_without_nan(name):
    a, b, expected = BY_HAND[name]
    a, b = jnp.array(a, jnp.float32), jnp.array(b, jnp.float32)
    value, gradients = jax.value_and_grad(giou, argnums=(0, 1))(a, b)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    assert np.isfinite(gradients).all()
    middle_and_size = (jnp.concatenate([(x[:2] + x[2:]) / 2, x[2:] - x[:2]]) for x in (a, b))
    through = jax.grad(lambda a, b: giou(to_xyxy(a), to_xyxy(b)), argnums=(0, 1))(*middle_and_size)
    assert np.isfinite(through).all()


def test_very_small_boxes_have_finite_gradients():
    tiny = jnp.array([0.5, 0.5, 1e-12, 1e-12])
    gradient = jax.grad(lambda box: giou(to_xyxy(box), to_xyxy(jnp.array([0.5, 0.5, 1e-13, 1e-12]))))(tiny)
    assert np.isfinite(gradient).all()


def test_gradient_of_giou_by_differences():
    a, b = jnp.array([0.3, 0.2, 0.6, 0.7]), jnp.array([0.4, 0.1, 0.9, 0.5])
    gradient = np.asarray(jax.grad(giou)(a, b))
    for i in range(4):
        step = np.zeros(4)
        step[i] = 1e-5
        difference = (oracle(a + step, b) - oracle(a - step, b)) / 2e-5
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-2)


def test_matching_costs_are_those_of_the_paper():
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(2, 6, 4)).astype(np.float32)
    labels = np.array([[0, 2, 1], [2, 2, -1]])
    boxes, targets = random_boxes((2, 6)), random_boxes((2, 3), seed=3)
    costs = np.asarray(SetLosses().costs(logits[None], boxes[None], labels, targets))[0]
    assert costs.shape == (2, 6, 3)
    probabilities = softmax(logits.astype(np.float64), axis=-1)
    for b, q, n in np.ndindex(2, 6, 3):
        if labels[b, n] < 0:
            continue
        overlapping = oracle(corners(boxes)[b, q], corners(targets)[b, n])
        distance = np.abs(boxes[b, q].astype(np.float64) - targets[b, n]).sum()
        expected = 5 * distance - probabilities[b, q, labels[b, n]] - 2 * overlapping
        np.testing.assert_allclose(costs[b, q, n], expected, atol=1e-5)
    assert np.isfinite(costs).all()
