"""Tasks over text: any split of a batch adds up to it, and neither padding rows nor padded places have a say."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.tiny_tasks import CASES, outputs_of, params_of, rows_of

from jaxformer.tasks import TASKS

PARTS = [slice(first, first + 4) for first in range(0, 16, 4)]


@cache
def compiled(name):
    """(params, batch, counts) -> all that a task adds up, and the gradient of the losses over `counts`."""
    case = CASES[name]

    def of(params, batch, counts):
        def loss(params):
            outputs = outputs_of(case, params, batch)
            losses = case.task.loss(outputs, batch)
            sums = {
                "counts": case.task.counts(batch),
                "loss": losses,
                "metrics": case.task.metrics(outputs, batch),
                "eval": case.task.eval_sums(outputs, batch),
            }
            return sum(total / counts[name] for name, total in losses.items()), sums

        return jax.grad(loss, has_aux=True)(params)

    return jax.jit(of)


def ones(name):
    return dict.fromkeys(CASES[name].task.counts(CASES[name].batch(2)), 1.0)


def assert_close(found, expected, rtol=1e-5):
    """Leaf by leaf; what is rounding beside the whole tree counts as nothing."""
    floor = 1e-6 * float(optax.tree.norm(jax.tree.map(lambda x: np.asarray(x, np.float64), expected)))
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=floor, err_msg=jax.tree_util.keystr(path))


PICTURES = {"Classification", "Detection", "Segmentation"}


def test_all_tasks_over_text_are_here():
    classes = {type(case.task).__name__ for case in CASES.values()}
    assert classes == {where.split(":")[1] for where in TASKS.values()} - PICTURES


@pytest.mark.parametrize("name", CASES)
def test_unequal_parts_add_up_to_the_batch(name):
    params, batch = params_of(name), CASES[name].uneven()
    _, whole = compiled(name)(params, batch, ones(name))
    counts = whole["counts"]
    gradient, _ = compiled(name)(params, batch, counts)
    found = [compiled(name)(params, rows_of(batch, part), counts) for part in PARTS]
    gradients, sums = (
        jax.tree.map(lambda *x: sum(np.asarray(y, np.float64) for y in x), *f) for f in zip(*found)
    )
    assert_close(sums, whole)
    assert_close(gradients, gradient, 1e-4)
    # The parts are unequal enough to tell: the mean of their means is another number.
    key = next(iter(whole["loss"]))
    means = [s["loss"][key] / max(float(s["counts"][key]), 1) for _, s in found]
    mean = float(whole["loss"][key] / counts[key])
    assert abs(np.mean(means) - mean) > 0.01 * mean
    assert found[0][1]["counts"][key] == 0
    assert optax.tree.norm(found[0][0]) == 0


@pytest.mark.parametrize("name", CASES)
def test_padding_rows_have_no_say(name):
    """Whatever stands in them, and even if the model gives NaN for them."""
    case, params, batch = CASES[name], params_of(name), CASES[name].uneven()
    mask, other = batch["example_mask"], case.batch(16, seed=9)
    garbage = {
        key: np.where(mask.reshape(-1, *(1,) * (array.ndim - 1)), array, other[key])
        if key in other
        else array
        for key, array in batch.items()
    }
    assert any((garbage[key] != batch[key]).any() for key in other)
    expected = compiled(name)(params, batch, ones(name))
    assert_close(compiled(name)(params, garbage, ones(name)), expected)

    outputs = jax.jit(lambda params: outputs_of(case, params, batch))(params)
    broken = jax.tree.map(lambda x: jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.nan), outputs)
    sums = expected[1]
    assert_close(case.task.loss(broken, batch), sums["loss"])
    assert_close(case.task.eval_sums(broken, batch), sums["eval"])
    assert_close(case.task.metrics(broken, batch), sums["metrics"])


@pytest.mark.parametrize("name", CASES)
def test_a_batch_without_padding_rows_needs_no_mask(name):
    case, params, batch = CASES[name], params_of(name), CASES[name].uneven()
    mask = batch["example_mask"]
    outputs = jax.jit(lambda params: outputs_of(case, params, batch))(params)
    real = rows_of({key: array for key, array in batch.items() if key != "example_mask"}, mask)
    of_real = jax.tree.map(lambda x: x[mask], outputs)
    for function in (case.task.loss, case.task.eval_sums, case.task.metrics):
        assert_close(function(of_real, real), function(outputs, batch))
    assert_close(case.task.counts(real), case.task.counts(batch))


@pytest.mark.parametrize("name", CASES)
def test_padded_places_have_no_say(name):
    """Other tokens where there is padding change nothing: losses, metrics, gradients (those tokens' rows apart)."""
    params, batch = params_of(name), CASES[name].uneven()
    real = next(batch[key] > 0 for key in ("token_mask", "segment_ids", "tokens") if key in batch)
    changed = {**batch, "tokens": np.where(~real, 5, batch["tokens"]).astype(np.int32)}
    if "decoder_tokens" in batch:
        after = batch["targets"] < 0
        changed["decoder_tokens"] = np.where(after, 7, batch["decoder_tokens"]).astype(np.int32)
    assert (changed["tokens"] != batch["tokens"]).any()
    found, expected = (compiled(name)(params, b, ones(name)) for b in (changed, batch))
    assert_close(found[1], expected[1])
    assert_close(found[0], expected[0], 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_an_examples_error_is_its_own(name):
    """It does not depend on its neighbours, and a better answer has a smaller one."""
    case, params, batch = CASES[name], params_of(name), CASES[name].batch()
    errors = jax.jit(lambda b: case.task.errors(outputs_of(case, params, b), b))
    found, others = errors(batch), case.batch(seed=9)
    half = np.arange(16) % 2 == 0
    mixed = {
        key: np.where(half.reshape(-1, *(1,) * (array.ndim - 1)), array, others[key])
        for key, array in batch.items()
    }
    assert (found.shape, found.dtype) == ((16,), jnp.float32)
    np.testing.assert_allclose(errors(mixed)[half], found[half], rtol=1e-4, atol=1e-6)
    assert np.ptp(found[half]) > 0
    assert (np.asarray(found) >= 0).all()
