"""The contract of a task: this page is all that one needs to read in order to add one.

A task is a frozen dataclass with `Task` as its base. Its fields are its configuration (their constraints stand with
them, as `config/fields.py` has it), its methods are pure functions of batches and outputs. What has a default below
may be left out. Write `tasks/NAME.py` with such a class (`tasks/image.py` and `tasks/text.py` have bases for images and
texts) and add a line to TASKS in `tasks/__init__.py`, or name it "my_package.my_file:MyTask" in a config: training,
accumulating, every layout, evaluating, resuming, predicting and the report work with it.

The one rule: give sums, never means. A batch may be split into microbatches and over devices, whose shares of
real examples differ; sums of parts add up to the sum of the whole, means do not. The step divides, once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Batch = Mapping[str, Any]  # arrays, examples first; the keys are those of `data/batches.py` and `augment`
Arrays = dict[str, jax.Array]
Sums = Any  # a tree of arrays
Collected = Mapping[str, np.ndarray]  # what `collect` gave of the whole split, without padding rows: [N, ...]
Names: TypeAlias = Sequence[str] | None  # of classes, by their numbers
Row = Mapping[str, Any]  # one example's arrays, without the batch
Images = dict[str, Any]  # of `draw` PIL's, of `compare` uint8 [H, W, 3]
Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, count), both float32 []

Direction: TypeAlias = Literal["max", "min"]
Reads: TypeAlias = Literal["image", "text", "words", "question"] | None


class DataInfo(Protocol):
    """What a task needs to know in order to put its predictions into words."""

    class_names: list[str] | None
    """Names of the first classes, or None; the other classes are called by their numbers."""
    tokenizer: Any
    """The tokenizer that made the tokens, or None."""


class Batches(DataInfo, Protocol):
    """What a task sees of `data/batches.py`."""

    element_spec: dict[str, tuple[tuple[int, ...], np.dtype]]
    """For each array of a batch, its shape without the batch, and its dtype."""
    source: Any
    """The split's examples, for what only they know (texts, answers)."""
    batch_size: int
    """Examples in a batch, over all devices."""


@dataclass(frozen=True)
class Evaluation:
    """The results of evaluating a split."""

    metrics: dict[str, float]
    """Name -> number; `eval.monitor` names one of them."""
    tables: dict[str, Any]
    """What is more than a number, as JSON values, for evaluation.json. The report shows those that it knows:
    "class_names", "confusion", "per_class", "calibration" (see `ClassTask.summarize`), "loss_by_position"
    (`LanguageModel.summarize`), "retrieval" (`retrieval.close_up`) and "notes", lines of text."""
    baseline: Mapping[str, float] = field(default_factory=dict)
    """Metric -> its value if every answer were the same, the best for it: the commonest class, the mean number."""

    @property
    def ranked(self) -> dict[str, float]:
        """The metrics as all that ranks takes them: NaN, each of them, where the "loss" is not finite.

        What a model answers that gives no number for a loss can still be counted, and a share of right answers be made
        of it, which says nothing.
        """
        usable = math.isfinite(self.metrics.get("loss", 0.0))
        return self.metrics if usable else dict.fromkeys(self.metrics, math.nan)


