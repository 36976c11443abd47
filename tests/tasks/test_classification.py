"""The task: any split of a batch adds up to it, padding has no say, and evaluations are scikit-learn's."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxformer.config.schema import load, resolve
from jaxformer.errors import UserError
from jaxformer.models.outputs import ImageOutputs, TextOutputs
from jaxformer.tasks import TASKS
from jaxformer.tasks.base import masked_sum
from jaxformer.tasks.classification import Classification

B, K = 24, 7
PARTS = [0, 3, 4, 14, 24]  # four unequal parts; the third has no example at all
KINDS = {
    "plain": Classification(),
    "smoothed": Classification(label_smoothing=0.1),
    "sigmoid": Classification(loss_name="sigmoid", label_smoothing=0.1),
    "focal": Classification(focal_gamma=2.0),
    "sigmoid focal": Classification(loss_name="sigmoid", focal_gamma=2.0),
}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    mask = rng.random(B) < 0.7
    mask[PARTS[1] : PARTS[2]] = False
    return {
        "image": rng.integers(0, 256, (B, 4, 4, 3), dtype=np.uint8),
        "labels": rng.integers(0, K, B, dtype=np.int32),
        "example_mask": mask,
    }


@pytest.fixture(scope="module")
def kernel():
    return np.random.default_rng(1).normal(size=(48, K)).astype(np.float32)


def model(kernel, task, batch):
    """A linear classifier."""
    image = task.inputs(batch)["image"]
    logits = image.reshape(len(image), -1) @ kernel
    return ImageOutputs(logits=logits, features=logits, tokens=logits)


def rows(batch, part):
    return {name: array[part] for name, array in batch.items()}


def parts(batch):
    return [rows(batch, slice(*ends)) for ends in itertools.pairwise(PARTS)]


def outputs_of(logits):
    return ImageOutputs(logits=jnp.asarray(logits), features=jnp.asarray(logits), tokens=jnp.asarray(logits))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_unequal_parts_add_up_to_the_batch(batch, kernel, kind, mixed):
    task = KINDS[kind]
    if mixed:
        batch = jax.device_get(dataclasses.replace(task, mixup=0.8).augment(jax.random.key(0), batch))

    def total(kernel, part):
        (value,) = task.loss(model(kernel, task, part), part).values()
        return value

    def mean(kernel):
        return total(kernel, batch) / batch["example_mask"].sum()

    gradient = jax.jit(jax.value_and_grad(total))
    (count,) = np.sum([list(task.counts(part).values()) for part in parts(batch)], axis=0)
    found = [gradient(kernel, part) for part in parts(batch)]
    loss, expected = jax.jit(jax.value_and_grad(mean))(kernel)
    assert count == batch["example_mask"].sum()
    np.testing.assert_allclose(sum(value for value, _ in found) / count, loss, rtol=1e-5)
    np.testing.assert_allclose(sum(g for _, g in found) / count, expected, rtol=1e-4, atol=1e-6)
    means = [value / max(part["example_mask"].sum(), 1) for (value, _), part in zip(found, parts(batch))]
    assert abs(np.mean(means) - loss) > 1e-3  # the parts are unequal enough to tell


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_say(batch, kind):
    task = KINDS[kind]
    logits = np.random.default_rng(2).normal(size=(B, K)).astype(np.float32)
    mask = batch["example_mask"]
    everything = jax.jit(
        lambda outputs, batch: {
            "counts": task.counts(batch),
            "loss": task.loss(outputs, batch),
            "metrics": task.metrics(outputs, batch),
            "eval": task.eval_sums(outputs, batch),
        }
    )
    broken = np.where(mask[:, None], logits, np.nan)
    labels = np.where(mask, batch["labels"], 10**6).astype(np.int32)
    found = everything(outputs_of(broken), {**batch, "labels": labels})
    only = {"labels": batch["labels"][mask]}  # a training batch: no mask
    expected = everything(outputs_of(logits[mask]), only)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_nan_in_padding_is_not_summed():
    values, mask = jnp.asarray([[1.0, 2], [jnp.nan, 3]]), jnp.asarray([True, False])
    np.testing.assert_array_equal(masked_sum(values, mask), [1, 2])  # not jitted: XLA may mend 0 * NaN


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_labels_weigh_in_the_loss(kind):
    task = KINDS[kind]
    rng = np.random.default_rng(3)
    outputs = outputs_of(rng.normal(size=(B, K)).astype(np.float32))
    a, b = rng.integers(0, K, (2, B), dtype=np.int32)
    weight = rng.random(B).astype(np.float32)

    @jax.jit
    @jax.vmap
    def losses(logits, label):
        (value,) = task.loss(outputs_of(logits[None]), {"labels": label[None]}).values()
        return value

    (found,) = task.loss(outputs, {"labels": a, "mixed_labels": b, "mix_weight": weight}).values()
    np.testing.assert_allclose(
        found,
        np.sum(weight * losses(outputs.logits, a) + (1 - weight) * losses(outputs.logits, b)),
        rtol=1e-5,
    )


def test_the_accuracy_of_mixed_examples_is_of_the_label_that_weighs_more():
    outputs = outputs_of(np.eye(3, dtype=np.float32))
    labels, others = jnp.asarray([0, 0, 0]), jnp.asarray([1, 1, 1])
    weight = jnp.asarray([0.9, 0.1, 0.9])
    batch = {"labels": labels, "mixed_labels": others, "mix_weight": weight}
    right, count = Classification().metrics(outputs, batch)["accuracy"]
    assert (float(right), float(count)) == (2, 3)


def evaluated(task, logits, labels, class_names=None, size=16):
    """As the evaluator does it: padded batches, added up."""
    totals = None
    for first in range(0, len(labels), size):
        part = slice(first, first + size)
        real = len(labels[part])
        padded = np.zeros((size, logits.shape[-1]), np.float32)
        padded[:real] = logits[part]
        batch = {
            "labels": np.pad(labels[part], (0, size - real)).astype(np.int32),
            "example_mask": np.arange(size) < real,
        }
        sums = jax.tree.map(np.float64, jax.device_get(jax.jit(task.eval_sums)(outputs_of(padded), batch)))
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
    return task.summarize(totals, {}, SimpleNamespace(class_names=class_names))


def test_an_evaluation_is_scikit_learns():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, K, 149)
    logits = (rng.normal(size=(149, K)) + 2 * np.eye(K)[labels]).astype(np.float32)
    names = [f"class {i}" for i in range(K)]
    evaluation = evaluated(Classification(label_smoothing=0.1), logits, labels, names)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    probabilities /= probabilities.sum(-1, keepdims=True)
    predicted = logits.argmax(-1)
    found = evaluation.metrics
    assert found["loss"] == pytest.approx(reference.log_loss(labels, probabilities), rel=1e-5)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["top5"] == pytest.approx(reference.top_k_accuracy_score(labels, logits, k=5))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert set(found) == set(Classification.metric_names)
    tables = json.loads(json.dumps(evaluation.tables, allow_nan=False))
    assert tables["confusion"] == reference.confusion_matrix(labels, predicted).tolist()
    expected = reference.classification_report(labels, predicted, target_names=names, output_dict=True)
    for row in tables["per_class"]:
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(
            list(expected[row["name"]].values())
        )
    assert sum(row["count"] for row in tables["calibration"]) == 149


def test_few_classes_have_no_top5_and_names_are_filled_up():
    evaluation = evaluated(Classification(), np.eye(4, dtype=np.float32), np.arange(4), ["cat", "dog"])
    assert "top5" not in evaluation.metrics
    for count in (4, 5, 6):
        given = set(
            evaluated(Classification(), np.eye(count, dtype=np.float32), np.arange(count), None).metrics
        )
        absent = Classification().absent_metrics(SimpleNamespace(num_classes=count), None)
        assert given == set(Classification.metric_names) - set(absent)
    assert evaluation.tables["class_names"] == ["cat", "dog", "2", "3"]
    assert [row["name"] for row in evaluation.tables["per_class"]] == ["cat", "dog", "2", "3"]


def test_images_are_normalised_as_torchvision_does(batch):
    task = Classification(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = (batch["image"] / 255.0 - np.array(task.mean)) / np.array(task.std)
    for image in (batch["image"], batch["image"].astype(np.float32)):
        found = jax.jit(task.inputs)({"image": image})["image"]
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_mean_is_for_all_channels(batch):
    one, each = Classification(mean=(0.3,), std=(0.2,)), Classification(mean=(0.3,) * 3, std=(0.2,) * 3)
    np.testing.assert_array_equal(one.inputs(batch)["image"], each.inputs(batch)["image"])


def spec(*image, classes=None):
    return SimpleNamespace(element_spec={"image": (image, np.dtype(np.uint8))}, class_names=classes)


@pytest.mark.parametrize(
    ("task", "train", "evaluation", "message"),
    [
        (
            {"mean": (0.5, 0.4, 0.3)},
            spec(8, 8, 1),
            spec(8, 8, 1),
            "task.mean=[0.5, 0.4, 0.3]: the images have 1 channels",
        ),
        ({}, spec(9, 9, 3), spec(9, 9, 3), "model.image_size=8: the training images are 9x9"),
        ({}, spec(8, 8, 3), spec(9, 8, 3), "data.eval_transforms give images of (9, 8, 3)"),
        (
            {},
            spec(8, 8, 3, classes=list("abcdef")),
            spec(8, 8, 3),
            "model.num_classes=5: the dataset has 6 classes",
        ),
    ],
)
def test_what_does_not_fit_is_named(task, train, evaluation, message):
    model = SimpleNamespace(kind="image", image_size=8, num_classes=5)
    (line,) = Classification(**task).fits(model, train, evaluation)
    assert line.startswith(message)
    text = SimpleNamespace(element_spec={"tokens": ((8,), np.dtype(np.int32))}, class_names=None)
    (line,) = Classification().fits(model, text, text)
    assert line.startswith("data.examples: batches have tokens, this task needs image")
    (line,) = Classification().fits(SimpleNamespace(kind="encoder"), spec(8, 8, 3), spec(8, 8, 3))
    assert "does not classify images" in line
    fine = spec(8, 8, 3, classes=list("abcde"))
    assert not list(Classification(mean=(0.5, 0.4, 0.3)).fits(model, fine, fine))


def test_images_of_another_size_are_to_be_resized():
    model = SimpleNamespace(kind="image", image_size=8, num_classes=5)
    (line,) = Classification().fits(model, spec(70, 61, 3), spec(70, 61, 3))
    assert line == (
        "model.image_size=8: the training images are 70x61 after data.transforms; "
        "end data.transforms and data.eval_transforms with dict(name='resize', size=8)"
    )
    (line,) = Classification().fits(model, spec(70, 70, 3), spec(70, 70, 3))
    assert line.endswith("with dict(name='resize', size=8), or set model.image_size=70 if all are so")


def test_classes_that_neither_the_config_nor_the_dataset_counts_are_asked_for():
    model = SimpleNamespace(kind="image", image_size=8, num_classes=None, sizes=("num_classes",))
    (line,) = Classification().fits(model, spec(8, 8, 3), spec(8, 8, 3))
    assert line == "model.num_classes: the dataset does not say how many classes it has; set it"


def test_labels_that_are_no_class_are_refused():
    with pytest.raises(UserError, match="the labels must be 0 to 4, a batch has 3 to 5"):
        Classification().check(SimpleNamespace(num_classes=5), {"labels": np.array([3, 5])})


def test_probabilities():
    logits = np.array([[0.0, np.log(3)], [5, 5]], np.float32)
    softmax = Classification().probabilities(outputs_of(logits))
    np.testing.assert_allclose(softmax, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)
    sigmoid = Classification(loss_name="sigmoid").probabilities(outputs_of(logits))
    np.testing.assert_allclose(sigmoid[0], [0.5, 0.75], rtol=1e-6)
    predicted = Classification().predictions(outputs_of(logits), {})
    np.testing.assert_array_equal(predicted["probabilities"], softmax)


def test_a_model_without_a_head_answers_nothing():
    """An image model gives no logits then, an encoder of texts its tokens [B, T, D] in their place."""
    tokens = jnp.zeros((2, 4, 3))
    for outputs in (ImageOutputs(None, tokens[:, 0], tokens), TextOutputs(tokens, tokens)):
        with pytest.raises(UserError, match="has no head"):
            Classification().predictions(outputs, {})


def test_an_error_is_how_sure_the_model_is_of_a_wrong_class():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.4, 0.3, 0.3]], np.float32))
    errors = Classification().errors(outputs_of(logits), {"labels": jnp.asarray([0, 1, 2])})
    np.testing.assert_allclose(errors, [0, 0.7, 0.4], rtol=1e-6)


def test_a_sample_has_the_likeliest_classes_by_their_names():
    data = SimpleNamespace(class_names=["cat", "dog"])
    probabilities = np.array([0.2, 0.25, 0.1, 0.05, 0.05, 0.35])
    sample = Classification().sample({"labels": np.int32(1)}, {"probabilities": probabilities}, data)
    assert json.loads(json.dumps(sample)) == {
        "correct": False,
        "label": "dog",
        "top": [
            {"class": "5", "probability": 0.35},
            {"class": "dog", "probability": 0.25},
            {"class": "cat", "probability": 0.2},
            {"class": "2", "probability": 0.1},
            {"class": "3", "probability": 0.05},
        ],
    }
    right = Classification().sample({"labels": np.int32(5)}, {"probabilities": probabilities}, data)
    assert (right["correct"], right["label"]) == (True, "5")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"label_smoothing": 1.0}, "task.label_smoothing=1.0: expected 0 or more, and less than 1"),
        ({"label_smoothing": float("nan")}, "task.label_smoothing: nan is not a finite number"),
        ({"focal_gamma": -1.0}, "task.focal_gamma=-1.0: expected 0 or more"),
        ({"mixup": -0.2}, "task.mixup=-0.2: expected an alpha above 0"),
        ({"cutmix": float("nan")}, "task.cutmix: nan is not a finite number"),
        ({"cutmix_share": 1.5}, "task.cutmix_share=1.5: expected 0 to 1"),
        ({"mean": [0.1, 0.2]}, "task.mean=[0.1, 0.2]: expected one number for all channels, or three"),
        ({"mean": [123.7, 116.3, 103.5]}, "task.mean=[123.7, 116.3, 103.5]: expected values in 0..1; divide"),
        ({"std": [0.0]}, "task.std=[0.0]: expected values in 0.001..1"),
        ({"loss_name": "softmx"}, "task.loss_name: 'softmx' is not a choice; did you mean 'softmax'?"),
        ({"smoothing": 0.1}, "task.smoothing: Classification has no field 'smoothing'; did you mean"),
    ],
)
def test_wrong_fields_are_named(fields, line):
    errors = []
    assert resolve(load(TASKS["classification"]), fields, "task", errors) is None
    assert len(errors) == 1
    assert errors[0].startswith(line)
