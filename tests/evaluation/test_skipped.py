"""Images that are skipped leave holes in the middle of an evaluation's batches; they count as missed."""

from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from flax import linen as nn

from jaxformer.data import DataConfig, make_batches
from jaxformer.data.kinds.images import Images
from jaxformer.data.writing import write_dataset
from jaxformer.evaluation.evaluator import evaluate, real_rows
from jaxformer.evaluation.samples import choose, find_errors, make_errors
from jaxformer.models.outputs import DetectionOutputs, ImageOutputs, SegmentationOutputs
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.step import make_eval_step
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.detection import Detection
from jaxformer.tasks.segmentation import Segmentation

CLASSES = 4
BROKEN = (1, 2, 9)  # of 14
LAYOUTS = {"one device": ("jit", 1), "eight devices": ("jit", 8), "pmap": ("pmap", 8)}


class Model(nn.Module):
    """Logits of an image's mean colours."""

    @nn.compact
    def __call__(self, image, deterministic):
        features = image.mean((1, 2))
        return ImageOutputs(nn.Dense(CLASSES, name="head")(features), features, image)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Split "whole" has broken pictures, "left" is it without them."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (6, 6, 3), np.uint8) // (1 + i % 3) for i in range(14)]
    members = [
        {"image": b"broken" if i in BROKEN else cv2.imencode(".png", p)[1].tobytes(), "label": i % CLASSES}
        for i, p in enumerate(pictures)
    ]
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=CLASSES)}
    left = [member for i, member in enumerate(members) if i not in BROKEN]
    write_dataset(folder, "pictures", "1.0.0", features, {"whole": members, "left": left})
    config = DataConfig(
        name="pictures",
        data_dir=str(folder),
        batch_size=8,
        examples=Images(broken="skip"),
        train_split="left",
    )
    return {split: make_batches(config, split, train=False) for split in ("whole", "left")}


@pytest.fixture(scope="module")
def variables():
    return Model().init(jax.random.key(1), jnp.zeros((1, 6, 6, 3)), True)


