"""Questions about contexts: windows over (question, context), and what evaluation needs of them on the host."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.data.base import Array
from jaxformer.data.kinds.text import RowLength, TextKind
from jaxformer.data.records import Record, Records, inner
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.rows import Batch, Places, RaggedRows, TokenRows, share
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import Encoder, id_dtype

NOWHERE = (-1, -1)  # the characters of a token that is not of the context


@dataclass(frozen=True)
class Spans(TextKind):
    """Questions about contexts, answered by a part of the context (SQuAD, Rajpurkar et al. 2016).

    Rows are windows over (question, context): `tokens`, `token_mask`, `token_types` [B, T], the answer's first
    and last token `start`, `end` [B] (0, 0 where the window does not hold all of it), and `example` [B].
    """

    kind: ClassVar[str] = "spans"

    length: RowLength
    """Tokens in a window (T), question and special tokens included."""
    stride: NonNegativeInt = 128
    """Tokens of the context that neighbouring windows share."""
    question_length: PositiveInt = 64
    """Longer questions are cut to so many tokens."""
    question_feature: str = "question"
    """The dataset's feature that holds the question."""
    context_feature: str = "context"
    """The dataset's feature that holds the text with the answer."""
    answers_feature: str = "answers"
    """The feature that holds the list of answers, each with `text` and `answer_start`."""
    id_feature: str | None = "id"
    """The feature that holds the question's id; None numbers the questions."""

    @property
    def text_features(self) -> tuple[str, ...]:
        return (self.question_feature, self.context_feature)

    def check(self, records: Records) -> None:
        records.check_text(self.question_feature, "data.examples.question_feature")
        records.check_text(self.context_feature, "data.examples.context_feature")
        if self.id_feature is not None:
            records.check_text(self.id_feature, "data.examples.id_feature")
        needed = {"text", "answer_start"}
        parts = {name: inner(feature) for name, feature in records.features.items()}
        fitting = [name for name, part in parts.items() if needed <= set(getattr(part, "keys", set)())]
        what = "a list of answers with text and answer_start"
        records.check(self.answers_feature, "data.examples.answers_feature", fitting, what)

    def rows(self, records: Records, tokenizer: Tokenizer) -> TokenRows:
        return SpanRows(self, records, tokenizer)

    def problems(self) -> Iterator[str]:
        room = self.length - self.question_length - 4  # RoBERTa's template has four special tokens
        if room <= self.stride:
            yield (
                f"length={self.length}: leaves {max(room, 0)} tokens for the context beside "
                f"question_length={self.question_length}, and windows share stride={self.stride}; enlarge it"
            )


@dataclass(frozen=True)
class Question:
    """One of the dataset's examples."""

    id: str
    """The question's id."""
    question: str
    """Its text."""
    context: str
    """The text that answers it."""
    answers: list[str]
    """All that count as right; empty if there is none."""
    starts: list[int]
    """Where each answer begins in the context, in characters."""


class SpanRows(RaggedRows):
    """Row i is a window; the windows of an example follow one another, and `examples[i]` says whose it is.

    Attributes:
      examples: int32 [N], the dataset's example that each window is of.
      answered: questions whose first answer is in a window as a whole.
      unanswered: questions that have no answer at all.
    """

    def __init__(self, settings: Spans, records: Records, tokenizer: Tokenizer):
        """Tokenises the split, or finds it in the cache.

        Raises:
          UserError: an example's text is broken.
        """
        self._settings = settings
        entry = tokenize(records, tokenizer, settings)
        super().__init__(records, tokenizer, settings.length, entry)
        self.examples = self.arrays["examples"]
        self.spec = {
            **self.spec,
            "token_types": Array((settings.length,)),
            **{name: Array(()) for name in ("start", "end", "example")},
        }
        notes = entry.notes
        self.unanswered = notes["unanswered"]
        self.answered = len(records) - self.unanswered - notes["misplaced"] - notes["unseen"]
        self.facts = [
            f"{records.split}: {len(records):,} questions in {len(self):,} windows of {settings.length} tokens"
        ]
        for key, what in (
            ("cut", f"questions were cut at {settings.question_length} tokens"),
            ("unanswered", "questions have no answer"),
            ("misplaced", "answers are not in the context where the dataset says, and count as none"),
            ("unseen", "answers are in no window as a whole"),
        ):
            if notes[key]:
                self.facts.append(
                    f"{records.split}: {share(notes[key], len(records))} of {len(records):,} {what}"
                )

    def more(self, indices: np.ndarray, places: Places) -> Batch:
        """`token_types` int32 [B, T]; `start`, `end` and `example` int32 [B]."""
        batch = {"token_types": places.take(self.arrays["types"], 0)}
        for name in ("start", "end"):
            batch[name] = self.arrays[name][indices]
        return batch | {"example": self.examples[indices]}

    def characters(self, index: int) -> np.ndarray:
        """int32 [n, 2]: for each token of a window, its first character in the context and the one after its last.

        (-1, -1) for tokens that are not of the context.
        """
        return self.arrays["characters"][self.offsets[index] : self.offsets[index + 1]]

    def question(self, example: int) -> Question:
        """An example's texts, read from the dataset."""
        return read_question(self.records, self._settings, self.records.read([example])[0], example)


