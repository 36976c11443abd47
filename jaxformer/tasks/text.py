"""What tasks over texts have in common: the model's inputs, losses of tokens, and what does not fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Rate
from jaxformer.errors import UserError
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Batch, Batches, DataInfo, Reads, Row, Task, example_mask
from jaxformer.tasks.losses import token_cross_entropy

TEXT_KINDS = ("encoder", "decoder", "encoder-decoder")
TEXT_INPUTS = ("tokens", "token_mask", "token_types", "segment_ids", "positions")


class TextTask(Task):
    """Learns something about texts: batches have `tokens` (int32 [B, T]) and what describes them."""

    modality = "text"
    reads: ClassVar[Reads] = "text"
    needs: ClassVar[tuple[str, ...]] = ("tokens",)
    """The arrays that a batch must have."""
    head: ClassVar[str | None] = None
    """The head that an encoder must have; None: the task is not for encoders."""

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if self.head is not None:
            yield from head_fits(model, self.head)
        yield from text_fits(model, train, evaluation, self.needs)

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses tokens that are no row of the model's table."""
        tokens = batch["tokens"]
        if model.vocab_size is not None and tokens.size and tokens.max() >= model.vocab_size:
            raise UserError(
                f"model.vocab_size={model.vocab_size}: a batch has the token {tokens.max()}; "
                "the tokenizer is another one than the model's"
            )

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        return {name: jnp.asarray(batch[name]) for name in TEXT_INPUTS if name in batch}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The text with the model's answers."""
        return {"text": text_of(example, data), **super().sample(example, predicted, data)}


@dataclass(frozen=True)
class TokenTask(TextTask):
    """Learns a target at each place that has one.

    Batches have the targets under the name `targets_key` (int32 [B, T], negative where there is none). Models give
    `TextOutputs` with logits [B, T, K].
    """

    label_smoothing: Rate = 0.0
    """The share of a target that is spread over all of them, in training; 0.1 in Vaswani et al. 2017."""

    targets_key: ClassVar[str] = "targets"
    """The name of the targets in a batch."""

    def targets(self, batch: Batch) -> jax.Array:
        """int32 [B, T]; -1 where there is none, and on padding rows."""
        return jnp.where(example_mask(batch)[:, None], batch[self.targets_key], -1)

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of targets, float32 []."""
        return {"cross_entropy": jnp.sum(self.targets(batch) >= 0, dtype=jnp.float32)}

    def loss(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        losses = token_cross_entropy(outputs.logits, self.targets(batch), self.label_smoothing)
        return {"cross_entropy": jnp.sum(losses)}

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """Losses without label smoothing, right predictions and targets by position, float32 [T].

        Batches of several T add up, too.
        """
        targets = self.targets(batch)
        right = (jnp.argmax(outputs.logits, axis=-1) == targets) & (targets >= 0)
        return {
            "loss": jnp.sum(token_cross_entropy(outputs.logits, targets), axis=0),
            "correct": jnp.sum(right, axis=0, dtype=jnp.float32),
            "count": jnp.sum(targets >= 0, axis=0, dtype=jnp.float32),
        }

    def means(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """ "loss", in nats a target and without label smoothing, and "accuracy"."""
        count = max(float(sums["count"].sum()), 1.0)
        return {"loss": float(sums["loss"].sum()) / count, "accuracy": float(sums["correct"].sum()) / count}

    def predictions(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The likeliest token at each place, given those before it, int32 [B, T]."""
        return {"likeliest": jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)}

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The mean loss of each example's targets, float32 [B]."""
        targets = self.targets(batch)
        losses = token_cross_entropy(outputs.logits, targets)
        return jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(targets >= 0, axis=1), 1)


def head_fits(model: Any, head: str) -> Iterator[str]:
    """Yields a line if the model is no encoder, or has another head than the task needs."""
    if model.kind != "encoder":
        yield f'model: {type(model).__name__} has no head "{head}", which this task needs; choose "bert"'
    elif model.head != head:
        yield f'model.head="{model.head}": this task needs "{head}"'


def text_fits(model: Any, train: Batches, evaluation: Batches, needs: tuple[str, ...]) -> Iterator[str]:
    """Yields a line where batches lack arrays, or have longer texts or more tokens than the model takes."""
    missing = [name for name in needs if name not in train.element_spec]
    if missing:
        yield (
            f"data.examples: batches have {', '.join(sorted(train.element_spec))}, this task needs "
            f"{', '.join(missing)}: choose another kind of examples, or another task"
        )
        return
    missing = [name for name in needs if name not in evaluation.element_spec]
    if missing:
        yield f"data.eval_transforms: make no {', '.join(missing)}, as data.transforms do; add what does"
    if model.kind not in ("encoder", "decoder", "encoder-decoder"):
        return
    length, longest = train.element_spec["tokens"][0][0], model.context_length
    if length > longest:
        yield f"data.examples.length={length}: the model takes {longest} tokens; make one fit the other"
    if train.tokenizer is not None and model.vocab_size is not None:
        tokens = train.tokenizer.vocab_size
        if model.vocab_size < tokens:
            yield (
                f"model.vocab_size={model.vocab_size}: the tokenizer has {tokens} tokens; set it to that, or to None"
            )


def labels_fit(model: Any, train: Batches, what: str) -> Iterator[str]:
    """Yields a line if the model has fewer classes than the dataset, or nobody knows how many there are."""
    if model.kind != "encoder":
        return
    names, classes = train.class_names, model.num_classes
    if classes is None:
        yield f"model.num_classes: missing, and the dataset does not say how many {what} it has; set it"
    elif names is not None and classes < len(names):
        yield f"model.num_classes={classes}: the dataset has {len(names)} {what}; set it to that, or to None"


def text_of(example: Row, data: DataInfo) -> str:
    """The text of an example's tokens."""
    return data.tokenizer.decode(example["tokens"][example["token_mask"]])


def real_tokens(example: Row, name: str = "tokens") -> int:
    """How many of the tokens `name` ("tokens" or "decoder_tokens") are in front of the padding at the end."""
    if name == "decoder_tokens":
        real = example["targets"] >= 0
    elif "token_mask" in example:
        real = example["token_mask"]
    elif "segment_ids" in example:
        real = example["segment_ids"] > 0
    elif "targets" in example:
        real = example["targets"] >= 0
    else:
        return len(example[name])
    return int(np.flatnonzero(real)[-1]) + 1 if np.any(real) else 0
