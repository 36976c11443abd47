"""A run's folder as training leaves it: real digits, a linear classifier's predictions, made-up curves."""

import json

import numpy as np
import pytest
from helpers.shown_images import attention_of, shown_images
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from jaxformer.evaluation.samples import worst_mistakes
from jaxformer.observe.samples import Patches, write_samples
from jaxformer.observe.writers import MetricWriter

CONFIG = {
    "seed": 0,
    "task": {"name": "classification", "label_smoothing": 0.1},
    "model": {"name": "vit", "patch_size": 2, "width": 64, "depth": 4, "num_heads": 3, "num_classes": 10},
    "data": {"name": "digits", "batch_size": 128, "transforms": [{"name": "pad_and_crop", "padding": 1}]},
    "eval": {"split": "test", "every": "5 epochs", "monitor": "accuracy", "mode": "max"},
    "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": "5%"},
    "train": {"total": "60 epochs", "accumulate": 1, "ema_decay": None},
}


@pytest.fixture(scope="session")
def digits():
    """images uint8 [N, 8, 8, 1], labels [N], and probabilities [N, 10] from a classifier new to them."""
    images, labels = load_digits(return_X_y=True)
    classifier = LogisticRegression(C=0.001, max_iter=200).fit(images[:400], labels[:400])
    pixels = np.round(images[400:] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    return pixels, labels[400:], classifier.predict_proba(images[400:]).astype(np.float32)


def write_curves(folder, total=660, scale=1.0, seed=0):
    """metrics.jsonl as training writes it."""
    noise = np.random.default_rng(seed)
    with MetricWriter(folder, tensorboard=False) as writer:
        for step in range(10, total + 1, 10):
            loss = scale * (2.2 * np.exp(-step / 120) + 0.06) * np.exp(0.1 * noise.normal())
            values = {"train/loss": loss, "train/accuracy": 1 - loss / 2.5, "train/gradient_norm": 3 * loss}
            values |= {"train/learning_rate": 1e-3 * min(step / 33, 0.5 * (1 + np.cos(np.pi * step / total)))}
            writer.write(step, values | {"train/skipped": 0.0})
            if step % 60 == 0:
                writer.write(step, {"eval/loss": 1.1 * loss, "eval/accuracy": 1 - loss / 2.4})


def tables(labels, probabilities, class_names):
    """What an evaluation tells beside its metrics."""
    predicted = probabilities.argmax(-1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted)
    confidence, right = probabilities.max(-1), predicted == labels
    bins = np.minimum((confidence * 10).astype(int), 9)
    calibration = [
        {
            "confidence": float(confidence[bins == k].mean()) if (bins == k).any() else 0.0,
            "accuracy": float(right[bins == k].mean()) if (bins == k).any() else 0.0,
            "count": int((bins == k).sum()),
        }
        for k in range(10)
    ]
    return {
        "class_names": class_names,
        "confusion": confusion_matrix(labels, predicted).tolist(),
        "per_class": [
            {
                "name": class_names[k],
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
                "support": int(support[k]),
            }
            for k in range(len(class_names))
        ],
        "calibration": calibration,
    }


@pytest.fixture
def make_run(tmp_path, digits):
    """Makes a finished run's folder: `make_run("a", optimizer={...})`; keywords replace config sections."""

    def make(name="vit_digits", *, class_names=None, scale=1.0, **changes):
        images, labels, probabilities = digits
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        names = class_names or [str(k) for k in range(10)]
        environment = {
            "command": f"jaxformer train --config configs/{name}.py",
            "python": "3.11.7",
            "versions": {"jax": "0.10.2", "flax": "0.12.8"},
            "git_revision": "9189446d1f0c",
        }
        (folder / "config.json").write_text(json.dumps({"config": CONFIG | changes, **environment}))
        write_curves(folder, scale=scale)
        metrics = {
            "accuracy": float((probabilities.argmax(-1) == labels).mean()),
            "loss": 0.31 * scale,
            "ece": 0.0214,
        }
        evaluation = {"step": 660, "metrics": metrics, **tables(labels, probabilities, names)}
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
        result = {
            "status": "completed",
            "step": 660,
            "final": metrics,
            "best": {"step": 600, "accuracy": metrics["accuracy"] + 0.002},
            "seconds": {
                "startup": 2.1,
                "compile": 5.2,
                "train": 31.5,
                "evaluate": 2.2,
                "checkpoint": 0.7,
                "report": 1.9,
                "other": 0.4,
                "total": 44.0,
            },
            "parameters": 5_717_416,
            "flops_per_example": 1_080_000_000,
            "examples_per_second": 2683.1,
            "mfu": 0.183,
            "peak": "measured here with a large matrix product in float32",
            "device": "1 x CPU (AMD EPYC, 2 cores), 1 process, jax 0.10.2",
        }
        (folder / "result.json").write_text(json.dumps(result))
        errors = np.where(probabilities.argmax(-1) == labels, 0, probabilities.max(-1))
        for kind, rows in (("samples", np.arange(8)), ("mistakes", worst_mistakes(errors, 8))):
            parts = images[rows], labels[rows], probabilities[rows], names, attention_of(len(rows))
            write_samples(folder, shown_images(*parts), kind=kind, patches=Patches((4, 4), 1))
        return folder

    return make
