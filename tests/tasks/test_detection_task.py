"""The detection loss is that of an independent implementation; parts add up; it learns, evaluates and describes."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.stepping import assert_close, gradient_of, take_steps
from helpers.tiny_detector import CLASSES, anchored, batch_of, detector, objects, variables_of
from scipy.optimize import linear_sum_assignment

from jaxformer.config import schema
from jaxformer.errors import UserError
from jaxformer.models.outputs import Denoised, DetectionOutputs
from jaxformer.tasks.detection import Detection, described, in_pixels

LAYERS, QUERIES, MOST = 3, 7, 5
SOFTMAX, FOCAL = Detection(num_queries=QUERIES), Detection(class_loss="focal", num_queries=QUERIES)


@dataclass
class Data:
    """Stands in for `Batches`."""

    element_spec: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] | None = None
    batch: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self):
        """The objects of `batch` as a dataset has them."""
        return self

    def __len__(self):
        return len(self.batch["boxes"])

    def truth(self, index):
        boxes, labels = self.batch["boxes"][index], self.batch["labels"][index]
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
        return {"boxes": corners[labels >= 0], "labels": labels[labels >= 0]}


def outputs_of(task, counts, seed=0, groups=0):
    """Random outputs and a batch."""
    rng = np.random.default_rng(seed)
    boxes, labels = objects(rng, counts, MOST)
    outputs = CLASSES + (task.class_loss == "softmax")

    def random(*shape):
        logits = 2 * rng.normal(size=(LAYERS, len(counts), *shape, outputs))
        sides = rng.uniform(0.05, 0.6, (LAYERS, len(counts), *shape, 2))
        centres = rng.uniform(0, 1, (LAYERS, len(counts), *shape, 2))
        return jnp.asarray(logits, jnp.float32), jnp.asarray(
            np.concatenate([centres, sides], -1), jnp.float32
        )

    denoised = Denoised(*random(groups, 2, MOST)) if groups else None
    return DetectionOutputs(*random(QUERIES), denoised), {"boxes": boxes, "labels": labels}


def giou(a, b):
    """Of two boxes in cxcywh, as Rezatofighi et al. 2019 have it."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b

    def common(p, q, v, w):
        return max(0.0, min(p + v / 2, q + w / 2) - max(p - v / 2, q - w / 2))

    def hull(p, q, v, w):
        return max(p + v / 2, q + w / 2) - min(p - v / 2, q - w / 2)

    shared = common(ax, bx, aw, bw) * common(ay, by, ah, bh)
    union = aw * ah + bw * bh - shared
    around = hull(ax, bx, aw, bw) * hull(ay, by, ah, bh)
    return shared / union - (around - union) / around


def class_loss(task, logits, label):
    """Of one prediction, and what it is divided by where it is a softmax's."""
    if task.class_loss == "softmax":
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return -np.log(p[label]) if label >= 0 else -0.1 * np.log(p[-1])
    p = 1 / (1 + np.exp(-logits))
    true = np.arange(CLASSES) == label
    return np.where(true, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)).sum()


def class_cost(task, logits, label):
    if task.class_loss == "softmax":
        return -np.exp(logits[label]) / np.exp(logits).sum()
    p = 1 / (1 + np.exp(-logits[label]))
    return -0.25 * (1 - p) ** 2 * np.log(p) + 0.75 * p**2 * np.log(1 - p)


def reference(task, logits, boxes, batch):
    """The weighted class, L1 and GIoU losses of one layer, summed over pictures, by loops, NumPy and SciPy."""
    of_class = 1.0 if task.class_loss == "softmax" else 2.0
    total = np.zeros(3)
    for scores, found, true, labels in zip(logits, boxes, batch["boxes"], batch["labels"]):
        there = np.flatnonzero(labels >= 0)
        costs = np.array(
            [
                [
                    of_class * class_cost(task, scores[q], labels[n])
                    + 5 * np.abs(found[q] - true[n]).sum()
                    - 2 * giou(found[q], true[n])
                    for n in there
                ]
                for q in range(len(scores))
            ]
        ).reshape(len(scores), len(there))
        chosen = dict(zip(*linear_sum_assignment(costs)))
        for query, one in enumerate(scores):
            target = there[chosen[query]] if query in chosen else None
            total[0] += of_class * class_loss(task, one, -1 if target is None else labels[target])
            if target is not None:
                total[1] += 5 * np.abs(found[query] - true[target]).sum()
                total[2] += 2 * (1 - giou(found[query], true[target]))
    return total


