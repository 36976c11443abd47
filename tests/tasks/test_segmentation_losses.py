"""Losses of segmentation against PyTorch, scikit-learn and loops over pixels; ignored pixels have no say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from jaxformer.tasks.losses import SMOOTH, dice, lovasz_softmax, pixel_cross_entropy

B, H, W, K = 3, 5, 4, 4


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(size=(B, H, W, K)).astype(np.float32)


@pytest.fixture(scope="module")
def classes():
    """The last image lacks a class, and each has pixels that are ignored."""
    rng = np.random.default_rng(1)
    classes = rng.integers(0, K, (B, H, W)).astype(np.int32)
    classes[2] = classes[2].clip(1)
    classes[rng.random((B, H, W)) < 0.25] = -1
    return classes


def softmax(logits):
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 0.0)])
def test_cross_entropy_is_that_of_torch(logits, classes, weights):
    import torch

    ours = jax.jit(lambda x: pixel_cross_entropy(x, classes, weights))(logits)
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(classes).long(),
        None if weights is None else torch.tensor(weights),
        ignore_index=-1,
        reduction="none",
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


def dice_by_definition(logits, classes):
    """Of one image, class by class, over the pixels that have one."""
    known = classes >= 0
    probabilities, classes = softmax(logits)[known], classes[known]
    losses = []
    for k in np.unique(classes):
        member = classes == k
        shared, areas = probabilities[member, k].sum(), probabilities[:, k].sum() + member.sum()
        losses.append(1 - (2 * shared + SMOOTH) / (areas + SMOOTH))
    return np.mean(losses) if losses else 0.0


def lovasz_by_definition(logits, classes):
    """Of one image: the Lovasz extension of 1 - IoU as a function of the set of wrong pixels (Berman et al., eq. 8, 9).

    With errors in falling order, each is times what 1 - IoU grows by when its pixel joins the wrong ones.
    """
    known = classes >= 0
    probabilities, classes = softmax(logits)[known], classes[known]
    losses = []
    for k in np.unique(classes):
        member = set(np.flatnonzero(classes == k))
        errors = np.where(classes == k, 1 - probabilities[:, k], probabilities[:, k])
        wrong, before, loss = set(), 0.0, 0.0
        for pixel in np.argsort(-errors, kind="stable"):
            wrong.add(pixel)
            jaccard = len(wrong) / len(member | wrong)
            loss += errors[pixel] * (jaccard - before)
            before = jaccard
        losses.append(loss)
    return np.mean(losses) if losses else 0.0


BY_DEFINITION = {dice: dice_by_definition, lovasz_softmax: lovasz_by_definition}


@pytest.mark.parametrize("loss", BY_DEFINITION, ids=lambda loss: loss.__name__)
def test_losses_of_regions_are_as_defined(logits, classes, loss):
    """Values, and gradients by differences of the definition."""
    ours = jax.jit(loss)(logits, classes)
    expected = [BY_DEFINITION[loss](*image) for image in zip(logits, classes)]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(loss(x, classes))))(logits)
    rng, step = np.random.default_rng(2), 1e-6
    for _ in range(3):
        way = rng.normal(size=logits.shape)
        ends = [
            sum(BY_DEFINITION[loss](*image) for image in zip(logits + sign * step * way, classes))
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(
            np.sum(gradient * way), (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-4
        )


def test_lovasz_of_sure_predictions_is_one_less_the_mean_iou(logits, classes):
    """It agrees with the set function at the corners of the cube (Berman et al., section 2.2)."""
    ours = jax.jit(lovasz_softmax)(1e4 * logits, classes)
    for loss, image, true in zip(ours, logits, classes):
        known = true >= 0
        there = np.unique(true[known])
        ious = jaccard_score(true[known], image.argmax(-1)[known], labels=there, average=None)
        np.testing.assert_allclose(loss, 1 - ious.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [dice, lovasz_softmax, pixel_cross_entropy], ids=lambda f: f.__name__)
def test_ignored_pixels_have_no_say(logits, classes, loss):
    ignored = (classes < 0)[..., None]
    ours, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(loss(x, classes))))(logits)
    other = jax.jit(lambda x: jnp.sum(loss(x, classes)))(np.where(ignored, logits[::-1] + 3, logits))
    np.testing.assert_allclose(ours, other, rtol=1e-6)
    assert not np.any(np.where(ignored, gradient, 0))
    assert np.any(gradient)


@pytest.mark.parametrize("loss", [dice, lovasz_softmax], ids=lambda loss: loss.__name__)
def test_an_image_of_ignored_pixels_has_no_loss(logits, loss):
    void = np.full((B, H, W), -1, np.int32)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(loss(x, void))))(logits)
    assert value == 0
    assert not np.any(gradient)


@pytest.mark.parametrize("loss", [dice, lovasz_softmax], ids=lambda loss: loss.__name__)
def test_the_best_prediction_has_no_loss(classes, loss):
    best = 50 * np.eye(K, dtype=np.float32)[classes.clip(0)]
    np.testing.assert_allclose(jax.jit(loss)(best, classes), 0, atol=1e-6)
