"""Runs of tiny models of text on tiny datasets: trained for a few steps, or as a folder with random parameters."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from jaxformer import cli
from jaxformer.checkpoints import Checkpoints
from jaxformer.config.sections import resolve
from jaxformer.data.writing import write_dataset
from jaxformer.experiment import Experiment
from jaxformer.runs import Run

SENTENCE = "the cat saw a dog and the dog saw the cat in Oslo with Ann"
TAGS = ["O", "B-place", "B-person"]
TAG_OF = {"Oslo": 1, "Ann": 2}
LABELS = ["bad", "good", "odd"]

FEATURES = {
    "text": tfds.features.Text(),
    "other": tfds.features.Text(),
    "document": tfds.features.Text(),
    "label": tfds.features.ClassLabel(names=LABELS),
    "score": tfds.features.Scalar(np.float32),
    "words": tfds.features.Sequence(tfds.features.Text()),
    "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=TAGS)),
    "question": tfds.features.Text(),
    "answers": tfds.features.Sequence({"text": tfds.features.Text(), "answer_start": np.int32}),
}
ENCODER = {"name": "bert", "max_positions": 32, "width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
WORDPIECE = {"name": "trained", "kind": "wordpiece", "vocab_size": 60, "template": "bert"}
SEQUENCES = {"name": "sequences", "length": 16, "features": ["text"]}
# Of each run: the task, the model, the examples, the tokenizer, and what evaluation watches.
RUNS = {
    "classes": ("text_classification", {"head": "sequence"}, SEQUENCES, WORDPIECE, "accuracy"),
    "pairs": (
        "text_regression",
        {"head": "sequence", "num_classes": 1},
        {**SEQUENCES, "features": ["text", "other"], "label_feature": "score"},
        WORDPIECE,
        "loss",
    ),
    "compared": (
        "text_pairs",
        {"name": "text_pairs", "text": {**ENCODER, "head": "none", "pooler": "none"}},
        {"name": "compared", "length": 32, "features": ["text", "other"], "label_feature": "score"},
        WORDPIECE,
        "spearman",
    ),
    "tags": (
        "token_classification",
        {"head": "token"},
        {"name": "tagged", "length": 24, "words_feature": "words", "tags_feature": "tags"},
        WORDPIECE,
        "loss",
    ),
    "masks": ("masked_lm", {"head": "mlm"}, {**SEQUENCES, "label_feature": None}, WORDPIECE, "loss"),
    "questions": (
        "span_qa",
        {"head": "span"},
        {
            "name": "spans",
            "length": 24,
            "stride": 4,
            "question_length": 8,
            "context_feature": "text",
            "id_feature": None,
        },
        WORDPIECE,
        "loss",
    ),
    "translation": (
        "translation",
        {"name": "seq2seq", "context_length": 24, "encoder_depth": 1, "decoder_depth": 1},
        {"name": "pairs", "length": 16, "source_feature": "text", "target_feature": "other"},
        {"name": "trained", "kind": "bpe", "vocab_size": 280, "template": "seq2seq"},
        "loss",
    ),
    "language": (
        "causal_lm",
        {"name": "gpt", "context_length": 32, "depth": 1},
        {"name": "windows", "length": 16, "feature": "document"},
        {"name": "characters"},
        "loss",
    ),
}


def write_texts(data_dir: Path) -> None:
    """Writes the dataset "tiny": 16 and 8 examples of short sentences, with everything that a task may want."""

    def example(rng):
        words = rng.choice(SENTENCE.split(), rng.integers(3, 8)).tolist()
        start = len(" ".join(words[:1])) + 1
        return {
            "text": " ".join(words),
            "other": " ".join(words[::-1]),
            "document": " ".join(words) + "\n\n",
            "label": len(words) % 3,
            "score": len(words) / 8,
            "words": words,
            "tags": [TAG_OF.get(word, 0) for word in words],
            "question": f"what comes after {words[0]}",
            "answers": [{"text": words[1], "answer_start": start}],
        }

    rng = np.random.default_rng(0)
    splits = {"train": [example(rng) for _ in range(16)], "test": [example(rng) for _ in range(8)]}
    write_dataset(data_dir, "tiny", "1.0.0", FEATURES, splits)


def config_of(name: str, data_dir: Path) -> dict:
    """A run's config."""
    task, model, examples, tokenizer, monitor = RUNS[name]
    sizes = {} if name == "compared" else {"width": 16, "num_heads": 2, "mlp_dim": 32}
    masks = [{"name": "mask_tokens"}] if name == "masks" else []
    return {
        "task": {"name": task, **({"beams": 2} if name == "translation" else {})},
        "model": {**(sizes if "name" in model else ENCODER), **model},
        "data": {
            "name": "tiny",
            "data_dir": str(data_dir),
            "batch_size": 8,
            "examples": examples,
            "tokenizer": tokenizer,
            "transforms": masks,
            "eval_transforms": masks,
        },
        "eval": {"split": "test", "every": "3 steps", "monitor": monitor},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "schedule": {"name": "constant"},
        "train": {"total": "3 steps"},
    }


def train_run(name: str, data_dir: Path, folder: Path) -> Path:
    """Trains a run for three steps, from the command line."""
    config = folder.parent / f"{name}_config.py"
    literal = json.dumps(config_of(name, data_dir)).replace("null", "None")
    config.write_text(
        f"import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({literal})\n"
    )
    assert cli.main(["train", "--config", str(config), "--run", str(folder)]) == 0
    return folder


def random_run(name: str, data_dir: Path, folder: Path) -> Path:
    """As `with_random_parameters`, by a run's name."""
    return with_random_parameters(config_of(name, data_dir), folder)


def with_random_parameters(made: dict, folder: Path) -> Path:
    """A run's folder as training leaves it, but that its parameters are random and large, and nothing is evaluated."""
    config = resolve(made)
    experiment = Experiment(config)
    experiment.check()
    run = Run(folder)
    run.enter(config)
    run.keep_data(experiment.train_data, experiment.eval_data)
    rng = np.random.default_rng(8)

    def drawn(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(leaf.dtype)
        return jnp.asarray(
            1 + 0.1 * noise if path[-1].key == "scale" else (0.1 if leaf.ndim == 1 else 0.7) * noise
        )

    state = dict(experiment.variable_shapes)
    params = jax.tree_util.tree_map_with_path(drawn, state.pop("params"))
    statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), state)
    items = {"params": {"params": params, "model_state": statistics, "average": None}}
    with Checkpoints(run.checkpoints, config.checkpoint) as checkpoints:
        checkpoints.save(1, items, {})
    return folder