class Task(ABC):
    """The contract. JAX traces the methods from `inputs` to `errors`; padding rows count in none of them."""

    modality: ClassVar[Literal["image", "text"]] = "image"
    """Whether the examples are images or texts."""
    reads: ClassVar[Reads] = "image"
    """One input of `predict`: an image, a text (or a pair of texts where the examples are pairs), a list of words or
    (question, context). None: the task predicts nothing."""
    written: ClassVar[Mapping[str, str]] = {}
    """Images that `predict` writes beside the annotated one: their keys in `draw` and in the JSON line -> how the
    names of the files end."""

    looks: ClassVar[bool] = False
    """Whether `looked` says where the model looked for each part of its answer."""
    views: ClassVar[tuple[str, ...]] = ()
    """The sets of views over which an evaluation can average (`evaluation/views.py`)."""
    averaged: ClassVar[bool] = False
    """Whether several models can answer together (`inference/ensemble.py`): outputs have `logits` of classes, and
    `predictions` gives "probabilities"."""
    compares: ClassVar[bool] = False
    """Whether the loss compares the examples of a batch with each other. Outputs then are `PairOutputs`, or have its
    fields `axis` and rows in every array; sums are over this device's rows, compared with those of all devices."""
    distillation: Any = None
    """Settings of a teacher, `losses.Distillation`; None where the task learns from labels alone."""

    @property
    def independent_classes(self) -> bool:
        """Whether each class has a probability of its own; else they sum to 1."""
        return False

    only_in_training: ClassVar[Collection[str]] = ("label_smoothing", "mixup", "cutmix", "distillation")
    """Fields that, where they are set, make the loss of training another than an evaluation's "loss"."""

    @property
    def same_loss(self) -> bool:
        """Whether the losses of training and of evaluations can be compared, so that a report draws them together."""
        return not any(vars(self).get(name) for name in self.only_in_training)

    @property
    @abstractmethod
    def metric_names(self) -> Sequence[str]:
        """The metrics that `summarize` may give, to check `eval.monitor` before training; a class attribute does."""

    lower_is_better: ClassVar[Collection[str]] = ("loss", "perplexity", "ece")
    """The metrics of which less is better; of all others more is."""

    def direction(self, metric: str) -> Direction:
        """Whether more of a metric is better ("max") or less ("min"): whatever ranks evaluations asks this."""
        return "min" if metric in self.lower_is_better else "max"

    # Before training

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        """Metrics that `summarize` may not give for these data -> why, as a part of a sentence."""
        return {}

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for every way in which the dataset does not fit the model; before anything is computed."""
        yield from ()

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:  # noqa: B027 - nothing by default
        """Raises UserError for a batch on the host that would give garbage without an error on the device."""

    def learnable(self, batch: Batch, outputs: Any) -> Batch:
        """The batch with targets that a model with outputs of such shapes can learn by heart, for `train --debug`."""
        return batch

    # Training

    @abstractmethod
    def inputs(self, batch: Batch) -> Arrays:
        """The model's arguments: `model.apply(variables, **task.inputs(batch), deterministic=...)`."""

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Augmentation on the device, in training only, before the batch is split into microbatches."""
        return batch

    @abstractmethod
    def counts(self, batch: Batch) -> Arrays:
        """The divisor of each loss, before adding up over the whole batch: name -> float32 []."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Arrays:
        """The sum of each loss over the examples, float32 [], under the names of `counts`.

        Training minimises the sum of the losses' means. That is the metric "loss": give none of them that name.
        """

    def metrics(self, outputs: Any, batch: Batch) -> Metrics:
        """Metrics of a training batch: name -> (sum, count), both float32 []."""
        return {}

    # Evaluation

    @abstractmethod
    def eval_sums(self, outputs: Any, batch: Batch) -> Sums:
        """What `summarize` needs, as a tree of arrays that can be added up over batches and devices."""

    def collect(self, outputs: Any, batch: Batch, model: Any, variables: Any) -> Arrays:
        """What `summarize` needs of every single example: name -> [B, ...].

        Args:
          outputs: the model's, for the batch.
          batch: the batch.
          model: the linen module, for what takes more than one pass (decoding).
          variables: what the model is applied with.
        """
        return {}

    def kept(self, rows: Collected, data: Batches) -> Collected:
        """What is kept on the host of the rows that `collect` gave of a batch, until `summarize`.

        Args:
          rows: without padding; "index" is each row's number in the split.
          data: the split.

        Returns:
          All of it, unless it is large and less says the same; name -> [n, ...], for any n.
        """
        return rows

    @abstractmethod
    def summarize(self, sums: Sums, collected: Collected, data: Batches) -> Evaluation:
        """Metrics and tables from the sums over a whole split, NumPy float64, and what was `kept`, [N, ...].

        Sums are of what the model was shown. What is right comes from the dataset (`data.source.truth`), so that what
        was cut off, skipped or not shown counts as missed: the support of a metric is the dataset's, at any length,
        size or setting. `unseen` has the examples of which there is no row; "index" is each row's number in the split.
        """

    # Predictions

    @abstractmethod
    def predictions(self, outputs: Any, batch: Batch) -> Arrays:
        """The model's prediction for each example, as `sample` and `answers` need it: name -> [B, ...]."""

    def shown(self, outputs: Any, batch: Batch, model: Any, variables: Any) -> Arrays:
        """The predictions that `sample` gets, which the report shows; those of `predictions`, unless they take more
        than one pass. Arguments as of `collect`."""
        return self.predictions(outputs, batch)

    def errors(self, outputs: Any, batch: Batch) -> jax.Array:
        """How wrong each prediction is, float32 [B]: the larger, the worse; 0 is no mistake."""
        return jnp.zeros(example_mask(batch).shape, jnp.float32)

    def predict(self, model: Any, variables: Any, batch: Batch, top: int = 5) -> Arrays:
        """The predictions for a user's own examples, which have no targets; `answers` gets them row by row."""
        outputs = model.apply(variables, **self.inputs(batch), deterministic=True)
        return self.predictions(outputs, batch)

    # For people, on the host

    def prepare(self, example: Row, about: DataInfo) -> Row:
        """A user's own example with what else `predict` needs of it.

        Raises:
          UserError: there is nothing to predict.
        """
        return example

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """The prediction for one example as JSON values: what `predict` prints and `LoadedRun.predict` returns.

        Args:
          predicted: a row of `predict`; of a question its windows' rows, stacked.
          example: the example's arrays; of an image also "original_size", the height and width of the image that
            positions in the answer refer to.
          about: the names of the classes and the tokenizer.
          top: how many answers to list where there are several.
        """
        return {name: np.asarray(value).tolist() for name, value in predicted.items()}

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> Images:
        """The images that `predict` writes: under "" the annotated one, then those of `written`.

        Args:
          image: uint8 [H, W, 3], of the example's "original_size".
          answer: the example's, from `answers`.
          predicted: as of `answers`.
          example: as of `answers`.
        """
        return {}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """An example and its prediction (one row of `predictions`), as JSON values for the report.

        Returns:
          "correct": whether the prediction is right, or None if not applicable; and what `observe/samples.py` shows:
          of classes "label" and "top"; of texts "text", "target", "prediction", "pieces", "called" (what the text is
          called) and "answer" (the range of its letters that is the answer); of images "caption" and "legend".
        """
        return {"correct": None, **self.answers(predicted, example, data)}

    def looked(self, predicted: Row, about: DataInfo) -> list[tuple[str, np.ndarray]]:
        """The parts of an answer about an image, such as its words, each with a map of where the model looked for it,
        float32 [h, w], at least 0, over the whole image.

        Args:
          predicted: a row of `shown`.
          about: as of `answers`.
        """
        return []

    def compare(self, example: Row, predicted: Row, sample: Mapping[str, Any]) -> Images:
        """Further images of an example for the report, such as "truth" and "prediction": uint8 [H, W, 3]."""
        return {}


