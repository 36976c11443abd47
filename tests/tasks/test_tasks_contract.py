"""Every task: any split of a batch adds up to it, and neither padding rows nor padded places have a say."""

import json
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.tiny_tasks import CASES, EVERY, IMAGE_CASES, outputs_of, params_of, rows_of

from jaxformer.config.reference import reference
from jaxformer.config.schema import load, problems
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import TASKS

PARTS = [slice(first, first + 4) for first in range(0, 16, 4)]


@cache
def compiled(name):
    """(params, batch, counts) -> all that a task adds up, and the gradient of the losses over `counts`."""
    case = EVERY[name]

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


@cache
def outputs_of_uneven(name):
    """The model's outputs for a task's uneven batch."""
    case = EVERY[name]
    return jax.jit(lambda params: outputs_of(case, params, case.uneven()))(params_of(name))


@cache
def sums_of(name):
    """(outputs, batch) -> what a task adds up; as one program it takes a third of the time of its operations."""
    task = EVERY[name].task

    def of(outputs, batch):
        return {
            "counts": task.counts(batch),
            "loss": task.loss(outputs, batch),
            "metrics": task.metrics(outputs, batch),
            "eval": task.eval_sums(outputs, batch),
        }

    return jax.jit(of)


def ones(name):
    return dict.fromkeys(EVERY[name].task.counts(EVERY[name].batch(2)), 1.0)


def assert_close(found, expected, rtol=1e-5):
    """Leaf by leaf; what is rounding beside the whole tree counts as nothing."""
    floor = 1e-6 * float(optax.tree.norm(jax.tree.map(lambda x: np.asarray(x, np.float64), expected)))
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=floor, err_msg=jax.tree_util.keystr(path))


def test_all_tasks_are_here():
    classes = {type(case.task).__name__ for case in EVERY.values()}
    assert classes == {where.split(":")[1] for where in TASKS.values()}


@pytest.mark.parametrize("name", [name for name, case in EVERY.items() if not case.task.compares])
def test_unequal_parts_add_up_to_the_batch(name):
    params, batch = params_of(name), EVERY[name].uneven()
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


def by_rows(function, outputs):
    """`function` of all arrays of outputs that have rows; the parameters of a language model's head have none."""
    head = outputs.head if isinstance(outputs, TextOutputs) else None
    if head is None:
        return jax.tree.map(function, outputs)
    rest = jax.tree.map(function, outputs.replace(head=None))
    return rest.replace(head=head.replace(seen=function(head.seen)))


@pytest.mark.parametrize("name", EVERY)
def test_padding_rows_have_no_say(name):
    """Whatever stands in them, and even if the model gives NaN for them."""
    case, params, batch = EVERY[name], params_of(name), EVERY[name].uneven()
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

    outputs = outputs_of_uneven(name)
    broken = by_rows(lambda x: jnp.where(case.of_rows(mask, x), x, jnp.nan), outputs)
    assert_close(sums_of(name)(broken, batch), expected[1])


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_without_padding_rows_needs_no_mask(name):
    case, batch = EVERY[name], EVERY[name].uneven()
    mask = batch["example_mask"]
    outputs = outputs_of_uneven(name)
    real = rows_of({key: array for key, array in batch.items() if key != "example_mask"}, mask)
    of_real = by_rows(lambda x: jnp.compress(mask, x, axis=case.axis), outputs)
    assert_close(sums_of(name)(of_real, real), sums_of(name)(outputs, batch))


@pytest.mark.parametrize("name", CASES)
def test_padded_places_have_no_say(name):
    """Other tokens where there is padding change nothing: losses, metrics, gradients (those tokens' rows apart)."""
    params, batch = params_of(name), EVERY[name].uneven()
    real = next(batch[key] > 0 for key in ("token_mask", "segment_ids", "tokens") if key in batch)
    changed = {**batch, "tokens": np.where(~real, 5, batch["tokens"]).astype(np.int32)}
    if "decoder_tokens" in batch:
        after = batch["targets"] < 0
        changed["decoder_tokens"] = np.where(after, 7, batch["decoder_tokens"]).astype(np.int32)
    assert (changed["tokens"] != batch["tokens"]).any()
    found, expected = (compiled(name)(params, b, ones(name)) for b in (changed, batch))
    assert_close(found[1], expected[1])
    assert_close(found[0], expected[0], 1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_an_examples_error_is_its_own(name):
    """It does not depend on its neighbours, and a better answer has a smaller one."""
    case, params, batch = EVERY[name], params_of(name), EVERY[name].batch()
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


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode(self, ids, skip_special=True):
        return "".join("abcdefghijklmnop"[int(i)] for i in ids)


@pytest.mark.parametrize("name", EVERY)
def test_predictions_in_words_are_json(name):
    """For the report of any task, and of images as `predict` prints them."""
    case, params, batch = EVERY[name], params_of(name), EVERY[name].batch()
    about = SimpleNamespace(class_names=["O", "B-place"], tokenizer=Letters())
    batch.setdefault("token_mask", np.ones_like(batch.get("tokens", np.zeros(16)), bool))
    variables = {"params": params}
    shown = lambda b: case.task.shown(outputs_of(case, params, b), b, case.model, variables)  # noqa: E731
    predicted = jax.jit(shown)(batch)
    predicted = jax.device_get(predicted)
    for row in range(3):
        example, found = rows_of(batch, row), rows_of(predicted, row)
        sample = case.task.sample(example, found, about)
        assert sample["correct"] in (True, False, None)
        json.dumps(sample, allow_nan=False)
        if name in IMAGE_CASES:
            assert ("text" in sample, case.task.modality) == (False, "image")
            answer = case.task.answers(found, {**example, "original_size": (64, 64)}, about, top=2)
            json.dumps(answer, allow_nan=False)
            drawn = case.task.draw(
                np.zeros((64, 64, 3), np.uint8), answer, found, {**example, "original_size": (64, 64)}
            )
            assert set(drawn) == ({"", *case.task.written} if case.task.reads else set())
            for image in case.task.compare(example, found, sample).values():
                assert image.dtype == np.uint8
        else:
            assert isinstance(sample["text"], str)
            assert case.task.modality == "text"


@pytest.mark.parametrize("where", TASKS.values(), ids=TASKS)
def test_defaults_are_valid_and_every_field_is_documented(where):
    kind = load(where)
    assert not list(problems(kind()))
    assert all(field.doc for field in reference(kind))
