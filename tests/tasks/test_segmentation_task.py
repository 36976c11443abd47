"""The task: its counts and means, and evaluations that are scikit-learn's; see test_tasks_contract.py for the rest."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxformer.config.schema import load, resolve
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import real_rows
from jaxformer.models.outputs import SegmentationOutputs
from jaxformer.tasks import TASKS
from jaxformer.tasks.segmentation import Segmentation

B, SIDE, GRID, K = 9, 8, 4, 5
WEIGHTS = (1.0, 2.0, 0.5, 1.5, 3.0)
TASKS_UNDER_TEST = {
    "weighted": Segmentation(class_weights=WEIGHTS),
    "all losses": Segmentation(dice=0.5, lovasz=2.0, lovasz_step=2, class_weights=WEIGHTS),
}


class Masks(list):
    """A source of masks."""

    truth = list.__getitem__


def shown_as(batch):
    return {"index": np.arange(B), "example_mask": batch["example_mask"]}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    mask = rng.random(B) < 0.8
    mask[2] = False
    classes = rng.integers(0, K, (B, SIDE, SIDE)).astype(np.int32)
    classes[rng.random(classes.shape) < 0.3] = -1
    classes[4] = -1  # a real image in which nothing is labelled
    mask[4] = True
    return {
        "image": rng.integers(0, 256, (B, SIDE, SIDE, 3), dtype=np.uint8),
        "segmentation": classes,
        "example_mask": mask,
    }


def test_what_is_learnt_by_heart_has_a_block_for_each_place_of_the_logits(batch):
    outputs = SegmentationOutputs(jax.ShapeDtypeStruct((B, 2, 3, K), jnp.float32))
    made = Segmentation().learnable({**batch, "segmentation": batch["segmentation"][:, :, :6]}, outputs)
    assert made["image"] is batch["image"]
    for row, place in ((slice(0, 4), 2), (slice(4, 8), 6)):
        for column in (0, 2, 4):
            block = made["segmentation"][:, row, column : column + 2]
            middle = batch["segmentation"][:, place, column + 1]
            np.testing.assert_array_equal(block, np.broadcast_to(middle[:, None, None], block.shape))


def test_counts_are_of_pixels_and_of_images(batch):
    real = batch["segmentation"][batch["example_mask"]]
    counts = TASKS_UNDER_TEST["all losses"].counts(batch)
    np.testing.assert_allclose(counts["cross_entropy"], np.asarray(WEIGHTS)[real[real >= 0]].sum(), rtol=1e-6)
    images = (real >= 0).any(axis=(1, 2)).sum()
    assert counts["dice"] == counts["lovasz"] == images == batch["example_mask"].sum() - 1
    assert Segmentation().counts(batch)["cross_entropy"] == (real >= 0).sum()


def test_the_mean_is_torchs_weighted_one(batch):
    import torch

    task, logits = TASKS_UNDER_TEST["weighted"], np.random.default_rng(3).normal(size=(B, SIDE, SIDE, K))
    outputs = SegmentationOutputs(jnp.asarray(logits, jnp.float32))
    ours = task.loss(outputs, batch)["cross_entropy"] / task.counts(batch)["cross_entropy"]
    real = batch["example_mask"]
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits[real].transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(batch["segmentation"][real]).long(),
        torch.tensor(WEIGHTS, dtype=torch.float64),
        ignore_index=-1,
    )
    np.testing.assert_allclose(ours, theirs.item(), rtol=1e-5)


def test_evaluations_are_those_of_sklearn(batch):
    task, rng = Segmentation(), np.random.default_rng(4)
    logits = rng.normal(size=(B, SIDE, SIDE, K)).astype(np.float32)
    logits[..., 3] = -9  # a class that is never predicted
    outputs = SegmentationOutputs(jnp.asarray(logits))
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.jit(task.eval_sums)(outputs, batch))
    shown = {"extent": np.full((B, 2), SIDE), "place": np.tile(np.array([0.0, 0, 1, 1]), (B, 1))}
    rows = real_rows([{**task.collect(outputs, {**batch, **shown}, None, None), **shown_as(batch)}])
    source = Masks(batch["segmentation"])
    data = SimpleNamespace(class_names=["sky", "road"], source=source)
    found = task.summarize(sums, {**task.kept(rows, data), "index": np.arange(B)}, data)
    real = batch["segmentation"][batch["example_mask"]]
    true, predicted = real[real >= 0], logits.argmax(-1)[batch["example_mask"]][real >= 0]
    labels = range(K)
    assert found.tables["confusion"] == reference.confusion_matrix(true, predicted, labels=labels).tolist()
    ious = reference.jaccard_score(true, predicted, labels=labels, average=None)
    np.testing.assert_allclose(found.metrics["mean_iou"], ious.mean(), rtol=1e-9)
    np.testing.assert_allclose([row["iou"] for row in found.tables["per_class"]], ious, rtol=1e-9)
    np.testing.assert_allclose(found.metrics["pixel_accuracy"], reference.accuracy_score(true, predicted))
    np.testing.assert_allclose(
        found.metrics["mean_accuracy"], reference.balanced_accuracy_score(true, predicted)
    )
    proba = np.exp(logits)[batch["example_mask"]][real >= 0]
    np.testing.assert_allclose(
        found.metrics["loss"],
        reference.log_loss(true, proba / proba.sum(-1, keepdims=True), labels=labels),
        rtol=1e-5,
    )
    assert found.tables["class_names"] == ["sky", "road", "2", "3", "4"]
    assert found.tables["per_class"][3]["precision"] is None
    assert found.metrics.keys() == set(task.metric_names)
    json.dumps(found.tables, allow_nan=False)


def test_what_is_said_of_an_example(batch):
    task = Segmentation()
    logits = np.random.default_rng(5).normal(size=(B, GRID, GRID, K)).astype(np.float32)
    outputs = SegmentationOutputs(jnp.asarray(logits))
    predicted, errors = jax.device_get(
        jax.jit(lambda b: (task.predictions(outputs, b), task.errors(outputs, b)))(batch)
    )
    found = predicted["classes"]
    assert (found.dtype, found.shape) == (np.uint8, (B, SIDE, SIDE))
    np.testing.assert_array_equal(found, outputs.at((SIDE, SIDE)).argmax(-1))
    for row in np.flatnonzero(batch["example_mask"]):
        known = batch["segmentation"][row] >= 0
        wrong = (found[row] != batch["segmentation"][row])[known]
        np.testing.assert_allclose(errors[row], wrong.mean() if known.any() else 0, rtol=1e-6)
        example = {name: array[row] for name, array in batch.items()}
        said = task.sample(example, {"classes": found[row]}, SimpleNamespace(class_names=list("abcde")))
        assert said["pixel_accuracy"] == (round(1 - wrong.mean(), 4) if known.any() else None)
        json.dumps(said, allow_nan=False)
    assert errors[4] == 0


def batches(size, channels=3, names=None, masks=True):
    spec = {"image": ((*size, channels), np.dtype(np.uint8))}
    if masks:
        spec["segmentation"] = (size, np.dtype(np.int32))
    return SimpleNamespace(element_spec=spec, class_names=names)


def segmenter(**fields):
    return SimpleNamespace(
        **{
            "kind": "segmenter",
            "decoder": None,
            "window": None,
            "image_size": None,
            "num_classes": K,
            **fields,
        }
    )


MISFITS = {
    "no masks": (
        Segmentation(),
        segmenter(),
        (8, 8),
        (8, 8),
        {"masks": False},
        "this task needs segmentation",
    ),
    "no segmenter": (
        Segmentation(),
        SimpleNamespace(kind="image", num_classes=K),
        (8, 8),
        (8, 8),
        {},
        'such as "segmenter"',
    ),
    "size": (Segmentation(), segmenter(image_size=16), (8, 8), (16, 16), {}, "training images are 8x8"),
    "eval size": (Segmentation(), segmenter(image_size=8), (8, 8), (16, 8), {}, "model.window=[8, 8]"),
    "small": (Segmentation(), segmenter(image_size=8, window=(8, 8)), (8, 8), (8, 4), {}, "are only 8x4"),
    "channels": (
        Segmentation(mean=(0.1, 0.2, 0.3)),
        segmenter(),
        (8, 8),
        (8, 8),
        {"channels": 1},
        "1 channels",
    ),
    "classes": (Segmentation(), segmenter(), (8, 8), (8, 8), {"names": list("abcdef")}, "the dataset has 6"),
    "unknown": (Segmentation(), segmenter(num_classes=None), (8, 8), (8, 8), {}, "does not say how many"),
    "weights": (
        Segmentation(class_weights=(1.0,)),
        segmenter(),
        (8, 8),
        (8, 8),
        {},
        "there are 1 weights and 5",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_does_not_fit_is_said(kind):
    task, model, size, eval_size, how, said = MISFITS[kind]
    lines = list(task.fits(model, batches(size, **how), batches(eval_size, **how)))
    assert len(lines) == 1
    assert said in lines[0]


def test_what_fits_fits():
    for model in (segmenter(), segmenter(image_size=8, window=(8, 8))):
        assert not list(Segmentation().fits(model, batches((8, 8)), batches((16, 24), names=list("abc"))))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cross_entropy": 0.0}, "nothing is learnt without a loss"),
        ({"dice": -1.0}, "dice=-1.0: expected 0 or more"),
        ({"lovasz_step": 0}, "lovasz_step=0"),
        ({"class_weights": [1.0, -2.0]}, "class_weights[1]=-2.0: expected 0 or more"),
        ({"std": [0.0]}, "std=[0.0]"),
        ({"mean": [120.0]}, "divide by 255"),
    ],
)
def test_values_that_cannot_be(fields, said):
    errors = []
    assert resolve(load(TASKS["segmentation"]), fields, "task", errors) is None
    assert len(errors) == 1
    assert said in errors[0]


def test_classes_that_the_model_lacks_are_refused():
    task, classes = Segmentation(), np.full((1, 2, 2), -1, np.int32)
    task.check(segmenter(), {"segmentation": classes})
    classes[0, 0, 0] = K
    with pytest.raises(UserError, match=r"the classes must be 0 to 4, a mask has 5"):
        task.check(segmenter(), {"segmentation": classes})
