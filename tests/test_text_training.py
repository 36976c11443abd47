"""Training on text, from the files of a dataset to metrics: every task, resuming, and what is refused."""

import copy
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from flax import traverse_util

from jaxformer.checkpoints import Checkpoints
from jaxformer.config.sections import resolve
from jaxformer.data.writing import write_dataset
from jaxformer.errors import ConfigError, UserError
from jaxformer.experiment import Experiment, filled
from jaxformer.inference.loaded import LoadedRun
from jaxformer.models.bert import BERT
from jaxformer.runs import Run
from jaxformer.state import to_items
from jaxformer.tasks.translation import Translation
from jaxformer.train import Loop, train

SHARED = Path(__file__).parents[2] / "shared" / "tensorflow_datasets"
WORDS = "the a old young red king river mountain dog sings walks sleeps sees loves far near today home"
SIZES = {"width": 16, "num_heads": 2, "mlp_dim": 32}
BERT_FIELDS = {"name": "bert", **SIZES, "depth": 1, "max_positions": 48}
GPT_FIELDS = {"name": "gpt", **SIZES, "depth": 1, "context_length": 48}
# A kind of training: what it changes in `plain`.
KINDS = {
    "causal_lm": {
        "model": GPT_FIELDS | {"experts": {"count": 2, "top_k": 1}, "dropout": 0.1},
        "data.tokenizer": {"name": "characters", "template": "gpt"},
        "data.examples": {"name": "documents", "length": 32},
    },
    "masked_lm": {
        "model": BERT_FIELDS,
        "data.examples": {"name": "windows", "length": 16},
        "data.transforms": [{"name": "mask_tokens", "share": 0.3}],
        "data.eval_transforms": [{"name": "mask_tokens", "share": 0.3}],
    },
    "text_classification": {
        "model": BERT_FIELDS | {"head": "sequence"},
        "task.mixup": 0.2,
        "data.examples": {"name": "sequences", "length": 48, "features": ["text"]},
        "data.buckets": [32],
    },
    "text_regression": {
        "model": BERT_FIELDS | {"head": "sequence", "num_classes": 1},
        "data.examples": {
            "name": "sequences",
            "length": 48,
            "features": ["text", "other"],
            "label_feature": "score",
        },
    },
    "token_classification": {
        "model": BERT_FIELDS | {"head": "token"},
        "data.examples": {"name": "tagged", "length": 48, "words_feature": "words", "tags_feature": "tags"},
        "data.buckets": [32],
    },
    "span_qa": {
        "model": BERT_FIELDS | {"head": "span"},
        "data.name": "questions",
        "data.examples": {"name": "spans", "length": 40, "stride": 6, "question_length": 12},
    },
    "translation": {
        "model": {
            "name": "seq2seq",
            **SIZES,
            "encoder_depth": 1,
            "decoder_depth": 1,
            "context_length": 48,
            "scan": True,
        },
        "task.beams": 2,
        "task.max_new_tokens": 6,
        "data.tokenizer": {"name": "characters", "template": "seq2seq"},
        "data.examples": {"name": "pairs", "length": 48, "source_feature": "text", "target_feature": "other"},
    },
}


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS.split(), rng.integers(3, 9))) for _ in range(count)]


def example(text, other):
    words = text.split()
    tags = [1 + (word == "river") if word in ("king", "river") else 0 for word in words]
    return {
        "text": text,
        "other": other,
        "label": sum(word in words for word in ("river", "king")) if "river" in words else 0,
        "score": len(words) / 4,
        "words": words,
        "tags": tags,
        "kinds": tags,
    }


def question(text, index):
    place = text.index(" ") + 1
    answers = {"text": [text[place:]], "answer_start": [place]}
    return {"id": str(index), "question": f"what is {index}?", "context": text, "answers": answers}


