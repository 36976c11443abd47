"""What `predict` makes of a user's own images and texts: examples as in training, one input at a time."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.data.cropping import ResizeShorter
from jaxformer.data.decoding import decode_image
from jaxformer.data.kinds.spans import characters
from jaxformer.data.text.rows import Encoder
from jaxformer.data.transforms import Resize
from jaxformer.errors import UserError
from jaxformer.inference.given import Given, as_given, naming
from jaxformer.tasks.base import Row

logger = logging.getLogger("jaxformer")

KEEP_ALL = (Resize, ResizeShorter)  # transforms after which a share of the image is what it was


@dataclass(frozen=True)
class Input:
    """One input of `predict`."""

    place: str
    """How messages name it."""
    asked: dict[str, Any]
    """The beginning of its answer, as JSON values: its file, its text, ..."""
    rows: list[Row]
    """The model's arrays: one example, or the windows of a question."""
    example: dict[str, Any] = field(default_factory=dict)
    """What `Task.answers` needs besides."""


def image_input(run: Any, image: str | Path | np.ndarray) -> Input:
    """An image file, or uint8 [H, W, C], as the run's evaluation transforms make it.

    Raises:
      UserError: it cannot be read.
    """
    example, is_array = run.example(image), isinstance(image, np.ndarray)
    arrays = {name: np.asarray(example[name]) for name in ("image", "extent") if name in example}
    place, asked = ("the image", {}) if is_array else (str(image), {"file": str(image)})
    one = Input(place, asked, [arrays], {"source": image, **example})
    if "extent" in example:
        one.example["original_size"] = shown_image(run, one).shape[:2]
    return one


def shown_image(run: Any, one: Input) -> np.ndarray:
    """The input's own image, uint8 [H, W, 3], which answers refer to and are drawn on.

    Where positions count and the run's transforms cut something off, it is what they left.
    """
    source, transforms = one.example["source"], run.config.data.eval_transforms
    if "extent" in one.example and not all(isinstance(transform, KEEP_ALL) for transform in transforms):
        image = one.example["picture"]
    elif isinstance(source, np.ndarray):
        image = source
    else:
        return decode_image(Path(source).read_bytes(), channels=3, upright=True)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def text_inputs(run: Any, inputs: Any) -> list[Input]:
    """Texts as in training: with special tokens, where it had them, and cut at its length, which is logged.

    Raises:
      UserError: a text cannot be encoded, or holds nothing to predict; names it.
    """
    task = run.task
    given = as_given(inputs, task.reads, is_pairs(run))
    found = questions(run, given) if task.reads == "question" else texts(run, given)
    for one in found:
        try:
            one.rows[:] = [task.prepare(row, run) for row in one.rows]
        except UserError as error:
            raise UserError(f"{one.place}: {error.lines[0]}", *error.lines[1:]) from error
        one.example.update(one.rows[0])
        longest = max(len(row["tokens"]) for row in one.rows)
        if longest > run.model.context_length:
            raise UserError(
                f"{one.place}: has {longest} tokens, the model takes {run.model.context_length}; shorten it"
            )
    return found


def is_pairs(run: Any) -> bool:
    """Whether the run's examples are pairs of texts."""
    return run.config.data.examples.texts_in_a_row == 2


def texts(run: Any, given: Given) -> list[Input]:
    """Texts, pairs of them or lists of words, one example each."""
    examples, words = run.config.data.examples, run.task.reads == "words"
    places: Any = given  # they name a text as the examples of a dataset are named
    word_ids: list[Any] = [None] * len(given.texts)
    if examples.texts_in_a_row is not None or words:
        encoder = Encoder(run.tokenizer, examples.length, is_pairs(run))
        encodings = encoder(given.texts, places, 0, words=words)
        rows = [arrays_of(encoding.ids, encoding.type_ids) for encoding in encodings]
        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        word_ids = [encoding.word_ids for encoding in encodings]
    else:  # windows and documents have no special tokens around them
        whole = examples.varying
        ids = encoded(run.tokenizer, given, special=whole)
        rows = [arrays_of(row if whole else row[: examples.length]) for row in ids]
        cut = sum(len(every) > len(row["tokens"]) for every, row in zip(ids, rows))
    if cut:
        logger.warning("%d of %d texts were cut at %d tokens", cut, len(rows), examples.length)
    found = []
    for text, place, row, owners in zip(given.texts, given.places, rows, word_ids):
        asked = {"words": text} if words else {"text": text} if isinstance(text, str) else {"texts": [*text]}
        found.append(Input(place, asked, [row], {"words": text, "word_ids": owners}))
    return found


def encoded(tokenizer: Any, given: Given, special: bool) -> list[list[int]]:
    """The ids of texts; a text that cannot be encoded is named."""
    found = []
    for text, place in zip(given.texts, given.places):
        with naming(place):
            found += tokenizer.encode_batch([text], special=special)
    return found


def questions(run: Any, given: Given) -> list[Input]:
    """Questions about contexts, each in windows over its context."""
    settings = run.config.data.examples
    places: Any = given  # they name a question as the examples of a dataset are named
    found = []
    by_question, cut = settings.windows(run.tokenizer, given.texts, places, 0)
    for place, (text, context), windows in zip(given.places, given.texts, by_question):
        extra = {"context": context, "characters": [characters(window) for window in windows]}
        rows = [arrays_of(window.ids, window.type_ids) for window in windows]
        found.append(Input(place, {"question": text}, rows, extra))
    if cut:
        logger.warning("%d of %d questions were cut at %d tokens", cut, len(found), settings.question_length)
    return found


def arrays_of(ids: Sequence[int], types: Sequence[int] | None = None) -> Row:
    """The arrays of a text, without padding."""
    return {
        "tokens": np.array(ids, np.int32),
        "token_types": np.array([0] * len(ids) if types is None else types, np.int32),
        "token_mask": np.ones(len(ids), bool),
    }