def float64(outputs):
    return [np.asarray(x, np.float64) for x in (outputs.logits, outputs.boxes)]


@pytest.mark.parametrize("task", [SOFTMAX, FOCAL], ids=["softmax", "focal"])
def test_losses_are_those_of_an_independent_implementation(task):
    for seed in range(4):
        counts = [3, 0, 5, 1]
        outputs, batch = outputs_of(task, counts, seed)
        found = jax.jit(task.loss)(outputs, batch)
        layers = [reference(task, *layer, batch) for layer in zip(*float64(outputs))]
        expected = dict(zip(("class", "l1", "giou"), layers[-1]))
        expected["auxiliary_class"] = sum(layer[0] for layer in layers[:-1])
        expected["auxiliary_boxes"] = sum(layer[1] + layer[2] for layer in layers[:-1])
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-4), name
    divided_by = task.counts(batch)
    assert float(divided_by["l1"]) == 9
    # Carion et al. 2020's code: a weighted mean over all queries; Zhu et al. 2021's: over objects.
    weights = 9 + 0.1 * (4 * QUERIES - 9) if task is SOFTMAX else 9
    assert float(divided_by["class"]) == pytest.approx(weights)


@pytest.mark.parametrize("task", [SOFTMAX, FOCAL], ids=["softmax", "focal"])
def test_noised_objects_are_to_be_found_or_to_be_none(task):
    outputs, batch = outputs_of(task, [3, 1], groups=2)
    found = jax.jit(task.loss)(outputs, batch)
    logits, boxes = (np.asarray(x, np.float64) for x in (outputs.denoised.logits, outputs.denoised.boxes))
    of_class = of_boxes = 0.0
    for layer in range(LAYERS):
        for picture, labels in enumerate(batch["labels"]):
            for n in np.flatnonzero(labels >= 0):
                true = batch["boxes"][picture, n]
                for group in range(2):
                    near, far = logits[layer, picture, group, :, n]
                    of_class += class_loss(task, near, labels[n]) + class_loss(task, far, -1)
                    box = boxes[layer, picture, group, 0, n]
                    of_boxes += 5 * np.abs(box - true).sum() + 2 * (1 - giou(box, true))
    # A mean over the groups; a softmax's over what its queries weigh, 1 and 0.1.
    scale = 1 / 2 / 1.1 if task is SOFTMAX else 2 / 2
    assert float(found["denoising_class"]) == pytest.approx(scale * of_class, rel=1e-4)
    assert float(found["denoising_boxes"]) == pytest.approx(of_boxes / 2, rel=1e-4)


@pytest.mark.parametrize("task", [SOFTMAX, FOCAL], ids=["softmax", "focal"])
def test_padding_does_not_count(task):
    outputs, batch = outputs_of(task, [3, 2], groups=1)
    expected = jax.jit(task.loss)(outputs, batch)
    longer = {
        "boxes": np.pad(batch["boxes"], [(0, 0), (0, 2), (0, 0)]),
        "labels": np.pad(batch["labels"], [(0, 0), (0, 2)], constant_values=-1),
    }
    wider = jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * 4 + [(0, 2), (0, 0)]), outputs.denoised)
    found = jax.jit(task.loss)(outputs.replace(denoised=wider), longer)
    rows = jax.tree.map(lambda x: jnp.concatenate([x, jnp.full_like(x[:, :1], jnp.nan)], axis=1), outputs)
    more = {name: np.concatenate([value, value[:1]]) for name, value in batch.items()}
    more["example_mask"] = np.array([True, True, False])
    masked = jax.jit(task.loss)(rows, more)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name
        assert float(masked[name]) == pytest.approx(float(value), rel=1e-5), name
    for name, value in task.counts(batch).items():
        assert float(task.counts(more)[name]) == pytest.approx(float(value)), name


