"""A loss that compares all examples of a batch: the same gradient on one device and on many, at once and by cached
gradients."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import stepping
from helpers.stepping import assert_close, gradient_of
from helpers.tiny_tasks import EVERY, captions, towers

from jaxformer.models.resnet import ResNet
from jaxformer.state import init_variables
from jaxformer.tasks.contrastive import Contrastive

ROWS = 32
CLIP = Contrastive(same="text", chunks=2)
SIGLIP = Contrastive(loss_name="sigmoid", chunks=2)
MODEL = towers(bias=-1.0, scale=4.0)


def pairs():
    """Pairs, of which some texts are equal; of the first devices most rows are padding, of the last ones none."""
    mask = np.arange(ROWS) % 4 < np.repeat([1, 4, 2, 3, 4, 1, 4, 4], 4)
    return {**captions(np.random.default_rng(0), ROWS), "example_mask": mask}


@pytest.fixture(scope="module")
def batch():
    return pairs()


@cache
def variables_of(model):
    """Variables that are all random."""
    inputs = EVERY["pairs"].inputs

    def init():
        variables = init_variables(model, inputs, jax.random.key(1))
        leaves, tree = jax.tree.flatten(variables["params"])
        keys = jax.random.split(jax.random.key(2), len(leaves))
        noisy = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys)]
        return {**variables, "params": jax.tree.unflatten(tree, noisy)}

    return jax.device_get(jax.jit(init)())


def take_steps(batch, *, task=CLIP, model=MODEL, variables=None, **kwargs):
    variables = variables or variables_of(model)
    return stepping.take_steps(batch, model=model, task=task, variables=variables, **kwargs)


def whole_loss(task, outputs, batch):
    """The loss of the whole batch, written without the task: every pair of real rows."""
    real = np.flatnonzero(batch["example_mask"])
    scores = (outputs.scale[0] * outputs.image @ outputs.text.T + outputs.bias[0])[jnp.ix_(real, real)]
    if task.loss_name == "sigmoid":
        return jnp.sum(jnp.logaddexp(0, -scores * (2 * np.eye(len(real)) - 1))) / len(real)
    same = batch["caption"][real][:, None] == batch["caption"][real][None, :]
    targets = same / same.sum(1, keepdims=True)
    losses = [optax.softmax_cross_entropy(s, jnp.asarray(targets, jnp.float32)) for s in (scores, scores.T)]
    return jnp.mean(jnp.stack(losses))


@cache
def whole(task):
    """params -> (loss, cosines [B, B] of images and texts), gradient, of the pairs."""
    batch = pairs()

    def loss(params):
        outputs = MODEL.apply({"params": params}, **task.inputs(batch), deterministic=True)
        near = outputs.image @ outputs.text.T
        return whole_loss(task, outputs, batch), near

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize(
    ("task", "mode", "devices", "accumulate"),
    [
        (CLIP, "jit", 1, 1),
        pytest.param(CLIP, "jit", 8, 1, marks=pytest.mark.slow),
        (CLIP, "pmap", 8, 1),
        (CLIP, "jit", 8, 4),
        pytest.param(CLIP, "pmap", 2, 2, marks=pytest.mark.slow),
        pytest.param(SIGLIP, "jit", 1, 4, marks=pytest.mark.slow),
        pytest.param(SIGLIP, "pmap", 8, 1, marks=pytest.mark.slow),
        (SIGLIP, "pmap", 8, 4),
    ],
)
def test_the_gradient_is_the_whole_batchs(batch, task, mode, devices, accumulate):
    (loss, near), expected = whole(task)(variables_of(MODEL)["params"])
    before, state, metrics = take_steps(batch, task=task, mode=mode, devices=devices, accumulate=accumulate)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert_close(gradient_of(before, state), jax.device_get(expected), 1e-5)
    real = np.flatnonzero(batch["example_mask"])
    caption, near = batch["caption"][real], np.asarray(near)[np.ix_(real, real)]
    right = np.mean(caption[near.argmax(1)] == caption)
    assert 0 < right < 1
    np.testing.assert_allclose(metrics["accuracy"], right, rtol=1e-6)


def test_both_passes_of_cached_gradients_drop_the_same(batch):
    """With other dropout in the second pass the gradient would not be that of the loss: it is compared with one that is
    taken at once, of the same microbatches with the same keys."""
    model = MODEL.clone(text=MODEL.text.clone(dropout=0.3))
    variables = variables_of(MODEL)  # dropout has none
    before, state, metrics = take_steps(batch, model=model, variables=variables, devices=1, accumulate=2)
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[1]
    keys = jax.random.split(key, 2)

    def loss(params):
        halves = [{name: array[i::2] for name, array in batch.items()} for i in range(2)]
        parts = [
            model.apply({"params": params}, **CLIP.inputs(half), rngs={"dropout": k}, deterministic=False)
            for half, k in zip(halves, (keys[0], keys[1]))
        ]
        outputs = jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *parts)
        return CLIP.loss(outputs, batch)["contrastive"] / batch["example_mask"].sum()

    value, expected = jax.jit(jax.value_and_grad(loss))(before.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    assert_close(gradient_of(before, state), jax.device_get(expected), 1e-5)


def test_the_second_pass_alone_moves_the_statistics(batch):
    """Once a microbatch, one after the other, as without a comparison."""
    cnn = ResNet(stage_sizes=(1,), width=8, num_classes=0, block="basic", norm="batch", stem="small")
    model, count = MODEL.clone(image=cnn), 4
    everyone = {**batch, "example_mask": np.ones(ROWS, bool)}
    variables = variables_of(model)
    _, state, _ = take_steps(everyone, model=model, devices=1, accumulate=count)
    expected, inputs = variables["batch_stats"], CLIP.inputs(everyone)
    move = jax.jit(
        lambda stats, part: model.apply(
            {**variables, "batch_stats": stats}, **part, deterministic=False, mutable=["batch_stats"]
        )[1]["batch_stats"]
    )
    for i in range(count):
        expected = move(expected, {name: array[i::count] for name, array in inputs.items()})
    assert_close(jax.device_get(state.model_state["batch_stats"]), jax.device_get(expected), 1e-5)
