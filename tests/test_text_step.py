"""Steps of text models: the same on every layout, and however the batch is split."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.stepping import assert_close, gradient_of, take_steps
from helpers.tiny_tasks import CASES, outputs_of, params_of

from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.step import make_eval_step
from jaxformer.tasks.text_classification import TextClassification

LAYOUTS = {
    "one device, microbatches": {"devices": 1, "accumulate": 4},
    "data": {"accumulate": 2},
    "fsdp": {"mesh": {"fsdp": 8}},
    "tensor": {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}, "accumulate": 2},
    "pmap": {"mode": "pmap", "accumulate": 2},
}


def cross_entropy(logits, targets, mask, smoothing):
    """The mean over the mask, by distributions."""
    hot = optax.smooth_labels(jax.nn.one_hot(targets, logits.shape[-1]), smoothing)
    return jnp.sum(jnp.where(mask, optax.softmax_cross_entropy(logits, hot), 0)) / jnp.sum(mask)


@cache
def whole(name):
    """Loss and gradient of the whole batch on one device, written without task and step."""
    case = CASES[name]
    batch = case.uneven()
    rows = batch["example_mask"]
    mask = (batch["targets"] >= 0) & rows[:, None]

    def loss(params):
        outputs = outputs_of(case, params, batch)
        total = cross_entropy(outputs.logits, batch["targets"], mask, 0.1)
        if outputs.router is None:
            return total
        squares = jnp.square(jax.nn.logsumexp(outputs.logits, axis=-1))
        total += 0.01 * jnp.sum(jnp.where(mask, squares, 0)) / jnp.sum(mask)
        return total + sum(
            jnp.sum(x * rows) / jnp.sum(rows) for x in (outputs.router.balance, outputs.router.z)
        )

    return jax.device_get(jax.jit(jax.value_and_grad(loss))(params_of(name)))


def steps(name, batch, **kwargs):
    case = CASES[name]
    return take_steps(
        batch, model=case.model, task=case.task, variables={"params": params_of(name)}, **kwargs
    )


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *(("documents, experts", layout) for layout in LAYOUTS),
        *(("translation", layout) for layout in ("one device, microbatches", "fsdp", "pmap")),
        *(pytest.param("translation", layout, marks=pytest.mark.slow) for layout in ("data", "tensor")),
    ],
)
def test_the_gradient_is_the_whole_batchs(name, layout):
    loss, expected = whole(name)
    before, state, metrics = steps(name, CASES[name].uneven(), **LAYOUTS[layout])
    assert_close(gradient_of(before, state), expected, 1e-4)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(expected), rtol=1e-4)


def test_every_loss_stands_in_the_metrics():
    batch = CASES["documents, experts"].uneven()
    _, _, metrics = steps("documents, experts", batch, **LAYOUTS["data"])
    parts = [metrics[name] for name in ("cross_entropy", "z_loss", "balance", "router_z")]
    assert all(part > 0 for part in parts)
    np.testing.assert_allclose(metrics["loss"], sum(parts), rtol=1e-6)


def test_texts_are_mixed_before_they_are_split_into_microbatches():
    case, variables = CASES["classes"], {"params": params_of("classes")}
    task = TextClassification(mixup=0.4)
    found = {
        (mixup, accumulate): take_steps(
            case.uneven(), model=case.model, task=task if mixup else case.task, variables=variables,
            devices=1, accumulate=accumulate,
        )
        for mixup, accumulate in ((True, 1), (True, 2), (False, 1))
    }  # fmt: skip
    gradients = {key: gradient_of(before, state) for key, (before, state, _) in found.items()}
    assert_close(gradients[True, 2], gradients[True, 1], 1e-4)
    assert abs(found[True, 1][2]["loss"] - found[False, 1][2]["loss"]) > 1e-3


def evaluated(name, mode="jit", mesh=None, devices=8):
    """Sums and what is collected, by the compiled eval step."""
    case = CASES[name]
    layout = Layout(mode, make_mesh(mesh or {"data": -1}, jax.devices()[:devices]))
    step = layout.eval_step(make_eval_step(case.model, case.task, axis=layout.axis))
    params = params_of(name)
    params = jax.device_put(params, layout.shardings(State(params)).params)
    return jax.device_get(step({"params": params}, layout.shard_batch(case.uneven())))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What `Layout.shardings` looks at."""

    params: object


@cache
def on_one_device(name):
    return evaluated(name, devices=1)


@pytest.mark.parametrize(
    "layout", [{"mode": "pmap"}, {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}}], ids=["pmap", "jit"]
)
@pytest.mark.parametrize("name", ["documents, experts", "tags", "spans", "translation"])
def test_evaluations_are_the_same_on_every_layout(name, layout):
    sums, collected = evaluated(name, **layout)
    expected_sums, expected = on_one_device(name)
    assert sums.keys() == expected_sums.keys()
    for key, value in expected_sums.items():
        np.testing.assert_allclose(sums[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    assert collected.keys() == expected.keys()
    assert bool(expected.keys() - {"example_mask"}) == (
        name != "documents, experts"
    )  # of which rows are real
    mask = CASES[name].uneven()["example_mask"]
    for key, rows in expected.items():
        assert collected[key].shape == rows.shape
        np.testing.assert_allclose(collected[key][mask], rows[mask], rtol=1e-4, atol=1e-4, err_msg=key)


def test_an_examples_row_is_collected_where_it_stands_in_the_batch():
    """What is collected of a permuted batch is permuted alike."""
    case = CASES["tags"]
    batch, order = case.uneven(), np.random.default_rng(0).permutation(16)
    layout = Layout("pmap", make_mesh({"data": -1}))
    step = layout.eval_step(make_eval_step(case.model, case.task, axis=layout.axis))
    rows = {name: array[order] for name, array in batch.items()}
    variables = {"params": params_of("tags")}
    _, found = jax.device_get(step(variables, layout.shard_batch(batch)))
    _, permuted = jax.device_get(step(variables, layout.shard_batch(rows)))
    np.testing.assert_array_equal(permuted["likeliest"], found["likeliest"][order])
    np.testing.assert_array_equal(permuted["example_mask"], batch["example_mask"][order])
