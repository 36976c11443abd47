"""What a metric is of is the dataset's: its support is the same at any length, size or setting, whatever was shown."""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.scenes import CLASSES, COLOURS, TEXTS, images_config, scene
from helpers.text_runs import config_of, write_texts

from jaxformer.config.sections import resolve
from jaxformer.data.writing import write_dataset
from jaxformer.experiment import Experiment
from jaxformer.tasks import TASKS

BROKEN = (1, 4)  # of 8 images
IMAGES = ("classification", "detection", "segmentation", "captioning", "coca", "contrastive")


def supports(evaluation):
    return {row["name"]: row["support"] for row in evaluation.tables["per_class"] if row["support"]}


@dataclass(frozen=True)
class Case:
    """A task with settings that show a model less of the dataset, and what every evaluation counts."""

    run: str
    """Of the texts, a run of `text_runs`; of the images, the task."""
    settings: tuple[dict[str, Any], ...]
    """Changes of the config by dotted path."""
    count: Any
    """Evaluation, sums and experiment -> what is counted."""
    expected: Any
    """The dataset's examples -> the same, by hand."""


def of_rows(evaluation, sums, experiment):
    return sums["count"].sum()


def commonest(data):
    """The share of the commonest caption."""
    return max(Counter(e["caption"] for e in data).values()) / len(data)


def readable(data):
    return sum(e["image"] != b"broken" for e in data) / len(data)