def write(folder, seed=0):
    """A dataset of sentences with everything that a task may learn of them, and one of questions."""
    splits = {"train": sentences(40, seed), "test": sentences(13, seed + 100)}
    features = {
        "text": tfds.features.Text(),
        "other": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["bad", "good", "so so"]),
        "score": tfds.features.Scalar(np.float32),
        "words": tfds.features.Sequence(tfds.features.Text()),
        "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["O", "B-who", "B-where"])),
        "kinds": tfds.features.Sequence(tfds.features.ClassLabel(names=["other", "noun", "name"])),
    }
    made = {
        name: [example(text, " ".join(text.split()[::-1])) for text in texts]
        for name, texts in splits.items()
    }
    write_dataset(folder, "sentences", "1.0.0", features, made)
    answers = {"text": tfds.features.Text(), "answer_start": np.int32}
    features = {
        **{name: tfds.features.Text() for name in ("id", "question", "context")},
        "answers": tfds.features.Sequence(answers),
    }
    asked = {name: [question(text, i) for i, text in enumerate(texts)] for name, texts in splits.items()}
    asked["unanswerable"] = [
        {**asked["test"][i], "answers": {"text": [], "answer_start": []}} for i in range(2)
    ]
    write_dataset(folder, "questions", "1.0.0", features, asked)
    return str(folder)


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


def experiment(kind, folder, **changes):
    """An experiment of a kind, with changes by path."""
    plain = {
        "task.name": kind,
        "data.name": "sentences",
        "data.data_dir": folder,
        "data.batch_size": 8,
        "data.tokenizer": {"name": "characters", "template": "bert"},
        "eval.monitor": "loss",
        "eval.mode": "min",
        "eval.every": "4 steps",
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-2,
        "schedule.name": "constant",
        "train.total": "8 steps",
        "train.log_every": "1 step",
        "checkpoint.every": "2 steps",
    }
    flat = copy.deepcopy(plain | KINDS[kind] | changes)  # or a change of "model.depth" would stay in KINDS
    return resolve(
        traverse_util.unflatten_dict({tuple(path.split(".")): value for path, value in flat.items()})
    )


def logged(folder, name):
    """Step -> the metrics of a kind, "train" or "eval", that metrics.jsonl holds."""
    found = {}
    for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        values = {k.removeprefix(f"{name}/"): v for k, v in record.items() if k.startswith(f"{name}/")}
        values.pop("examples_per_second", None)
        if values:
            assert record["step"] not in found
            found[record["step"]] = values
    return found


@pytest.mark.parametrize("kind", KINDS)
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


def interrupted(patch, at, how):
    """Ends the training when a step's metrics are read: by SIGTERM, or at once."""
    read = Loop.read

    def reads(loop):
        if loop.unread is not None and loop.unread[0] == at:
            if how == "killed":
                raise InterruptedError
            os.kill(os.getpid(), signal.SIGTERM)
        read(loop)

    patch.setattr(Loop, "read", reads)


def saved(folder):
    trained = LoadedRun(folder, "latest")
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(to_items(trained.experiment.state_shapes)).items


@pytest.mark.parametrize("kind", ["causal_lm", "text_classification"])
def test_an_epoch_that_is_interrupted_goes_on_bit_for_bit(kind, datasets, tmp_path):
    """Packed documents, and rows by length in buckets; in the middle of an epoch, and past its end."""
    config = experiment(kind, datasets, **{"train.total": "14 steps"})
    train(Experiment(config), tmp_path / "whole")
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, 3, "SIGTERM")
        assert train(Experiment(config), folder)["status"] == "preempted"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, 10, "killed")
        with pytest.raises(InterruptedError):
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
        stopped = train(Experiment(config), tmp_path / "run")
    assert stopped["status"] == "preempted"
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
    assert LoadedRun(tmp_path / "run", "latest").step == stopped["step"]
    assert train(Experiment(config), tmp_path / "run")["status"] == "completed"


# What does not fit

