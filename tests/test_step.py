"""The train step gives the whole batch's gradient, however the batch is split."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import stepping
from helpers.stepping import assert_close, gradient_of

from jaxformer.config import schema
from jaxformer.models.resnet import ResNet
from jaxformer.models.vit import ViT
from jaxformer.optim import OPTIMIZERS
from jaxformer.optim.build import make_optimizer
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.precision import LossScale
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step, moving_average
from jaxformer.tasks.classification import Classification

ROWS = 32
VIT = ViT(image_size=8, patch_size=4, width=16, depth=2, num_heads=2, mlp_dim=32, num_classes=10, scan=True)
TASK = Classification(mean=(0.5,), std=(0.5,), label_smoothing=0.1)


@pytest.fixture(scope="module")
def batch():
    """Images and labels; the first devices' rows are mostly padding, the last ones' are not."""
    rng = np.random.default_rng(0)
    mask = np.arange(ROWS) % 4 < np.repeat([1, 4, 2, 3, 4, 1, 4, 4], 4)
    image = rng.integers(0, 256, (ROWS, 8, 8, 1), dtype=np.uint8)
    return {"image": image, "labels": rng.integers(0, 10, ROWS, dtype=np.int32), "example_mask": mask}


@cache
def variables_of(model, batch_size=2):
    """Variables that are all random (a fresh head is zero, which would hide what is behind it)."""
    image = {"image": jnp.zeros((batch_size, 8, 8, 1))}

    def init():
        variables = init_variables(model, image, jax.random.key(1))
        leaves, tree = jax.tree.flatten(variables["params"])
        keys = jax.random.split(jax.random.key(2), len(leaves))
        noisy = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys)]
        return {**variables, "params": jax.tree.unflatten(tree, noisy)}

    return jax.device_get(jax.jit(init)())


def start(model, optimizer, **kwargs):
    """The state before the first step, on the host."""
    return jax.device_get(init_state(variables_of(model), optimizer, **kwargs))


def take_steps(batch, *, model=VIT, **kwargs):
    """The state before and after some steps, and the last metrics."""
    return stepping.take_steps(batch, model=model, task=TASK, variables=variables_of(model), **kwargs)


def gradient(*args, **kwargs):
    """The gradient that a step takes, and its metrics."""
    before, state, metrics = take_steps(*args, **kwargs)
    return gradient_of(before, state), metrics


@pytest.fixture(scope="module")
def whole(batch):
    """The gradient of the whole batch on one device, written without the train step."""
    state = start(VIT, optax.sgd(1.0))

    def loss(params):
        outputs = VIT.apply({"params": params}, **TASK.inputs(batch), deterministic=True)
        targets = optax.smooth_labels(jax.nn.one_hot(batch["labels"], 10), 0.1)
        losses = optax.softmax_cross_entropy(outputs.logits, targets)
        return jnp.sum(losses * batch["example_mask"]) / batch["example_mask"].sum()

    return jax.jit(jax.value_and_grad(loss))(state.params)


@pytest.mark.parametrize(
    ("mode", "devices", "accumulate"),
    [
        ("jit", 1, 1),
        ("jit", 8, 1),
        ("pmap", 8, 1),
        ("jit", 1, 4),
        ("jit", 8, 4),
        ("pmap", 8, 4),
        ("pmap", 2, 2),
    ],
)
def test_the_gradient_is_the_whole_batchs(batch, whole, mode, devices, accumulate):
    loss, expected = whole
    found, metrics = gradient(batch, mode=mode, devices=devices, accumulate=accumulate)
    assert_close(found, jax.device_get(expected), 1e-5)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("mesh", "scan"),
    [
        ({"fsdp": 8}, False),
        ({"data": 2, "fsdp": 2, "tensor": 2}, True),
        ({"tensor": 2, "data": -1}, False),
    ],
)
def test_layouts_train_alike(batch, mesh, scan):
    taken = {"model": VIT.clone(scan=scan), "optimizer": optax.sgd(0.1, momentum=0.9), "count": 3}
    _, one, expected = take_steps(batch, devices=1, **taken)
    _, many, found = take_steps(batch, mesh=mesh, **taken)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    assert_close(jax.device_get(many.params), jax.device_get(one.params), 1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_statistics_are_those_of_all_devices(batch, accumulate):
    model = ResNet(stage_sizes=(1, 1), width=8, num_classes=10, block="basic", norm="batch", stem="small")
    everyone = {**batch, "example_mask": np.ones(ROWS, bool)}
    _, one, _ = take_steps(everyone, model=model, devices=1, accumulate=accumulate)
    before, many, _ = take_steps(everyone, model=model, devices=8, accumulate=accumulate)
    assert_close(jax.device_get(many.model_state), jax.device_get(one.model_state), 1e-5)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - np.asarray(b)).max() > 0, before.model_state, one.model_state
    )
    assert all(jax.tree.leaves(moved))
    if accumulate == 1:
        _, mapped, _ = take_steps(everyone, model=model, mode="pmap")
        assert_close(jax.device_get(mapped.model_state), jax.device_get(one.model_state), 1e-5)
        assert_close(jax.device_get(mapped.params), jax.device_get(one.params), 1e-4)


def test_a_gradient_that_is_not_finite_moves_nothing_but_the_counters(batch):
    broken = {**batch, "image": np.full((ROWS, 8, 8, 1), np.nan, np.float32)}
    before, state, metrics = take_steps(
        broken, optimizer=optax.adam(0.1), average=moving_average(0.9), count=2
    )
    for name in ("params", "opt_state", "average", "model_state"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(before, name), jax.device_get(getattr(state, name))
        )
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (2, 2, 2)
    assert metrics["update_norm"] == 0


def test_statistics_that_are_not_finite_move_nothing_either(batch):
    """Training does not read them, so that loss and gradient stay finite."""
    model = ResNet(stage_sizes=(1, 1), width=8, num_classes=10, block="basic", norm="batch", stem="small")
    variables = variables_of(model)
    broken = variables | {
        "batch_stats": jax.tree.map(lambda x: np.full_like(x, np.inf), variables["batch_stats"])
    }
    before, state, metrics = stepping.take_steps(batch, model=model, task=TASK, variables=broken, devices=1)
    assert np.isfinite([metrics["gradient_norm"], metrics["loss"]]).all()
    jax.tree.map(np.testing.assert_array_equal, before.params, jax.device_get(state.params))
    assert int(state.skipped) == 1


def test_a_good_step_ends_the_row_of_skipped_ones(batch):
    layout = Layout("jit", make_mesh({"data": -1}, jax.devices()[:1]))
    optimizer = optax.with_extra_args_support(optax.sgd(0.1))
    state = start(VIT, optimizer)
    step = jax.jit(make_train_step(VIT, TASK, optimizer, seed=0))
    image = batch["image"].astype(np.float32)
    for nan in (True, True, False):
        state, _ = step(
            state, layout.shard_batch({**batch, "image": image * np.float32(np.nan if nan else 1)})
        )
    assert (int(state.skipped), int(state.skipped_in_a_row)) == (2, 0)


def test_the_average_of_parameters(batch):
    average = moving_average(0.75, warmup=False)
    before, state, _ = take_steps(batch, devices=1, optimizer=optax.sgd(0.5), average=average)
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * np.asarray(new), before.params, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), state.average, expected)


def test_float16_scales_the_loss_and_undoes_it(batch):
    _, plain, _ = take_steps(batch, devices=1)
    _, scaled, metrics = take_steps(batch, devices=1, loss_scale=True)
    assert metrics["loss_scale"] == LossScale.INITIAL
    assert_close(jax.device_get(scaled.params), jax.device_get(plain.params), 1e-5)


def test_the_loss_scale_halves_and_doubles():
    scale = LossScale.create()
    assert float(scale.adjust(jnp.bool_(False)).scale) == LossScale.INITIAL / 2
    almost = scale.replace(good_steps=jnp.int32(LossScale.DOUBLE_AFTER - 2)).adjust(jnp.bool_(True))
    assert float(almost.scale) == LossScale.INITIAL
    after = almost.adjust(jnp.bool_(True))
    assert (float(after.scale), int(after.good_steps)) == (2 * LossScale.INITIAL, 0)


def test_what_is_not_trainable_gets_no_gradient(batch):
    trainable = jax.tree.map(lambda _: True, variables_of(VIT)["params"])
    trainable["patch_embedding"] = jax.tree.map(lambda _: False, trainable["patch_embedding"])
    found, _ = gradient(batch, trainable=trainable)
    assert not any(np.any(g) for g in jax.tree.leaves(found["patch_embedding"]))
    assert np.any(found["head"]["kernel"])


def test_regularization_is_added_once(batch):
    plain, _ = gradient(batch)

    def penalty(params):
        return {"l2": 0.01 * optax.tree.norm(params, squared=True)}

    for kwargs in ({"accumulate": 4}, {"mode": "pmap"}):
        found, metrics = gradient(batch, regularization=penalty, **kwargs)
        before, _, _ = take_steps(batch)
        expected = jax.tree.map(lambda g, p: g + 0.02 * p, plain, before.params)
        assert_close(found, expected, 1e-5)
        assert metrics["l2"] > 0


def test_randomness_comes_from_seed_and_step(batch):
    model = VIT.clone(dropout=0.5)
    runs = [{"devices": 1}, {"devices": 8}, {"devices": 1, "count": 2}]
    losses = [take_steps(batch, model=model, optimizer=optax.sgd(0.0), **run)[2]["loss"] for run in runs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)  # the same masks on 1 and 8 devices
    assert abs(losses[0] - losses[2]) > 1e-3  # other masks in the next step


def test_bfloat16_is_the_same_on_every_layout(batch):
    model = VIT.clone(dtype=jnp.bfloat16)
    one, _ = gradient(batch, model=model, devices=1)
    for layout in ({"devices": 8}, {"mode": "pmap"}, {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}}):
        many, _ = gradient(batch, model=model, **layout)
        assert_close(many, one, 3e-2)  # bfloat16 has 8 bits: 4e-3 a rounding


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_of_real_models(name, batch):
    config = schema.load(OPTIMIZERS[name])(learning_rate=1.0 if name == "prodigy" else 1e-2)
    params = variables_of(VIT)["params"]
    optimizer = make_optimizer(config, lambda step: config.learning_rate, params)
    losses = [take_steps(batch, devices=1, optimizer=optimizer, count=count)[2]["loss"] for count in (1, 6)]
    assert losses[1] < losses[0]