SHORTER = ({}, {"data.eval_batch_size": 16}, {"data.examples.length": 5})
WITH_ALL = (
    "image_to_text_recall@10"  # all texts are among the ten nearest, so that what is missed cannot be read
)
CASES = {
    "text_classification": Case(
        "classes",
        ({}, {"data.examples.length": 4}, {"data.buckets": [8]}),
        lambda evaluation, sums, experiment: supports(evaluation),
        lambda data: {
            name: sum(e["label"] == k for e in data) for k, name in enumerate(["bad", "good", "odd"])
        },
    ),
    "text_regression": Case("pairs", ({}, {"data.examples.length": 4}), of_rows, len),
    "text_pairs": Case("compared", ({}, {"data.examples.length": 8}), of_rows, len),
    "token_classification": Case(
        "tags",
        ({}, {"data.examples.length": 3}, {"data.examples.length": 6, "data.buckets": [4]}),
        lambda evaluation, sums, experiment: supports(evaluation),
        lambda data: {
            name: count
            for k, name in ((1, "place"), (2, "person"))
            if (count := sum(tag == k for example in data for tag in example["tags"]))
        },
    ),
    "span_qa": Case(
        "questions",
        ({}, {"data.examples.length": 17, "data.examples.stride": 2}),
        lambda evaluation, sums, experiment: len(np.unique(experiment.eval_data.source.examples)),
        len,
    ),
    "translation": Case(
        "translation",
        ({}, {"data.examples.length": 4}),
        lambda evaluation, sums, experiment: [experiment.eval_data.source.target_text(i) for i in range(8)],
        lambda data: [example["other"] for example in data],
    ),
    "causal_lm": Case(
        "language",
        ({}, {"data.examples.length": 5}, {"data.batch_size": 16}),
        of_rows,
        lambda data: sum(len(example["document"]) for example in data) - 1,
    ),
    "masked_lm": Case(
        "masks", ({},), lambda evaluation, sums, experiment: experiment.eval_data.num_examples, len
    ),
    "classification": Case(
        "classification",
        ({}, {"data.eval_batch_size": 16}),
        lambda evaluation, sums, experiment: supports(evaluation),
        lambda data: {name: n for k, name in enumerate(COLOURS) if (n := sum(e["label"] == k for e in data))},
    ),
    "detection": Case(
        "detection",
        (
            {},
            {"data.examples.max_objects": 1},
            {"data.eval_transforms": [{"name": "center_crop", "size": 8}]},
            {"data.examples.size": 64},
        ),
        lambda evaluation, sums, experiment: supports(evaluation),
        lambda data: {
            name: n
            for k, name in enumerate(COLOURS)
            if (n := sum(o["label"] == k for e in data for o in e["objects"]))
        },
    ),
    "segmentation": Case(
        "segmentation",
        (
            {},
            {"data.eval_transforms": [{"name": "center_crop", "size": 16}]},
            {"data.examples.eval_size": 16},
            {"data.examples.eval_size": 48},
        ),
        lambda evaluation, sums, experiment: supports(evaluation),
        lambda data: {
            name: n for k, name in enumerate(CLASSES) if (n := sum(int((e["mask"] == k).sum()) for e in data))
        },
    ),
    "captioning": Case(
        "captioning",
        SHORTER,
        lambda evaluation, sums, experiment: evaluation.baseline["exact_match"],
        commonest,
    ),
    "contrastive": Case(
        "contrastive",
        SHORTER,
        lambda evaluation, sums, experiment: evaluation.metrics[WITH_ALL],
        readable,
    ),
    "coca": Case(
        "coca",
        SHORTER,
        lambda evaluation, sums, experiment: (
            evaluation.baseline["exact_match"],
            evaluation.metrics[WITH_ALL],
        ),
        lambda data: (commonest(data), readable(data)),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The texts of `text_runs`, and "scenes": 8 images with labels, objects and masks, of which two are broken."""
    made = tmp_path_factory.mktemp("datasets")
    write_texts(made)
    label = tfds.features.ClassLabel(names=list(COLOURS))
    features = {
        "image": tfds.features.Image(),
        "label": label,
        "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": label}),
        "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
        **TEXTS,
    }
    write_dataset(made, "scenes", "1.0.0", features, {"train": scenes(False), "test": scenes(True)})
    return made


@cache
def scenes(with_broken):
    rng = np.random.default_rng(0)
    found = [{**scene(rng), "label": number % 3} for number in range(8)]
    return [
        {**one, "image": b"broken"} if with_broken and i in BROKEN else one for i, one in enumerate(found)
    ]


def examples_of(case, folder):
    """The dataset's examples, by themselves."""
    if case.run in IMAGES:
        from io import BytesIO

        from PIL import Image

        masks = [np.asarray(Image.open(BytesIO(one["segmentation_mask"]))) for one in scenes(True)]
        return [{**one, "mask": mask} for one, mask in zip(scenes(True), masks)]
    builder = tfds.builder("tiny", data_dir=str(folder))
    rows = builder.as_data_source("test")
    text = lambda value: value.decode() if isinstance(value, bytes) else value  # noqa: E731
    return [{name: text(value) for name, value in row.items()} for row in rows]


def test_every_task_is_here():
    assert set(CASES) == set(TASKS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "coca" else name for name in CASES]
)  # coca: those of captioning and of contrastive
def test_a_metric_is_of_all_that_the_dataset_has(name, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path))
    case = CASES[name]
    expected = case.expected(examples_of(case, folder))
    for changes in case.settings:
        config = images_config(name, folder) if case.run in IMAGES else deepcopy(config_of(case.run, folder))
        for path, value in changes.items():
            *sections, last = path.split(".")
            part = config
            for section in sections:
                part = part[section]
            part[last] = value
        experiment = Experiment(resolve(config), jax.devices()[:1])
        seen = {}
        summarize = type(experiment.task).summarize

        def keep(self, sums, collected, data, summarize=summarize, seen=seen):
            seen.update(sums=sums)
            return summarize(self, sums, collected, data)

        monkeypatch.setattr(type(experiment.task), "summarize", keep)
        evaluation = experiment.evaluate(experiment.init_state())
        monkeypatch.setattr(type(experiment.task), "summarize", summarize)
        assert case.count(evaluation, seen["sums"], experiment) == expected, changes
        assert np.isfinite(list(evaluation.metrics.values())).all()
