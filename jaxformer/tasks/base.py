"""What a task is: this page is all that one needs to read in order to add one.

A task is a frozen dataclass. Its fields are its configuration (`problems()` says what is wrong with them),
its methods are pure functions of batches and outputs. Write `tasks/NAME.py` with such a class and add a line
to TASKS in `tasks/__init__.py`: training, accumulating, every layout, evaluating and resuming work with it.

The one rule: give sums, never means. A batch may be split into microbatches and over devices, whose shares of
real examples differ; sums of parts add up to the sum of the whole, means do not. The step divides, once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Batch = Mapping[str, Any]  # arrays, examples first; the keys are those of `data/batches.py` and `augment`
Sums = Any  # a tree of arrays


class Batches(Protocol):
    """What a task sees of `data/batches.py`."""

    element_spec: dict[str, tuple[tuple[int, ...], np.dtype]]
    """For each array of a batch, its shape without the batch, and its dtype."""
    class_names: list[str] | None
    """Names of the classes, or None."""
    tokenizer: Any
    """What made the tokens, or None."""
    source: Any
    """The split's examples, for what only they know (texts, answers)."""


Row = Mapping[str, np.ndarray]  # one example's arrays, without the batch


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of a split found."""

    metrics: dict[str, float]
    """Name -> number; `eval.monitor` names one of them."""
    tables: dict[str, Any]
    """What is more than a number, as JSON values, for evaluation.json. The report shows those that it knows:
    "class_names", "confusion", "per_class", "calibration" (see `ClassMetrics.summarize`), "loss_by_position"
    (`LanguageModeling.summarize`) and "notes", lines of text."""


class Task(Protocol):
    """The contract. JAX traces all methods but `fits`, `check` and `summarize`; padding rows count in none of them."""

    metric_names: Sequence[str]
    """The metrics that `summarize` may give, to check `eval.monitor` before training. Where the data decide
    whether it gives one, the task has a method `absent_metrics`, too (see `ClassTask`)."""

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for every way in which the dataset does not fit the model; before anything is computed."""
        ...

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Raises UserError for a batch on the host that would give garbage without an error on the device."""
        ...

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """The model's arguments: `model.apply(variables, **task.inputs(batch), deterministic=...)`."""
        ...

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Augmentation on the device, in training only, before the batch is split into microbatches."""
        ...

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """What each loss is divided by, after adding up over the whole batch: name -> float32 []."""
        ...

    def loss(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """The sum of each loss over the examples, float32 [], under the names of `counts`.

        What is minimised is the sum of the losses' means. That is the metric "loss": call none of them so.
        """
        ...

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Metrics of a training batch: name -> (sum, count), both float32 []."""
        ...

    def eval_sums(self, outputs: Any, batch: Batch) -> Sums:
        """What `summarize` needs, as a tree of arrays that can be added up over batches and devices."""
        ...

    def collect(self, outputs: Any, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """What `summarize` needs of every single example: name -> [B, ...]; nothing for most tasks.

        Args:
          outputs: of the model for the batch.
          batch: the batch.
          model: the linen module, for what takes more than one pass (decoding).
          variables: what it is applied with.
        """
        ...

    def summarize(self, sums: Sums, collected: Mapping[str, np.ndarray], data: Batches) -> Evaluation:
        """Metrics and tables from the sums over a whole split, NumPy float64, and what was collected, [N, ...].

        Padding rows are left out of what was collected; its "index" is each row's number in the split.
        """
        ...

    def predictions(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """What the model says of each example, as `sample` needs it: name -> [B, ...]."""
        ...

    def errors(self, outputs: Any, batch: Batch) -> jax.Array:
        """How wrong the model is about each example, float32 [B]: the larger, the worse; 0 is no mistake."""
        ...

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """An example and what the model says of it (one row of `predictions`), as JSON values for the report.

        Returns:
          "correct": whether it was right, or None where that is no question; and what `observe/samples.py` shows: of
          classes "label" and "top", of texts "text", "target", "prediction" and "pieces".
        """
        ...


def example_mask(batch: Batch) -> jax.Array:
    """bool [B]: False on padding rows. Training batches have none, and no mask."""
    if "example_mask" in batch:
        return jnp.asarray(batch["example_mask"])
    return jnp.ones(next(iter(batch.values())).shape[:1], bool)


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The sum of `values` [B, ...] over the rows where `mask` is True, float32 [...]; the rest may be NaN."""
    mask = mask.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0), axis=0)
