"""What a dataset's examples become: pictures, or one of the kinds of token rows. Settings only, quickly imported.

The sources that make them are `sources.py` for pictures and `text/` for tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

# Names in configs -> the settings' class.
EXAMPLES: dict[str, str] = {
    "documents": "jaxformer.data.examples:Documents",
    "images": "jaxformer.data.examples:Images",
    "pairs": "jaxformer.data.examples:Pairs",
    "sequences": "jaxformer.data.examples:Sequences",
    "spans": "jaxformer.data.examples:Spans",
    "tagged": "jaxformer.data.examples:Tagged",
    "windows": "jaxformer.data.examples:Windows",
}


@dataclass(frozen=True)
class Images:
    """Labelled pictures: `image` uint8 [B, H, W, C] and `labels` int32 [B].

    Attributes:
      image_feature: the dataset's feature that holds the image.
      label_feature: the dataset's feature that holds the label ("label", or CIFAR-100's "coarse_label").
    """

    image_feature: str = "image"
    label_feature: str = "label"
    text: ClassVar[bool] = False
    varying: ClassVar[bool] = False


@dataclass(frozen=True)
class Windows:
    """The split as one stream of tokens, cut into windows: `tokens` and `targets` int32 [B, T].

    Documents are joined with the tokenizer's end-of-text token between them (its separator if it has no
    such token, nothing if it has neither). Every token but the first is a target exactly once; the last
    window is padded, with -1 as targets.

    Attributes:
      length: tokens in a window (T).
      feature: the dataset's feature that holds the text.
    """

    length: int
    feature: str = "text"
    text: ClassVar[bool] = True
    varying: ClassVar[bool] = False

    @property
    def text_features(self) -> tuple[str, ...]:
        """The features that a tokenizer is learnt from."""
        return (self.feature,)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from length_problems(self.length)


@dataclass(frozen=True)
class Documents:
    """Documents packed into rows: `tokens`, `targets`, `segment_ids` and `positions` int32 [B, T].

    A document longer than a row is cut into pieces, and a piece's last target is the next piece's first token:
    every token but a document's first is a target exactly once. Each piece is a segment of its own, with
    positions from 0. Which pieces share a row is decided by best fit, the longest first.

    Attributes:
      length: tokens in a row (T).
      feature: the dataset's feature that holds the text.
    """

    length: int
    feature: str = "text"
    text: ClassVar[bool] = True
    varying: ClassVar[bool] = False

    @property
    def text_features(self) -> tuple[str, ...]:
        """The features that a tokenizer is learnt from."""
        return (self.feature,)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from length_problems(self.length)


@dataclass(frozen=True)
class Sequences:
    """One or two texts a row, with a label: `tokens`, `token_mask`, `token_types` [B, T] and `labels` [B].

    Labels are int32 classes, or float32 if the dataset's feature is a float (regression).

    Attributes:
      length: tokens in a row (T), special tokens included; the longer of two texts is cut first.
      features: the dataset's one or two features that hold the texts.
      label_feature: the feature that holds the label; None for texts alone.
    """

    length: int
    features: tuple[str, ...] = ("sentence",)
    label_feature: str | None = "label"
    text: ClassVar[bool] = True
    varying: ClassVar[bool] = True

    @property
    def text_features(self) -> tuple[str, ...]:
        """The features that a tokenizer is learnt from."""
        return self.features

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from length_problems(self.length)
        if len(self.features) not in (1, 2):
            yield f"features={self.features!r}: name one text feature, or two for pairs of texts"


@dataclass(frozen=True)
class Tagged:
    """Words with a tag each: `tokens`, `token_mask` and `labels` [B, T].

    Words are cut into pieces; the first piece of a word has its tag, every other token -1.

    Attributes:
      length: tokens in a row (T), special tokens included; words beyond are cut off, and counted.
      words_feature: the dataset's feature that holds a list of words.
      tags_feature: the feature that holds a list of as many classes.
    """

    length: int
    words_feature: str = "tokens"
    tags_feature: str = "ner"
    text: ClassVar[bool] = True
    varying: ClassVar[bool] = True

    @property
    def text_features(self) -> tuple[str, ...]:
        """The features that a tokenizer is learnt from."""
        return (self.words_feature,)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from length_problems(self.length)


@dataclass(frozen=True)
class Spans:
    """Questions about contexts, answered by a part of the context (SQuAD, Rajpurkar et al. 2016).

    Rows are windows over (question, context): `tokens`, `token_mask`, `token_types` [B, T], the answer's first
    and last token `start`, `end` [B] (0, 0 where the window does not hold all of it), and `example` [B].

    Attributes:
      length: tokens in a window (T), question and special tokens included.
      stride: tokens of the context that neighbouring windows share.
      question_length: longer questions are cut to so many tokens.
      question_feature, context_feature: the dataset's features that hold these texts.
      answers_feature: the feature that holds the list of answers, each with `text` and `answer_start`.
      id_feature: the feature that holds the question's id; None numbers the questions.
    """

    length: int
    stride: int = 128
    question_length: int = 64
    question_feature: str = "question"
    context_feature: str = "context"
    answers_feature: str = "answers"
    id_feature: str | None = "id"
    text: ClassVar[bool] = True
    varying: ClassVar[bool] = True

    @property
    def text_features(self) -> tuple[str, ...]:
        """The features that a tokenizer is learnt from."""
        return (self.question_feature, self.context_feature)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from length_problems(self.length)
        if self.stride < 0:
            yield f"stride={self.stride}: must not be negative"
        if self.question_length < 1:
            yield f"question_length={self.question_length}: must be at least 1 token"
        room = self.length - self.question_length - 4  # RoBERTa's template has four special tokens
        if self.stride >= 0 and self.question_length >= 1 and room <= self.stride:
            yield (
                f"length={self.length}: leaves {max(room, 0)} tokens for the context beside "
                f"question_length={self.question_length}, and windows share stride={self.stride}; enlarge it"
            )


@dataclass(frozen=True)
class Pairs:
    """A text and its translation: `tokens`, `token_mask` [B, T], `decoder_tokens` and `targets` int32 [B, T].

    Attributes:
      length: tokens in each of the two (T), special tokens included; what is longer is cut, and counted.
      source_feature: the dataset's feature that holds the text.
      target_feature: the feature that holds its translation.
    """

    length: int
    source_feature: str = "source"
    target_feature: str = "target"
    text: ClassVar[bool] = True
    varying: ClassVar[bool] = True

    @property
    def text_features(self) -> tuple[str, ...]:
        """The features that a tokenizer is learnt from."""
        return (self.source_feature, self.target_feature)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from length_problems(self.length)


def length_problems(length: int) -> Iterator[str]:
    """What is wrong with a row's length."""
    if length < 2:
        yield f"length={length}: must be at least 2 tokens"
