"""Questions about contexts: windows over (question, context), and what evaluation needs of them on the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.data.kinds.text import RaggedRows, Row, RowLength, Stored, TextExamples
from jaxformer.data.records import Record, Records, inner
from jaxformer.data.text.rows import Encoder, shares
from jaxformer.data.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Spans(TextExamples):
    """Questions about contexts, answered by a part of the context (SQuAD, Rajpurkar et al. 2016).

    Rows are windows over (question, context): `tokens`, `token_mask`, `token_types` [B, T], the answer's first
    and last token `start`, `end` [B] (0, 0 where the window does not hold all of it), and `example` [B].
    """

    kind: ClassVar[str] = "spans"
    by_token: ClassVar[tuple[str, ...]] = ("tokens", "token_mask", "token_types")
    by_row: ClassVar[tuple[str, ...]] = ("start", "end", "example")
    text_fields: ClassVar[tuple[str, ...]] = ("question_feature", "context_feature")

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

    def check(self, records: Records) -> None:
        super().check(records)
        if self.id_feature is not None:
            records.check_text(self.id_feature, "data.examples.id_feature")
        parts = {name: inner(feature) for name, feature in records.features.items()}
        needed = {"text", "answer_start"}
        fitting = [name for name, part in parts.items() if needed <= set(getattr(part, "keys", set)())]
        what = "a list of answers with text and answer_start"
        records.check(self.answers_feature, "data.examples.answers_feature", fitting, what)

    def rows(self, records: Records, tokenizer: Tokenizer) -> "SpanRows":
        return SpanRows(self, records, tokenizer)

    def made_of(self, rows: RaggedRows) -> dict[str, Any]:
        features = [*self.texts.values(), self.answers_feature, self.id_feature]
        return {"features": features, "lengths": [self.length, self.stride, self.question_length]}

    def columns(self, rows: RaggedRows) -> list[Stored]:
        return [
            Stored("types", np.uint8, "token_types"),
            Stored("characters", np.int32, shape=(2,)),
            Stored("start", np.int32, "start", by_row=True),
            Stored("end", np.int32, "end", by_row=True),
            Stored("examples", np.int32, "example", by_row=True),
        ]

    def encode(self, rows: RaggedRows) -> Iterator[Row]:
        records = rows.records
        for first, group in records.groups():
            questions = [self.question(records, record, index) for index, record in enumerate(group, first)]
            asked = [(question.text, question.context) for question in questions]
            windows, cut = self.windows(rows.tokenizer, asked, records, first)
            rows.counts["cut"] += cut
            for index, (question, parts) in enumerate(zip(questions, windows), first):
                span = question.span()
                places = [characters(part) for part in parts]
                found = [find(place, span) for place in places]
                rows.counts["unanswered"] += not question.answers
                rows.counts["misplaced"] += bool(question.answers) and span is None
                rows.counts["unseen"] += span is not None and not any(map(any, found))
                for part, place, (start, end) in zip(parts, places, found):
                    tokens = {"ids": part.ids, "types": part.type_ids, "characters": place}
                    yield tokens | {"start": [start], "end": [end], "examples": [index]}

    def question(self, records: Records, record: Record, index: int) -> "Question":
        """An example's texts."""
        named = (self.id_feature, self.question_feature, self.context_feature)
        name, asked, context = (records.text(record, key, index) if key else str(index) for key in named)
        answers = records.texts(record, f"{self.answers_feature}/text", index)
        starts = record[f"{self.answers_feature}/answer_start"].int64_list.value
        return Question(name, asked, context, answers, list(starts))

    def windows(
        self, tokenizer: Tokenizer, asked: Sequence[tuple[str, str]], records: Records, first: int
    ) -> tuple[list[list[Any]], int]:
        """The windows over each question and its context, as encodings, and how many questions had to be cut.

        Args:
          tokenizer: what makes the tokens.
          asked: a question and its context each.
          records: where they are from, for messages.
          first: the number of the first.

        Raises:
          UserError: a text cannot be encoded; names the example.
        """
        questions = Encoder(tokenizer, self.question_length, special=False)
        alone = questions([question for question, _ in asked], records, first)
        short = [
            (question[: encoding.offsets[-1][1]] if encoding.overflowing else question, context)
            for encoding, (question, context) in zip(alone, asked)
        ]
        encoder = Encoder(tokenizer, self.length, True, strategy="only_second", stride=self.stride)
        windows = [[window, *window.overflowing] for window in encoder(short, records, first)]
        return windows, sum(bool(encoding.overflowing) for encoding in alone)

    def facts(self, rows: RaggedRows) -> Iterator[str]:
        questions = len(rows.records)
        yield f"{questions:,} questions in {len(rows):,} windows of {self.length} tokens"
        yield from shares(
            rows.counts,
            questions,
            cut=f"questions were cut at {self.question_length} tokens",
            unanswered="questions have no answer",
            misplaced="answers are not in the context where the dataset says, and count as none",
            unseen="answers are in no window as a whole",
        )

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
    text: str
    """The question itself."""
    context: str
    """The text that answers it."""
    answers: list[str]
    """All that count as right; empty if there is none."""
    starts: list[int]
    """Where each answer begins in the context, in characters."""

    def span(self) -> tuple[int, int] | None:
        """The characters of the first answer, as (first, one after the last); None if it is not there."""
        for start, answer in zip(self.starts[:1], self.answers[:1]):
            stop = start + len(answer)
            return (start, stop) if answer and self.context[start:stop] == answer else None
        return None


class SpanRows(RaggedRows):
    """Row i is a window; the windows of an example follow one another, and `examples[i]` says whose it is.

    Attributes:
      examples: int32 [N], the dataset's example that each window is of.
      answered: questions whose first answer is in a window as a whole.
      unanswered: questions that have no answer at all.
    """

    settings: Spans

    def __init__(self, settings: Spans, records: Records, tokenizer: Tokenizer):
        super().__init__(settings, records, tokenizer)
        self.examples, self.unanswered = self.arrays["examples"], self.counts["unanswered"]
        lost = self.counts["misplaced"] + self.counts["unseen"]
        self.answered = len(records) - self.unanswered - lost

    def characters(self, index: int) -> np.ndarray:
        """The characters of a window's tokens; see `characters`."""
        return self.arrays["characters"][self.offsets[index] : self.offsets[index + 1]]

    def question(self, example: int) -> Question:
        """An example's texts, read from the dataset."""
        return self.settings.question(self.records, self.records.read([example])[0], example)


def characters(window: Any) -> np.ndarray:
    """int32 [n, 2]: for each token of a window, its first character in the context and the one after its last.

    (-1, -1) for tokens that are not of the context.
    """
    places = zip(window.offsets, window.sequence_ids)
    return np.array([span if part == 1 else (-1, -1) for span, part in places], np.int32).reshape(-1, 2)


def find(characters: np.ndarray, span: tuple[int, int] | None) -> tuple[int, int]:
    """The first and the last token that have characters of `span`; (0, 0) if not all of it is there.

    Args:
      characters: int32 [n, 2] of each token, (-1, -1) for those that are not of the context; rising.
      span: (first character, one after the last).
    """
    context = np.flatnonzero(characters[:, 0] >= 0)
    if span is None or len(context) == 0:
        return 0, 0
    starts, stops = characters[context].T
    if starts[0] > span[0] or stops[-1] < span[1]:
        return 0, 0
    first = int(np.searchsorted(stops, span[0], side="right"))
    last = int(np.searchsorted(starts, span[1], side="left")) - 1
    return (int(context[first]), int(context[last])) if first <= last else (0, 0)
