"""Training on text, from the files of a dataset to metrics: every task, resuming, real datasets."""

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.text_training import KINDS, experiment, logged, write

from jaxformer.checkpoints import Checkpoints
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.inference.loaded import LoadedRun
from jaxformer.models.bert import BERT
from jaxformer.numbers import filled
from jaxformer.preemption import Preempted
from jaxformer.runs import Run
from jaxformer.state import to_items
from jaxformer.tasks.translation import Translation
from jaxformer.train import Loop, train

SHARED = Path(__file__).parents[2] / "shared" / "tensorflow_datasets"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return write(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(autouse=True, scope="module")
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("write_shown", "write_report"):  # tests/observe has them
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        yield


# Configs with the others are trained in tests/test_configs.py; these have buckets, experts, or no config.
QUICK = ("causal_lm", "text_classification", "text_regression", "translation")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_every_task_trains_on_a_dataset_of_files(kind, datasets, tmp_path):
    result = train(Experiment(experiment(kind, datasets)), tmp_path)
    assert (result["status"], result["step"]) == ("completed", 8)
    task = Experiment(experiment(kind, datasets)).task
    evaluations = logged(tmp_path, "eval")
    assert list(evaluations) == [4, 8]
    for metrics in evaluations.values():
        assert all(np.isfinite(value) for value in metrics.values())
        assert set(metrics) == set(task.metric_names) - {"top5"}  # there are three classes
    losses = [values["loss"] for values in logged(tmp_path, "train").values()]
    assert len(losses) == 8
    assert np.mean(losses[-3:]) < losses[0]
    assert (tmp_path / "tokenizer.json").exists()


def test_sizes_and_tokens_come_from_the_data(datasets):
    built = Experiment(experiment("text_classification", datasets))
    tokenizer = built.train_data.tokenizer
    assert built.bare_model.vocab_size == tokenizer.vocab_size
    assert built.bare_model.num_classes == 3
    assert Experiment(experiment("translation", datasets)).task.eos_id is not None
    given = Experiment(
        experiment("text_classification", datasets, **{"model.vocab_size": 99, "model.num_classes": 7})
    )
    assert (given.bare_model.vocab_size, given.bare_model.num_classes) == (99, 7)
    given.check()


def test_only_what_is_none_is_filled_in():
    model = filled(BERT(vocab_size=5), {"vocab_size": 9, "num_classes": 2})
    assert (model.vocab_size, model.num_classes) == (5, 2)
    assert filled(Translation(), {"eos_id": 3}) == Translation(eos_id=3)
    assert filled(Translation(eos_id=1), {"eos_id": 3}) == Translation(eos_id=1)


# Resuming


class Killed(Exception):
    """Stands for the end of the process: no error of the file system, of which training would say what failed."""


def interrupted(patch, at, how):
    """Ends the training when a step's metrics are read: by SIGTERM, or at once."""
    read = Loop.read

    def reads(loop):
        if loop.unread is not None and loop.unread[0] == at:
            if how == "killed":
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)
        read(loop)

    patch.setattr(Loop, "read", reads)


def saved(folder):
    trained = LoadedRun(folder, "latest")
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(to_items(trained.experiment.state_shapes)).items


@pytest.mark.parametrize("kind", ["causal_lm", pytest.param("text_classification", marks=pytest.mark.slow)])
def test_an_epoch_that_is_interrupted_goes_on_bit_for_bit(kind, datasets, tmp_path):
    """Packed documents, and rows by length in buckets; in the middle of an epoch, and past its end."""
    config = experiment(kind, datasets, **{"train.total": "14 steps"})
    train(Experiment(config), tmp_path / "whole")
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, 3, "SIGTERM")
        with pytest.raises(Preempted):
            train(Experiment(config), folder)
    assert Run(folder).status == "preempted"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, 10, "killed")
        with pytest.raises(Killed):
            train(Experiment(config), folder)
    assert (
        not (folder / "result.json").exists() or json.loads((folder / "result.json").read_text())["step"] < 10
    )
    assert train(Experiment(config), folder)["status"] == "completed"
    for name in ("train", "eval"):
        assert logged(folder, name) == logged(tmp_path / "whole", name)
    jax.tree.map(np.testing.assert_array_equal, saved(folder), saved(tmp_path / "whole"))
    assert 1 < Experiment(config).train_data.steps_per_epoch < 10


