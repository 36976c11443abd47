"""What tasks over texts have in common: the model's inputs, losses of tokens, and what does not fit."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Input, Rate
from jaxformer.errors import UserError, counted
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Reads, Row, Task, example_mask, lacks
from jaxformer.tasks.losses import token_cross_entropy
from jaxformer.tasks.token_loss import summed_losses

TEXT_INPUTS = ("tokens", "token_mask", "token_types", "segment_ids", "positions")


class TextTask(Task):
    """A task over texts: batches have `tokens` (int32 [B, T]) and the arrays that describe them."""

    modality: ClassVar[Literal["image", "text"]] = "text"
    reads: ClassVar[Reads] = "text"
    needs: ClassVar[tuple[str, ...]] = ("tokens",)
    """The arrays that a batch must have."""
    head: ClassVar[str | None] = None
    """The head that an encoder must have; None: the task is not for encoders."""

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if self.head is not None and model.kind != "encoder":
            yield f'model: {type(model).__name__} has no head "{self.head}", which this task needs; choose "bert"'
        elif self.head is not None and model.head != self.head:
            yield f'model.head="{model.head}": this task needs "{self.head}"'
        if lacking := lacks(self.needs, train):
            yield f"{lacking}: choose another kind of examples, or another task"
            return
        if missing := [name for name in self.needs if name not in evaluation.element_spec]:
            yield f"data.eval_transforms: make no {', '.join(missing)}, as data.transforms do; add what does"
        if "targets" in train.element_spec and "targets" not in self.needs:
            yield "data.transforms: mask_tokens makes targets, which this task does not learn; leave it out"
        if model.kind not in ("encoder", "decoder", "encoder-decoder"):
            return
        yield from tokens_fit(model, train)

    def classes_fit(self, model: Any, train: Batches, what: str) -> Iterator[str]:
        """Yields a line if the model has fewer classes than the dataset, or if their number is not known."""
        if model.kind == "encoder":
            names, classes = train.class_names, model.num_classes
            if classes is None:
                yield f"model.num_classes: missing, and the dataset does not say how many {what} it has; set it"
            elif names is not None and classes < len(names):
                yield f"model.num_classes={classes}: the dataset has {len(names)} {what}; set it to that, or to None"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        check_tokens(model, batch)

    def inputs(self, batch: Batch) -> Arrays:
        return {name: jnp.asarray(batch[name]) for name in TEXT_INPUTS if name in batch}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The text with the model's answers."""
        return {"text": text_of(example, data), **super().sample(example, predicted, data)}


def tokens_fit(model: Any, train: Batches) -> Iterator[str]:
    """Yields a line for texts that are longer than the model takes, and for tokens that it has no rows for."""
    length, longest = train.element_spec["tokens"][0][0], model.longest_text
    if length > longest:
        taken, remedy = counted(longest, "token"), "make one fit the other"
        if model.prompt:
            taken += f" behind its prompt of {model.prompt}"
            remedy += ", or make the prompt shorter (adapter.length or model.prompt)"
        yield f"data.examples.length={length}: the model takes {taken}; {remedy}"
    tokens, rows = None if train.tokenizer is None else train.tokenizer.vocab_size, model.vocab_size
    if tokens is not None and rows is not None and rows < tokens:
        yield f"model.vocab_size={rows}: the tokenizer has {counted(tokens, 'token')}; set it to that, or to None"


def check_tokens(model: Any, batch: Mapping[str, np.ndarray]) -> None:
    """Raises UserError for tokens of a batch that are no row of the model's table."""
    tokens = batch["tokens"]
    if model.vocab_size is not None and tokens.size and tokens.max() >= model.vocab_size:
        found = f"a batch has the token {tokens.max()}"
        raise UserError(f"model.vocab_size={model.vocab_size}: {found}; the tokenizer is not the model's")


@dataclass(frozen=True)
class TokenTask(TextTask):
    """Learns a target at each place that has one.

    Batches have the targets under the name `targets_key` (int32 [B, T], negative where there is none). Models give
    `TextOutputs` with logits [B, T, K].
    """

    label_smoothing: Input[Rate] = 0.0
    """The share of a target that is spread over all of them, in training; 0.1 in Vaswani et al. 2017."""

    targets_key: ClassVar[str] = "targets"
    """The name of the targets in a batch."""

    def targets(self, batch: Batch) -> jax.Array:
        """int32 [B, T]; -1 where there is none, and on padding rows."""
        return jnp.where(example_mask(batch)[:, None], batch[self.targets_key], -1)

    def right(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """Whether the likeliest class at each place is its target, bool [B, T]; False where there is none."""
        targets = self.targets(batch)
        return (jnp.argmax(outputs.logits, axis=-1) == targets) & (targets >= 0)

    def counts(self, batch: Batch) -> Arrays:
        """The number of targets, float32 []."""
        return {"cross_entropy": jnp.sum(self.targets(batch) >= 0, dtype=jnp.float32)}

    def loss(self, outputs: TextOutputs, batch: Batch) -> Arrays:
        return {"cross_entropy": summed_losses(outputs, self.targets(batch), self.label_smoothing)[0]}

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """Losses without label smoothing, right predictions and targets by position, float32 [T].

        Batches of several T add up, too.
        """
        targets = self.targets(batch)
        return {
            "loss": jnp.sum(token_cross_entropy(outputs.logits, targets), axis=0),
            "accuracy": jnp.sum(self.right(outputs, batch), axis=0, dtype=jnp.float32),
            "count": jnp.sum(targets >= 0, axis=0, dtype=jnp.float32),
        }

    def predictions(self, outputs: TextOutputs, batch: Batch) -> Arrays:
        """The likeliest token, or tag, at each place, int32 [B, T]."""
        return {"likeliest": jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)}

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The mean loss of each example's targets, float32 [B]."""
        targets = self.targets(batch)
        losses = token_cross_entropy(outputs.logits, targets)
        return jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(targets >= 0, axis=1), 1)


def real_tokens(example: Row, name: str = "tokens") -> np.ndarray:
    """Which of the tokens `name` ("tokens" or "decoder_tokens") are no padding, bool [T]."""
    if name == "tokens" and "token_mask" in example:
        return example["token_mask"]
    if name == "tokens" and "segment_ids" in example:
        return example["segment_ids"] > 0
    return example["targets"] >= 0 if "targets" in example else np.ones(len(example[name]), bool)


def real_length(example: Row, name: str = "tokens") -> int:
    """How many of the tokens `name` are in front of the padding at the end."""
    return int(np.max(np.flatnonzero(real_tokens(example, name)) + 1, initial=0))


def spelled(ids: np.ndarray, data: DataInfo) -> Iterator[tuple[str, list[int]]]:
    """Yields the words of a text, which spaces part, each with the places of its tokens among `ids`, int [N]."""
    text = data.tokenizer.decode(ids)
    lengths = [len(data.tokenizer.decode(ids[:count])) for count in range(len(ids) + 1)]
    ends = np.minimum.accumulate(lengths[::-1])[::-1]  # a part of a letter may be longer than the letter
    first, last = ends[:-1], ends[1:]  # of the letters that each token adds
    for word in re.finditer(r"\S+", text):
        inside = (first < last) & (first < word.end()) & (last > word.start())
        yield word[0], np.flatnonzero(inside).tolist()


def text_of(example: Row, data: DataInfo) -> str:
    """The text of an example's tokens."""
    return data.tokenizer.decode(example["tokens"][real_tokens(example)])
