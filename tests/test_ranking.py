"""Which evaluation is the best: the task knows which way a metric is better, and a loss that is no number never is."""

import json
import logging
import math
from pathlib import Path

import jax
import pytest

from jaxformer.checkpoints import Checkpoints
from jaxformer.config import files as configfile
from jaxformer.config.schema import load
from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError
from jaxformer.experiment import Experiment
from jaxformer.inference.loaded import LoadedRun
from jaxformer.observe import comparison, report, summary
from jaxformer.runs import Run
from jaxformer.tasks import TASKS
from jaxformer.tasks.base import Evaluation
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.language import CausalLM
from jaxformer.train import train

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:64]",
    "eval.every": "1 step",
    "optimizer": {"name": "momentum", "learning_rate": 0.1},
    "schedule": {"name": "constant"},
    "train.total": "3 steps",
    "checkpoint.every": "1 step",
    "checkpoint.keep": 3,
}


@pytest.fixture(autouse=True)
def environment(digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)


def experiment(**changes):
    return Experiment(resolve(configfile.read(CONFIG, {**TINY, **changes})))


@pytest.mark.parametrize(("monitor", "mode"), [("loss", "max"), ("ece", "max"), ("accuracy", "min")])
def test_a_mode_that_contradicts_the_metric_is_refused_before_training(monitor, mode, tmp_path):
    other = {"max": "min", "min": "max"}[mode]
    with pytest.raises(ConfigError) as refused:
        train(experiment(**{"eval.monitor": monitor, "eval.mode": mode}), tmp_path / "run")
    better = "more" if other == "max" else "less"
    assert refused.value.lines == (
        f"eval.mode={mode!r}: of {monitor} {better} is better; remove it, or choose {other!r}",
    )
    assert not (tmp_path / "run").exists()
    experiment(**{"eval.monitor": monitor, "eval.mode": other}).check()
    experiment(**{"eval.monitor": monitor, "eval.mode": None}).check()


def test_an_unknown_metric_is_refused_as_such_whatever_the_mode():
    with pytest.raises(ConfigError, match=r"eval\.monitor='acuracy': not a metric") as refused:
        experiment(**{"eval.monitor": "acuracy", "eval.mode": "min"}).check()
    assert len(refused.value.lines) == 1


def test_every_metric_of_every_task_has_the_direction_that_people_know():
    less = {"loss", "perplexity", "ece"}
    for where in TASKS.values():
        task = load(where)()
        for metric in task.metric_names:
            assert task.direction(metric) == ("min" if metric in less else "max"), (where, metric)
    assert CausalLM().direction("perplexity") == "min"


def test_the_smallest_loss_is_the_best_without_a_word_about_the_mode(tmp_path):
    result = train(experiment(**{"eval.monitor": "loss"}), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["eval/loss"] for line in lines if "eval/loss" in line}
    assert result["best"] == {"step": min(losses, key=losses.get), "loss": min(losses.values())}
    assert LoadedRun(tmp_path).step == result["best"]["step"]


def test_a_loss_that_is_not_finite_ranks_no_metric():
    for loss in (math.nan, math.inf):
        ranked = Evaluation({"loss": loss, "accuracy": 0.9}, {}).ranked
        assert set(ranked) == {"loss", "accuracy"}
        assert all(map(math.isnan, ranked.values()))
    for metrics in ({"loss": 1.0, "accuracy": 0.9}, {"accuracy": 0.9}):
        assert Evaluation(metrics, {}).ranked == metrics


def test_an_evaluation_without_a_finite_loss_is_never_the_best(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    true, steps = Classification.summarize, iter(range(1, 9))

    def summarize(self, *arguments):
        """The first two evaluations are of a model that answers NaN, and their accuracy is the highest."""
        found = true(self, *arguments)
        nan = {"loss": math.nan, "accuracy": 1.0} if next(steps) < 3 else {}
        return Evaluation({**found.metrics, **nan}, found.tables)

    monkeypatch.setattr(Classification, "summarize", summarize)
    result = train(experiment(), tmp_path)
    assert result["best"] == {"step": 3, "accuracy": result["final"]["accuracy"]}
    assert result["final"]["accuracy"] < 1
    with Checkpoints(tmp_path / "checkpoints", monitor="accuracy", read_only=True) as checkpoints:
        assert checkpoints.by_rank() == [3]
    said = [message for message in caplog.messages if message.startswith("evaluation at step")]
    assert ["never counts as the best" in message for message in said] == [True, True, False]


def test_a_run_of_nothing_else_has_no_best_and_says_so(tmp_path, monkeypatch):
    true = Classification.summarize

    def summarize(self, *arguments):
        found = true(self, *arguments)
        return Evaluation({**found.metrics, "loss": math.nan}, found.tables)

    monkeypatch.setattr(Classification, "summarize", summarize)
    result = train(experiment(**{"train.total": "1 step", "eval.restore_best": True}), tmp_path)
    assert result["best"] is None
    said = "the loss is not finite, so this never counts as the best"
    assert said in summary.end_summary(result)
    assert {note for name, _, note in report.cards(Run.open(tmp_path)) if name == "accuracy"} == {said}
    assert said in comparison.in_short(Run.open(tmp_path))["best"]
