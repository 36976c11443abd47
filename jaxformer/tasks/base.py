"""The contract between a task and the rest: what to write in order to add one.

A task is a frozen dataclass: its fields are its configuration, its methods are pure functions. Write one, put its
name into TASKS (tasks/__init__.py), and the train step, evaluation, checkpoints and reports work with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

Batch = dict[str, Any]
Sums = Any


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      metrics: name -> number, among them whatever a config may watch with `eval.monitor`.
      tables: JSON values for the report and evaluation.json: "class_names", "confusion" (rows are true classes),
        "per_class" and "calibration" of a classifier.
    """

    metrics: dict[str, float]
    tables: dict[str, Any]


class Task(Protocol):
    """What is learnt. Everything is a sum over examples: the caller adds up and divides once."""

    metric_names: tuple[str, ...]  # what `summarize` gives, for checking configs

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """The model's keyword arguments; images are normalised here, on the device."""
        ...

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """The batch after augmentation on the device; in training only, before it is split into microbatches."""
        ...

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """What each loss is divided by, float32 [], from the batch alone. Padding does not count."""
        ...

    def loss(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Each loss as a sum, float32 [], under the names of `counts`. The step minimises their sum."""
        ...

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Training metrics as (total, count)."""
        ...

    def eval_sums(self, outputs: Any, batch: Batch) -> Sums:
        """Whatever `summarize` needs, as arrays that add up over batches and devices."""
        ...

    def summarize(self, sums: Sums, class_names: Sequence[str] | None) -> Evaluation:
        """Metrics and tables from the sums of a whole split (NumPy, float64)."""
        ...

    def probabilities(self, outputs: Any) -> jax.Array:
        """Per-example predictions for people: probabilities [B, K]."""
        ...


def example_mask(batch: Batch) -> jax.Array:
    """float32 [B]: 1 for examples, 0 for padding rows."""
    if "example_mask" in batch:
        return batch["example_mask"].astype(np.float32)
    return jax.numpy.ones(batch["labels"].shape[:1], np.float32)