@pytest.mark.parametrize(
    ("model", "task"),
    [
        pytest.param(
            detector(encoder_depth=0), Detection(num_queries=5), id="learned", marks=pytest.mark.slow
        ),
        pytest.param(anchored(encoder_depth=0, decoder_depth=1), Detection(class_loss="focal"), id="anchors"),
    ],
)
def test_accumulated_gradients_are_those_of_the_whole_batch(model, task):
    batch = batch_of([4, 0, 1, 2])
    variables = variables_of(model, batch)
    whole, parts = (
        gradient_of(
            *take_steps(batch, model=model, task=task, variables=variables, devices=1, accumulate=n)[:2]
        )
        for n in (1, 4)
    )
    assert_close(parts, whole, 1e-4)


@pytest.mark.slow
def test_two_pictures_are_learnt_by_heart():
    model, task = anchored(denoising=1, encoder_depth=0), Detection(class_loss="focal")
    batch = batch_of([3, 2])
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    settings = {"model": model, "task": task, "devices": 1, "optimizer": optax.adam(5e-3)}
    _, state, _ = take_steps(batch, variables=variables, count=150, losses=(losses := []), **settings)
    assert losses[-1] < losses[0] / 4
    outputs = jax.jit(model.apply)({"params": jax.device_get(state.params)}, **task.inputs(batch))
    found = summarized(task, outputs, batch, Data(class_names=["a", "b", "c"], batch=batch))
    assert found.metrics["ap50"] > 0.9


def test_a_picture_without_objects_trains_and_evaluates():
    model, task = detector(encoder_depth=0), Detection(num_queries=5)
    batch = {**batch_of([0, 0]), "index": np.arange(2), "original_size": np.full((2, 2), 64, np.int32)}
    variables = variables_of(model, batch)
    before, state, metrics = take_steps(batch, model=model, task=task, variables=variables, devices=1)
    assert metrics["skipped"] == 0
    assert metrics["l1"] == 0
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient_of(before, state)))
    outputs = jax.jit(model.apply)(variables, **task.inputs(batch))
    assert np.isfinite(np.asarray(jax.jit(task.errors)(outputs, batch))).all()
    sums = jax.tree.map(np.asarray, jax.jit(task.eval_sums)(outputs, batch))
    data = Data(batch=batch, element_spec={"image": ((32, 32, 3), np.uint8)})
    found = summarized(task, outputs, batch, data, sums)
    assert found.metrics["ap"] == 0
    assert np.isfinite(found.metrics["loss"])


def summarized(task, outputs, batch, data, sums=()):
    """As an evaluation does it, of images that were shown whole."""
    count = len(batch["boxes"])
    whole = {
        "place": np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)),
        "original_size": batch["extent"],
    }
    collected = jax.tree.map(np.asarray, task.collect(outputs, {**whole, **batch}, None, None))
    data.element_spec.setdefault("image", ((32, 32, 3), np.uint8))
    return task.summarize(dict(sums), {"index": np.arange(count), **collected}, data)


def perfect(task, batch):
    """Outputs that find all objects, and nothing else."""
    boxes, labels = batch["boxes"], batch["labels"]
    classes = CLASSES + (task.class_loss == "softmax")
    wanted = np.where(labels < 0, CLASSES, labels)[..., None] == np.arange(classes)
    return DetectionOutputs(
        jnp.asarray(np.where(wanted, 9.0, -9.0), jnp.float32)[None], jnp.asarray(boxes)[None]
    )


@pytest.mark.parametrize("task", [SOFTMAX, FOCAL], ids=["softmax", "focal"])
def test_what_finds_everything_has_an_ap_of_one(task):
    boxes, labels = objects(np.random.default_rng(3), [5, 2, 4], MOST)
    extent = np.array([[30, 40], [40, 40], [40, 20]], np.int32)
    batch = {"boxes": boxes, "labels": labels, "extent": extent, "original_size": 10 * extent}
    outputs = perfect(task, batch)
    found = summarized(task, outputs, batch, Data(class_names=["a", "b", "c"], batch=batch))
    assert found.metrics["ap"] == pytest.approx(1.0)
    assert [row["name"] for row in found.tables["per_class"]] == ["a", "b", "c"]
    assert sum(row["support"] for row in found.tables["per_class"]) == 11
    sides = boxes[..., 2:] * batch["original_size"][:, None, ::-1]
    assert ("ap_small" in found.metrics) == bool((sides.prod(-1)[labels >= 0] <= 32**2).any())
    batch["boxes"] = np.roll(boxes, 1, axis=0)  # of another picture
    assert summarized(task, outputs, batch, Data(batch=batch)).metrics["ap"] < 0.5


