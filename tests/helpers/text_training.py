"""Small trainings on text: a dataset of sentences, one of questions, and an experiment for every task."""

import copy
import json

import numpy as np
import tensorflow_datasets as tfds
from flax import traverse_util

from jaxformer.config.sections import resolve
from jaxformer.data.writing import write_dataset

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


def experiment(kind, folder, **changes):
    """An experiment of a kind, with changes by path."""
    plain = {
        "task.name": kind,
        "data.name": "sentences",
        "data.data_dir": folder,
        "data.batch_size": 8,
        "data.tokenizer": {"name": "characters", "template": "bert"},
        "eval.monitor": "loss",
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
