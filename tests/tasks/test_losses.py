"""Losses against PyTorch and against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.nn import functional

from jaxformer.tasks import losses

B, K = 16, 7


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    return rng.normal(0, 4, (B, K)).astype(np.float32), rng.integers(0, K, B, dtype=np.int32)


def softmax64(logits):
    exponent = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_softmax_cross_entropy_is_pytorchs(examples, smoothing):
    logits, labels = examples
    found = losses.softmax_loss(jnp.asarray(logits), losses.targets(labels, K, smoothing))
    expected = functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels).long(), label_smoothing=smoothing, reduction="none"
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid_cross_entropy_is_pytorchs(examples, smoothing):
    logits, labels = examples
    found = losses.sigmoid_loss(jnp.asarray(logits), losses.targets(labels, K, smoothing))
    targets = np.full((B, K), smoothing / K, np.float32)  # timm.loss.BinaryCrossEntropy's on and off values
    targets[np.arange(B), labels] = 1 - smoothing + smoothing / K
    expected = functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(targets), reduction="none"
    ).sum(-1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_softmax_focal_is_the_formula(examples, gamma):
    logits, labels = examples
    p = softmax64(logits)[np.arange(B), labels]
    found = losses.softmax_loss(jnp.asarray(logits), losses.targets(labels, K), gamma)
    np.testing.assert_allclose(found, -((1 - p) ** gamma) * np.log(p), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_sigmoid_focal_is_the_formula(examples, gamma):
    logits, labels = examples
    positive = np.eye(K)[labels].astype(bool)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    p = np.where(positive, p, 1 - p)
    found = losses.sigmoid_loss(jnp.asarray(logits), losses.targets(labels, K), gamma)
    np.testing.assert_allclose(found, (-((1 - p) ** gamma) * np.log(p)).sum(-1), rtol=1e-4)


def test_focal_with_gamma_0_is_the_cross_entropy(examples):
    logits, labels = examples
    targets = losses.targets(labels, K, 0.1)
    found = losses.softmax_loss(jnp.asarray(logits), targets, 0.0)
    np.testing.assert_allclose(found, losses.softmax_loss(jnp.asarray(logits), targets), rtol=1e-5)


LOSSES = {
    "softmax": losses.softmax_loss,
    "sigmoid": losses.sigmoid_loss,
    "focal": lambda logits, targets: losses.softmax_loss(logits, targets, 2.0),
    "focal under 1": lambda logits, targets: losses.softmax_loss(logits, targets, 0.5),
    "sigmoid focal": lambda logits, targets: losses.sigmoid_loss(logits, targets, 2.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_certain_answers_have_finite_losses_and_gradients(name):
    logits = jnp.asarray([[200.0, -200, 0], [-200, 200, 0], [0, 0, 0]])
    targets = losses.targets(jnp.asarray([0, 0, 0]), 3)
    values, gradients = jax.jit(
        lambda x: (LOSSES[name](x, targets), jax.grad(lambda x: LOSSES[name](x, targets).sum())(x))
    )(logits)
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    assert values[1] > values[2] > values[0] - 1  # wrong, undecided, right (of which sigmoid losses ask more)


@pytest.mark.parametrize("name", LOSSES)
def test_logits_in_half_precision_are_summed_in_float32(name, examples):
    logits, labels = examples
    half = jnp.asarray(logits, jnp.bfloat16)
    found = LOSSES[name](half, losses.targets(labels, K))
    assert (found.dtype, found.shape) == (jnp.float32, (B,))
    expected = LOSSES[name](half.astype(jnp.float32), losses.targets(labels, K))
    np.testing.assert_array_equal(found, expected)


def test_smoothed_targets_are_distributions(examples):
    _, labels = examples
    targets = np.asarray(losses.targets(labels, K, 0.3))
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(targets.argmax(-1), labels)
    np.testing.assert_allclose(targets.min(-1), 0.3 / K, rtol=1e-6)


T, V = 6, 9


@pytest.fixture(scope="module")
def tokens():
    """Logits [B, T, V] and targets, a third of them -1."""
    rng = np.random.default_rng(1)
    targets = rng.integers(0, V, (B, T), dtype=np.int32)
    return rng.normal(0, 4, (B, T, V)).astype(np.float32), np.where(rng.random((B, T)) < 0.3, -1, targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_token_cross_entropy_is_pytorchs(tokens, smoothing):
    """Values and gradients, with ignore_index and label smoothing; weighted, so that no error cancels."""
    logits, targets = tokens
    weights = np.random.default_rng(2).normal(size=(B, T)).astype(np.float32)

    def total(logits):
        found = losses.token_cross_entropy(logits, targets, smoothing)
        return jnp.sum(weights * found), found

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(logits)
    reference = torch.tensor(logits, requires_grad=True)
    expected = functional.cross_entropy(
        reference.swapaxes(1, 2),
        torch.tensor(targets).long(),
        label_smoothing=smoothing,
        ignore_index=-1,
        reduction="none",
    )
    (torch.tensor(weights) * expected).sum().backward()
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, reference.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert (found[targets < 0] == 0).all()
    assert (gradient[targets < 0] == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_cross_entropy_is_the_one_with_distributions(tokens, smoothing):
    logits, targets = tokens
    distributions = losses.targets(jnp.maximum(targets, 0).reshape(-1), V, smoothing).reshape(B, T, V)
    expected = jnp.where(targets >= 0, optax.softmax_cross_entropy(logits, distributions), 0)
    found = losses.token_cross_entropy(jnp.asarray(logits), jnp.asarray(targets), smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_token_cross_entropy_is_in_float32_and_finite_for_certain_answers(tokens):
    logits, targets = tokens
    half = jnp.asarray(logits, jnp.bfloat16)
    found = losses.token_cross_entropy(half, jnp.asarray(targets))
    assert (found.dtype, found.shape) == (jnp.float32, (B, T))
    np.testing.assert_array_equal(
        found, losses.token_cross_entropy(half.astype(jnp.float32), jnp.asarray(targets))
    )
    certain = jnp.asarray([[[1e4, -1e4, 0.0], [-1e4, 1e4, 0], [jnp.nan, 0, 0]]])
    values = losses.token_cross_entropy(certain, jnp.asarray([[0, 0, -1]]))
    np.testing.assert_allclose(values, [[0, 2e4, 0]])