class ExampleTask(Task):
    """A task with one loss for each example: a subclass gives `losses`, and the sums of the contract follow."""

    @property
    def loss_key(self) -> str:
        """The loss's name among a train step's metrics."""
        return "cross_entropy"

    @abstractmethod
    def losses(self, outputs: Any, batch: Batch) -> jax.Array:
        """The loss of each example, float32 [B]; padding rows may have any."""

    def counts(self, batch: Batch) -> Arrays:
        """The number of examples, float32 []."""
        return {self.loss_key: jnp.sum(example_mask(batch), dtype=jnp.float32)}

    def loss(self, outputs: Any, batch: Batch) -> Arrays:
        return {self.loss_key: masked_sum(self.losses(outputs, batch), example_mask(batch))}

    def eval_sums(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """The "loss" and the "count" of examples, float32 []."""
        count = jnp.sum(example_mask(batch), dtype=jnp.float32)
        return {"loss": masked_sum(self.losses(outputs, batch), example_mask(batch)), "count": count}

    def errors(self, outputs: Any, batch: Batch) -> jax.Array:
        return self.losses(outputs, batch)


def example_mask(batch: Batch) -> jax.Array:
    """bool [B]: False on padding rows. Training batches have none, and no mask."""
    if "example_mask" in batch:
        return jnp.asarray(batch["example_mask"])
    return jnp.ones(next(iter(batch.values())).shape[:1], bool)


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The sum of `values` [B, ...] over the rows where `mask` is True, float32 [...]; the rest may be NaN."""
    mask = mask.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0), axis=0)


def unseen(collected: Collected, data: Batches) -> list[int]:
    """The numbers of the split's examples that the model was not shown, such as images that cannot be decoded."""
    index = collected.get("index")
    return [] if index is None else np.setdiff1d(np.arange(len(data.source)), index).tolist()


def lacks(needs: Sequence[str], data: Batches) -> str:
    """A message about the arrays that a task needs and the batches do not have; "" if there are none."""
    missing = ", ".join(name for name in needs if name not in data.element_spec)
    made = ", ".join(sorted(data.element_spec))
    return f"data.examples: batches have {made}, this task needs {missing}" if missing else ""


def class_name(number: int, names: Names) -> str:
    """A class's name; its number where it has none."""
    return str(names[number]) if names and 0 <= number < len(names) else str(number)


def class_names(count: int, data: DataInfo) -> list[str]:
    """The names of `count` classes."""
    return [class_name(number, data.class_names) for number in range(count)]


def labelled(number: Any, names: Names) -> dict[str, Any]:
    """A class as it stands in answers: its name as "label", and its number as "index"."""
    return {"label": class_name(int(number), names), "index": int(number)}


def mean_of(sums: Sums, name: str = "loss") -> float:
    """The mean of a sum by `name` over the "count", both added up over their places; 0 of nothing."""
    return float(np.sum(sums[name])) / max(float(np.sum(sums["count"])), 1.0)