def read_question(records: Records, settings: Spans, record: Record, index: int) -> Question:
    """An example's texts."""
    answers = settings.answers_feature
    name = str(index)
    if settings.id_feature is not None:
        name = records.text(record, settings.id_feature, index)
    return Question(
        name,
        records.text(record, settings.question_feature, index),
        records.text(record, settings.context_feature, index),
        records.texts(record, f"{answers}/text", index),
        list(record[f"{answers}/answer_start"].int64_list.value),
    )


def tokenize(records: Records, tokenizer: Tokenizer, settings: Spans) -> Entry:
    """An entry with, of all tokens, `ids`, `types` and `characters` int32 [M, 2], and `offsets` int64 [N + 1].

    Of each window it has `start`, `end` and `examples`, int32 [N]. Noted is how many questions were "cut", how many
    are "unanswered", and how many first answers are "misplaced" or "unseen".
    """

    def build(writer: Writer) -> None:
        encoder = Encoder(tokenizer, settings.length, True, "only_second", settings.stride)
        columns = {
            "ids": writer.column("ids", id_dtype(tokenizer)),
            "types": writer.column("types", np.uint8),
            "characters": writer.column("characters", np.int32, (2,)),
            "offsets": writer.column("offsets", np.int64),
            **{name: writer.column(name, np.int32) for name in ("start", "end", "examples")},
        }
        columns["offsets"].append([0])
        counts = dict.fromkeys(("cut", "unanswered", "misplaced", "unseen"), 0)
        for first, group in records.groups():
            asked = [read_question(records, settings, r, index) for index, r in enumerate(group, first)]
            for index, question in enumerate(asked, first):
                span = answer_span(question)
                counts["unanswered"] += not question.answers
                counts["misplaced"] += bool(question.answers) and span is None
                windows, cut = encode_question(encoder, question, settings, records, index)
                counts["cut"] += cut
                found = [add_window(columns, window, span, index) for window in windows]
                counts["unseen"] += span is not None and not any(found)
        writer.notes.update(counts)

    features = (
        settings.question_feature,
        settings.context_feature,
        settings.answers_feature,
        settings.id_feature,
    )
    inputs = {
        "kind": "spans",
        "data": records.digest(),
        "tokenizer": tokenizer.digest,
        "features": features,
        "lengths": [settings.length, settings.stride, settings.question_length],
    }
    return cached(inputs, build)


def answer_span(question: Question) -> tuple[int, int] | None:
    """The characters of the first answer, as (first, one after the last); None if it is not there."""
    if not question.answers or not question.starts or not question.answers[0]:
        return None
    start, text = question.starts[0], question.answers[0]
    return (start, start + len(text)) if question.context[start : start + len(text)] == text else None


def encode_question(
    encoder: Encoder, question: Question, settings: Spans, records: Records, index: int
) -> tuple[list[Any], bool]:
    """The windows over a question and its context, and whether the question had to be cut.

    Raises:
      UserError: a text cannot be encoded; names the example.
    """
    text = question.question
    encoding = encoder.tokenizer.hf.encode(text, add_special_tokens=False)
    cut = len(encoding) > settings.question_length
    if cut:
        text = text[: encoding.offsets[settings.question_length - 1][1]]
    window = encoder([(text, question.context)], records, index)[0]
    return [window, *window.overflowing], cut


def add_window(columns: dict[str, Any], window: Any, span: tuple[int, int] | None, example: int) -> bool:
    """Appends a window; returns whether it holds the whole answer."""
    characters = [
        offsets if sequence == 1 else NOWHERE
        for offsets, sequence in zip(window.offsets, window.sequence_ids)
    ]
    tokens = find(np.asarray(characters, np.int32).reshape(-1, 2), span)
    columns["ids"].append(window.ids)
    columns["types"].append(window.type_ids)
    columns["characters"].append(np.asarray(characters, np.int32).reshape(-1, 2))
    columns["offsets"].append([columns["ids"].count])
    columns["start"].append([tokens[0]])
    columns["end"].append([tokens[1]])
    columns["examples"].append([example])
    return tokens != (0, 0)


def find(characters: np.ndarray, span: tuple[int, int] | None) -> tuple[int, int]:
    """The first and the last token that have characters of `span`; (0, 0) if not all of it is there.

    Args:
      characters: int32 [n, 2] of each token, (-1, -1) for those that are not of the context; rising.
      span: (first character, one after the last).
    """
    context = np.flatnonzero(characters[:, 0] >= 0)
    if span is None or len(context) == 0:
        return 0, 0
    start, stop = span
    starts, stops = characters[context, 0], characters[context, 1]
    if starts[0] > start or stops[-1] < stop:
        return 0, 0
    first = int(np.searchsorted(stops, start, side="right"))
    last = int(np.searchsorted(starts, stop, side="left")) - 1
    return (int(context[first]), int(context[last])) if first <= last else (0, 0)