LONG = {"name": "documents", "length": 64}
MISFITS = {
    "no arrays for the task": (
        "causal_lm",
        {"data.examples": {"name": "sequences", "length": 32, "features": ["text"]}},
        "data.examples: batches have labels, token_mask, token_types, tokens, this task needs targets",
    ),
    "a longer text than the context": (
        "causal_lm",
        {"data.examples": LONG},
        "data.examples.length=64: the model takes 48 tokens",
    ),
    "too small a vocabulary": ("causal_lm", {"model.vocab_size": 9}, "model.vocab_size=9: the tokenizer has"),
    "too many classes": (
        "text_classification",
        {"model.num_classes": 2},
        "model.num_classes=2: the dataset has 3 classes; set it to that, or to None",
    ),
    "too many tags": (
        "token_classification",
        {"model.num_classes": 2},
        "model.num_classes=2: the dataset has 3 tags",
    ),
    "another head": ("span_qa", {"model.head": "token"}, 'model.head="token": this task needs "span"'),
    "a decoder for classes": (
        "text_classification",
        {"model": GPT_FIELDS},
        'model: GPT has no head "sequence"',
    ),
    "an encoder for the next token": (
        "causal_lm",
        {"model": BERT_FIELDS},
        "model: BERT does not go from token",
    ),
    "a decoder for translations": (
        "translation",
        {"model": GPT_FIELDS},
        "model: GPT does not read one text and",
    ),
    "an image model": (
        "causal_lm",
        {"model": {"name": "vit", "image_size": 8, "patch_size": 4, "num_classes": 3, **SIZES, "depth": 1}},
        "model: ViT does not go from token to token",
    ),
    "texts for an image task": (
        "causal_lm",
        {"task.name": "classification", "eval.monitor": "accuracy"},
        "data.examples: batches have positions, segment_ids, targets, tokens, this task needs image",
    ),
    "numbers for classes": (
        "text_regression",
        {"task.name": "text_classification"},
        "data.examples.label_feature: holds numbers, not classes",
    ),
    "several outputs of a regression": (
        "text_regression",
        {"model.num_classes": 2},
        "model.num_classes=2: a regress",
    ),
    "masks in training alone": (
        "masked_lm",
        {
            "data.eval_transforms": [],
            "data.examples": {"name": "sequences", "length": 48, "features": ["text"]},
        },
        "data.eval_transforms: make no targets",
    ),
    "a metric of more classes": (
        "text_classification",
        {"eval.monitor": "top5"},
        "eval.monitor='top5': with 3 classes it is always 1; choose one of: loss, accuracy, balanced_accuracy",
    ),
    "a metric of entities": (
        "token_classification",
        {
            "data.examples": {
                "name": "tagged",
                "length": 48,
                "words_feature": "words",
                "tags_feature": "kinds",
            },
            "eval.monitor": "f1",
        },
        "eval.monitor='f1': the tags are not of entities (no B-, no I-); choose one of: loss, accuracy",
    ),
    "a text without a first token": (
        "text_classification",
        {"data.tokenizer": {"name": "characters"}},
        "data.tokenizer.template: writes no [CLS] or <s> before a text",
    ),
    "questions without answers in the evaluation": (
        "span_qa",
        {"eval.split": "unanswerable"},
        "eval.split: 2 of its questions have no answer",
    ),
    "no answer at all in training": (
        "span_qa",
        {"data.train_split": "unanswerable"},
        "data.train_split: no window holds its question's answer",
    ),
    "a metric that is not computed": (
        "translation",
        {"task.beams": 0, "eval.monitor": "bleu"},
        "eval.monitor='bleu': not a metric",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_before_training(case, datasets):
    kind, changes, message = MISFITS[case]
    with pytest.raises(ConfigError) as error:
        Experiment(experiment(kind, datasets, **changes)).check()
    lines = str(error.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(message)


def test_targets_without_masks_are_refused_by_the_first_batch(datasets):
    built = Experiment(
        experiment("masked_lm", datasets, **{"data.transforms": [], "data.eval_transforms": []})
    )
    built.check()
    with pytest.raises(UserError, match=r"data\.transforms: no token is masked"):
        built.train_data[0]


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