def test_detections_are_the_surest_first_and_without_no_object():
    logits = jnp.array([[[[2.0, 1.0, 9.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]]])  # the last class is none
    boxes = jnp.arange(12, dtype=jnp.float32).reshape(1, 1, 3, 4) / 12
    found = jax.tree.map(np.asarray, Detection().predictions(DetectionOutputs(logits, boxes), {}))
    assert found["classes"].tolist() == [[1, 0, 0]]
    np.testing.assert_array_equal(found["boxes"][0], np.asarray(boxes)[0, 0, [1, 2, 0]])
    assert found["scores"][0, 0] == pytest.approx(np.exp(3) / (np.exp(3) + 2), rel=1e-5)
    several = Detection(class_loss="focal").predictions(DetectionOutputs(logits, boxes), {})
    assert several["classes"].shape == (1, 9)
    assert int(several["classes"][0, 0]) == 2


def test_boxes_are_described_in_pixels_of_the_picture():
    boxes = np.array([[0.5, 0.5, 0.5, 0.2], [0.1, 0.9, 0.4, 0.4]])
    assert in_pixels(boxes, (100, 200)).round(6).tolist() == [[50, 40, 150, 60], [0, 70, 60, 100]]
    found = {"boxes": boxes[:1], "classes": np.array([1]), "scores": np.array([0.75])}
    one = described(found, (100, 200), ["a", "b"])
    assert one == [{"label": "b", "index": 1, "score": 0.75, "box": [50.0, 40.0, 150.0, 60.0]}]


def test_what_is_around_the_picture_is_zero():
    batch = batch_of([1, 1])
    batch["extent"] = np.array([[32, 20], [9, 32]], np.int32)
    image = np.asarray(Detection(mean=(0.5,), std=(0.25,)).inputs(batch)["image"])
    assert not image[0, :, 20:].any()
    assert not image[1, 9:].any()
    np.testing.assert_allclose(image[0, 5, 5], (batch["image"][0, 5, 5] / 255 - 0.5) / 0.25, rtol=1e-5)


def spec(most=5, channels=3, **without):
    shapes = {"image": (32, 32, channels), "extent": (2,), "boxes": (most, 4), "labels": (most,)}
    return Data(
        {name: (shape, np.dtype(np.float32)) for name, shape in shapes.items() if name not in without}
    )


@pytest.mark.parametrize(
    ("task", "model", "data", "line"),
    [
        (SOFTMAX, detector(num_queries=7), spec(boxes=0), "data.examples: batches have extent, image, labels, this"),
        (Detection(), detector(), spec(6), "model.num_queries=5: images have up to data.examples.max_objects=6"),
        (Detection(), anchored(), spec(), "model.no_object=False: task.class_loss='softmax' needs"),
        (FOCAL, detector(num_queries=7), spec(), "model.no_object=True: task.class_loss='focal' has no use for"),
        (SOFTMAX, detector(), spec(), "task.num_queries=7: the model has 5"),
        (Detection(mean=(0.5, 0.4, 0.3)), detector(), spec(channels=1), "task.mean="),
    ],
    ids=["no boxes", "few queries", "no class for none", "a class for none", "other queries", "grey"],
)  # fmt: skip
def test_what_does_not_fit_is_said(task, model, data, line):
    assert any(found.startswith(line) for found in task.fits(model, data, data))


def test_impossible_values_and_labels_are_named():
    task = Detection(l1_weight=-1.0, focal_alpha=2.0, mean=(128.0,), score_threshold=-1.0)
    starts = {"l1_weight=-1.0", "focal_alpha=2.0", "score_threshold=-1.0", "mean=[128.0]"}
    assert {line.partition(":")[0] for line in schema.problems(task)} == starts
    with pytest.raises(UserError, match=r"model.num_classes=3: .* 0 to 7"):
        Detection().check(detector(), {"labels": np.array([[0, 7, -1]])})