def test_another_tokenizer_is_refused(datasets, tmp_path):
    config = experiment("causal_lm", datasets)
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, 3, "SIGTERM")
        with pytest.raises(Preempted):
            train(Experiment(config), tmp_path / "run")
    assert Run(tmp_path / "run").status == "preempted"
    other = write(tmp_path / "datasets", seed=1)
    fewer = experiment("causal_lm", other, **{"data.tokenizer": {"name": "characters", "template": "gpt"}})
    tokenizer = Run(tmp_path / "run").tokenizer_file
    text = tokenizer.read_text()
    tokenizer.write_text(text.replace('"z"', '"Z"') if '"z"' in text else text.replace('"k"', '"K"'))
    with pytest.raises(
        UserError, match=r"data\.tokenizer: makes other tokens than .*tokenizer\.json"
    ) as error:
        train(Experiment(config), tmp_path / "run")
    assert "start a new run in another folder" in str(error.value)
    swapped = json.loads(text)
    ids = swapped["model"]["vocab"]
    ids["a"], ids["e"] = ids["e"], ids["a"]
    tokenizer.write_text(json.dumps(swapped))
    # Nor is it believed by what does not train.
    with pytest.raises(UserError, match="not the tokenizer that the checkpoint was trained with"):
        LoadedRun(tmp_path / "run", "latest")
    assert fewer.data.data_dir != config.data.data_dir  # where the data lies may change
    tokenizer.write_text(text)
    assert LoadedRun(tmp_path / "run", "latest").step == Run(tmp_path / "run").step
    assert train(Experiment(config), tmp_path / "run")["status"] == "completed"


# Real data

REAL = {
    "tiny_shakespeare": (
        "causal_lm",
        {"data.examples": {"name": "windows", "length": 32}, "data.train_split": "validation"},
    ),
    "sst2": ("text_classification", {"data.examples": {"name": "sequences", "length": 48}}),
    "wnut17": ("token_classification", {"data.examples": {"name": "tagged", "length": 48}}),
    "xquad_en": (
        "span_qa",
        {"data.examples": {"name": "spans", "length": 48, "stride": 8, "question_length": 16}},
    ),
    "multi30k": (
        "translation",
        {"data.examples": {"name": "pairs", "length": 48, "source_feature": "de", "target_feature": "en"}},
    ),
}


@pytest.mark.slow  # datasets of files of the same kinds are trained on in the usual suite
@pytest.mark.parametrize("name", REAL)
def test_real_datasets_train(name, tmp_path):
    for folder in (os.environ.get("TFDS_DATA_DIR"), SHARED):
        if folder and (Path(folder) / name).is_dir():
            break
    else:
        pytest.skip(f"needs {name}, prepared as array_record, in TFDS_DATA_DIR")
    kind, changes = REAL[name]
    splits = {
        path.name.split("-")[1].split(".")[0] for path in (Path(folder) / name).rglob("*.array_record*")
    }
    split = next(split for split in ("validation", "test", *sorted(splits)) if split in splits)
    small = {
        "data.name": name,
        "data.train_split": f"{split}[:24]",
        "eval.split": f"{split}[24:36]",
        "data.buckets": [],
    }
    if kind == "causal_lm":
        small |= {"data.train_split": split, "eval.split": split, "data.eval_batch_size": 512}
    total = {"train.total": "2 steps", "eval.every": "2 steps"}
    result = train(Experiment(experiment(kind, str(folder), **{**changes, **small, **total})), tmp_path)
    assert (result["status"], result["step"]) == ("completed", 2)
    assert all(np.isfinite(value) for value in result["final"].values())