def layout_of(name: str) -> Layout:
    mode, count = LAYOUTS[name]
    return Layout(mode, make_mesh({"data": count}, jax.devices()[:count]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_evaluation_is_that_of_the_images_that_are_left_with_the_others_missed(name, splits, variables):
    assert splits["whole"][0]["example_mask"].tolist() == [True, False, False, *[True] * 5]
    assert splits["whole"][1]["example_mask"].tolist() == [True, False, *[True] * 4, False, False]
    layout, task = layout_of(name), Classification()
    step = layout.eval_step(make_eval_step(Model(), task, axis=layout.axis))
    whole, left = (evaluate(step, variables, task, splits[split], layout) for split in ("whole", "left"))
    for metric in ("loss", "ece"):
        assert whole.metrics[metric] == pytest.approx(left.metrics[metric], rel=1e-5)
    confusion = np.array(left.tables["confusion"])
    support = np.bincount(np.arange(14) % CLASSES)
    assert [row["support"] for row in whole.tables["per_class"]] == support.tolist()
    assert whole.metrics["accuracy"] == pytest.approx(np.trace(confusion) / 14)
    assert whole.metrics["balanced_accuracy"] == pytest.approx(np.mean(np.diag(confusion) / support))
    f1 = 2 * np.diag(confusion) / (support + confusion.sum(0))
    assert whole.metrics["macro_f1"] == pytest.approx(f1.mean())
    assert np.sum(whole.tables["confusion"]) == 11
    assert whole.tables["confusion"] == left.tables["confusion"]


def test_a_report_shows_none_of_them(splits, variables):
    layout, task = layout_of("one device"), Classification()
    predict = jax.jit(make_errors(Model(), task))
    errors, positions = find_errors(predict, variables, task, splits["whole"], layout)
    assert positions.tolist() == [i for i in range(14) if i not in BROKEN]
    alone, _ = find_errors(predict, variables, task, splits["left"], layout)
    np.testing.assert_allclose(errors, alone, rtol=1e-5)
    shown, expected = (
        choose(Model(), task, variables, splits[split], layout, 11) for split in ("whole", "left")
    )
    for kind in ("samples", "mistakes"):
        assert len(shown[kind]) == len(expected[kind]) > 3
        for one, other in zip(shown[kind], expected[kind]):
            np.testing.assert_array_equal(one.image, other.image)


def classified(rng, rows):
    return ImageOutputs(rng.normal(size=(rows, CLASSES)).astype(np.float32), None, None), {
        "image": np.zeros((rows, 4, 4, 3), np.uint8),
        "labels": rng.integers(0, CLASSES, rows).astype(np.int32),
    }


def segmented(rng, rows):
    return SegmentationOutputs(rng.normal(size=(rows, 4, 4, CLASSES)).astype(np.float32)), {
        "image": np.zeros((rows, 8, 8, 3), np.uint8),
        "segmentation": rng.integers(-1, CLASSES, (rows, 8, 8)).astype(np.int32),
        "extent": np.full((rows, 2), 8, np.int32),
        "place": np.tile(np.array([0, 0, 1, 1], np.float32), (rows, 1)),
    }


def detected(rng, rows):
    boxes = lambda n: rng.uniform(0.2, 0.4, (rows, n, 4)).astype(np.float32)  # noqa: E731
    logits = rng.normal(size=(1, rows, 5, CLASSES + 1)).astype(np.float32)
    return DetectionOutputs(logits, boxes(5)[None]), {
        "image": np.zeros((rows, 8, 8, 3), np.uint8),
        "extent": np.full((rows, 2), 8, np.int32),
        "original_size": np.full((rows, 2), 8, np.int32),
        "place": np.tile(np.array([0, 0, 1, 1], np.float32), (rows, 1)),
        "boxes": boxes(3),
        "labels": rng.integers(-1, CLASSES, (rows, 3)).astype(np.int32),
    }


@pytest.mark.parametrize(
    ("task", "make"),
    [
        (Classification(), classified),
        (Segmentation(dice=1.0, lovasz=1.0), segmented),
        (Detection(num_queries=5), detected),
    ],
    ids=lambda part: getattr(part, "__name__", type(part).__name__),
)
def test_tasks_count_no_hole(task, make):
    """Sums and what is collected are as of rows that pad a batch's end, whatever the model says there: even nothing."""
    outputs, batch = make(np.random.default_rng(0), 6)
    mask = np.array([True, False, True, True, False, True])
    last = np.argsort(~mask, kind="stable")  # what is real in front, in its order
    axis = 1 if isinstance(outputs, DetectionOutputs) else 0  # the layers are in front of the batch

    def spoilt(leaf):
        rows = np.moveaxis(leaf.copy(), axis, 0)
        rows[~mask] = 0 if axis else np.nan
        return np.moveaxis(rows, 0, axis)

    @jax.jit
    def measure(outputs, batch):
        found = task.eval_sums(outputs, batch), task.loss(outputs, batch), task.counts(batch)
        return found, task.collect(outputs, batch, SimpleNamespace(), {})

    zeros = {name: np.where(mask.reshape(-1, *[1] * (v.ndim - 1)), v, 0) for name, v in batch.items()}
    holes, in_holes = measure(jax.tree.map(spoilt, outputs), {**zeros, "example_mask": mask})
    end, at_end = measure(
        jax.tree.map(lambda leaf: np.take(leaf, last, axis), outputs),
        {**{name: v[last] for name, v in batch.items()}, "example_mask": mask[last]},
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), holes, end)
    if in_holes:
        found, expected = (
            real_rows([{**rows, "example_mask": where}])
            for rows, where in ((in_holes, mask), (at_end, mask[last]))
        )
        for name, value in expected.items():
            assert len(value) == 4
            np.testing.assert_allclose(found[name], value, err_msg=name)
