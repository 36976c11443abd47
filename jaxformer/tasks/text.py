"""What tasks over texts have in common: what a model is given of a batch, and what does not fit."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Batch, Batches, Row

TEXT_KINDS = ("encoder", "decoder", "encoder-decoder")
TEXT_INPUTS = ("tokens", "token_mask", "token_types", "segment_ids", "positions")


class TextTask:
    """The parts of the contract (`tasks/base.py`) that most tasks over texts leave as they are."""

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses tokens that the model has no row for."""
        check_tokens(model, batch)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Tokens and what describes them."""
        return text_inputs(batch)

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """The batch as it is."""
        return batch

    def metrics(self, outputs: TextOutputs, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """None besides the loss."""
        return {}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """Nothing: sums say everything."""
        return {}


def text_inputs(batch: Batch) -> dict[str, jax.Array]:
    """Those of a batch's arrays that describe tokens."""
    return {name: jnp.asarray(batch[name]) for name in TEXT_INPUTS if name in batch}


def head_fits(model: Any, head: str) -> Iterator[str]:
    """Yields a line if the model is no encoder, or has another head than the task needs."""
    if model.kind != "encoder":
        yield f'model: {type(model).__name__} has no head "{head}", which this task needs; choose "bert"'
    elif model.head != head:
        yield f'model.head="{model.head}": this task needs "{head}"'


def text_fits(model: Any, train: Batches, evaluation: Batches, needs: tuple[str, ...]) -> Iterator[str]:
    """Yields a line where batches have no such arrays, or their texts or tokens are more than the model takes."""
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
    if model.kind not in TEXT_KINDS:
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


def check_tokens(model: Any, batch: Mapping[str, np.ndarray]) -> None:
    """Refuses tokens that are no row of the model's table.

    Raises:
      UserError: names the token.
    """
    tokens = batch["tokens"]
    if model.vocab_size is not None and tokens.size and tokens.max() >= model.vocab_size:
        raise UserError(
            f"model.vocab_size={model.vocab_size}: a batch has the token {tokens.max()}; "
            "the tokenizer is another one than the model's"
        )


def labels_fit(model: Any, train: Batches, what: str) -> Iterator[str]:
    """Yields a line if the model has fewer labels than the dataset, or nobody knows how many there are."""
    names, labels = train.class_names, model.num_classes
    if model.kind != "encoder":
        return
    if labels is None:
        yield f"model.num_classes: missing, and the dataset does not say how many {what} it has; set it"
    elif names is not None and 0 < labels < len(names):
        yield f"model.num_classes={labels}: the dataset has {len(names)} {what}; set it to that, or to None"


def text_of(example: Row, data: Batches) -> str:
    """The text of an example's tokens."""
    return data.tokenizer.decode(example["tokens"][example["token_mask"]])
