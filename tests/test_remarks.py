"""What a run says of itself when it can hardly learn, and when it has learnt nothing."""

import json

import jax
import numpy as np
import pytest

from jaxformer.config.files import read
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.observe.summary import end_summary
from jaxformer.reporting import announce, repeated, signs_of_failure
from jaxformer.runs import Run
from jaxformer.tasks.base import Evaluation
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.segmentation import Segmentation
from jaxformer.tasks.tagging import TokenClassification
from jaxformer.tasks.text_classification import TextRegression
from jaxformer.train import train

TASK = Classification(mean=(0.5,), std=(0.5,))


def curve(*values):
    return {"train/loss": (np.arange(1, len(values) + 1), np.array(values, np.float64))}


def experiment(**changes):
    model = {"model.width": 16, "model.depth": 1, "model.mlp_dim": 32, "data.transforms": []}
    short = {"data.train_split": "train[:48]", "data.batch_size": 16, "eval.split": "test[:64]"}
    return Experiment(resolve(read("vit_digits", {**model, **short, **changes})), jax.devices()[:1])


@pytest.fixture(autouse=True)
def digits(digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [(0.49, True), (0.5, True), (0.51, False), (1.0, False), (float("nan"), True)],
)
def test_what_is_no_better_than_the_commonest_class_is_said(accuracy, said):
    found = Evaluation({"loss": 1.0, "accuracy": accuracy}, {}, {"accuracy": 0.5})
    lines = list(signs_of_failure(TASK, found, {}))
    assert len(lines) == said
    assert all("is no better than that of one answer for all, 0.5" in line for line in lines)


def test_a_count_of_answers_without_a_loss_is_no_better_than_anything():
    found = Evaluation({"loss": float("nan"), "accuracy": 0.9}, {}, {"accuracy": 0.5})
    assert len(list(signs_of_failure(TASK, found, {}))) == 1


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((2.0, 1.9, 1.8, 1.0), False),
        ((2.0, 1.0, 1.0, 2.0), True),
        ((2.0, 2.1, 2.2, 2.3), True),
        ((2.0, 3.0, 4.0), False),  # too few to tell
        ((float("nan"), 2.0, 1.9, 1.8, 1.7), False),
        ((), False),
    ],
)
def test_a_loss_that_has_not_gone_down_is_said(losses, said):
    lines = list(signs_of_failure(TASK, Evaluation({"loss": 1.0}, {}), curve(*losses)))
    assert len(lines) == said
    assert all(line.startswith("the loss of training has not gone down: 2") for line in lines)


def test_tasks_know_what_one_answer_for_all_gives():
    """By hand: 3 of 5 examples are of the second class, 6 of 8 pixels; the mean of 1, 2, 6 is 3."""

    class Words(list):
        def truth(self, index):
            return self[index]

        def words(self, index):
            return np.arange(len(self[index]))

    class Data:
        class_names = None
        tokenizer = None
        source = Words([[0, 0, 2], [1, 0]])

    ones = np.ones(15)
    calibration = dict.fromkeys(("confidence", "accuracy", "count", "correct"), ones)
    sums = {"loss": 5.0, "count": 5.0, "accuracy": 2.0, "top5": 5.0, "calibration": calibration}
    sums["confusion"] = np.array([[1.0, 1.0], [2.0, 1.0]])
    assert TASK.summarize(sums, {}, Data).baseline == {"accuracy": 0.6}
    pixels = {"confusion": np.array([[[1, 1], [5, 1]]]), "support": np.array([[2, 6]])}
    found = Segmentation().summarize({"loss": 1.0, "count": 8.0}, pixels, Data).baseline
    assert found == {"pixel_accuracy": 0.75}
    numbers = {"value": np.array([1.0, 2.0, 3.0]), "labels": np.array([1.0, 2.0, 6.0], np.float32)}
    found = TextRegression().summarize({"loss": 1.0, "count": 3.0}, numbers, Data).baseline
    assert found["loss"] == pytest.approx((4 + 1 + 9) / 3)
    tags = {"labels": np.array([[0, 0, 2, -1], [1, 0, -1, -1]]), "likeliest": np.zeros((2, 4), int)}
    tags["index"] = np.arange(2)
    assert TokenClassification().summarize(
        {"loss": 1.0, "accuracy": 3.0, "count": 5.0}, tags, Data
    ).baseline == {"accuracy": 0.6}


def test_few_steps_and_batches_larger_than_the_dataset_are_said_before_training(tmp_path, caplog):
    announce(experiment(**{"data.batch_size": 100, "train.total": "3 steps"}), Run(tmp_path), 0)
    assert "data.batch_size=100: there are 48 examples to train on" in caplog.text
    assert "train.total='3 steps': only 3 updates" in caplog.text
    caplog.clear()
    announce(experiment(**{"data.batch_size": 48, "train.total": "100 steps"}), Run(tmp_path), 0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("split", "evaluated", "said"),
    [
        ("train", "train", "eval.split='train': 1,438 examples of it are in data.train_split='train', too"),
        ("train[:80]", "train[50:90]+test", "eval.split='train[50:90]+test': 30 examples of it are in"),
        ("test+train[:80]", "train[79:]", "eval.split='train[79:]': 1 example of it is in"),
        ("train+train", "test", "data.train_split='train+train': holds 1,438 examples more than once"),
        ("train[:80]+train[60:]", "test", "data.train_split='train[:80]+train[60:]': holds 20 examples more"),
        ("train[:80]", "train[80:]+test", ""),
    ],
)
def test_what_is_seen_in_training_and_in_evaluation_is_said_before_training(split, evaluated, said):
    config = experiment(**{"data.train_split": split, "eval.split": evaluated}).config
    lines = list(repeated(config))
    assert len(lines) == bool(said)
    assert "".join(lines).startswith(said)


def test_a_short_run_writes_its_curve_and_ends_with_what_went_wrong(tmp_path):
    """A rate so small that nothing moves."""
    changes = {"optimizer.learning_rate": 1e-12, "train.total": "40 steps", "eval.every": "40 steps"}
    result = train(experiment(**changes), tmp_path)
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [r["step"] for r in records if "train/loss" in r] == [*range(2, 41, 2)]
    assert result["remarks"][-1] == "the loss of training has not gone down: 2.303 at first, 2.303 in the end"
    page = (tmp_path / "report.html").read_text()
    assert all(remark in page for remark in result["remarks"])
    assert 'class="badge good"' not in page
    assert result["remarks"][-1] in end_summary(result)
