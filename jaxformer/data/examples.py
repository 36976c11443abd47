"""What a dataset's examples become: pictures, or one of the kinds of token rows. Settings only, quickly imported.

The sources that make them are `sources.py` for pictures and `text/` for tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

# Names in configs -> the settings' class.
EXAMPLES: dict[str, str] = {
    "detection": "jaxformer.data.examples:Detection",
    "documents": "jaxformer.data.examples:Documents",
    "images": "jaxformer.data.examples:Images",
    "pairs": "jaxformer.data.examples:Pairs",
    "segmentation": "jaxformer.data.examples:Segmentation",
    "sequences": "jaxformer.data.examples:Sequences",
    "spans": "jaxformer.data.examples:Spans",
    "tagged": "jaxformer.data.examples:Tagged",
    "windows": "jaxformer.data.examples:Windows",
}

Broken = Literal["refuse", "skip"]


@dataclass(frozen=True)
class Images:
    """Labelled pictures: `image` uint8 [B, H, W, C] and `labels` int32 [B]."""

    image_feature: str = "image"
    """The dataset's feature that holds the image."""
    label_feature: str = "label"
    """The dataset's feature that holds the label ("label", or CIFAR-100's "coarse_label")."""
    broken: Broken = "refuse"
    """What is done about examples whose picture cannot be decoded: "refuse", or "skip": each is named once;
    in training the next one stands in for it, an evaluation leaves it out."""
    text: ClassVar[bool] = False
    varying: ClassVar[bool] = False


@dataclass(frozen=True)
class Detection:
    """Pictures with objects in boxes, in a frame of one size (`data/detection.py`).

    `image` uint8 [B, H, W, 3], each picture resized to fit, with zeros below and at its right; `extent` int32 [B, 2],
    its height and width there, and `original_size` int32 [B, 2], those that it was stored with; `boxes` float32
    [B, N, 4], center x and y, width and height as shares of the extent; `labels` int32 [B, N], -1 where there is no
    object.
    """

    size: int | tuple[int, int]
    """Of the frame: (height, width) in pixels, or the side of a square."""
    max_objects: int = 100
    """N; of more objects in a picture the largest stay, and it is said how many are left out."""
    eval_size: int | tuple[int, int] | None = None
    """Of the frame in evaluations; None takes `size`."""
    enlarge: bool = True
    """Whether pictures smaller than the frame are enlarged to fill it; False keeps the sizes that transforms
    such as "resize_shorter" chose."""
    image_feature: str = "image"
    """The dataset's feature that holds the image."""
    objects_feature: str = "objects"
    """The feature that holds the sequence of objects."""
    bbox_feature: str = "bbox"
    """Of an object, its box (TFDS BBox)."""
    label_feature: str = "label"
    """Of an object, its class."""
    crowd_feature: str | None = None
    """An object's mark that it is many in one box, which are left out (COCO's "is_crowd"); None has none."""
    bad_boxes: Literal["drop", "refuse"] = "drop"
    """What is done about boxes without an area or wholly outside of the picture: "drop", and it is said how
    many, or "refuse". Boxes that reach out of the picture are clipped."""
    broken: Broken = "refuse"
    """As of "images"."""
    text: ClassVar[bool] = False
    varying: ClassVar[bool] = False

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from frame_problems(self.size, self.eval_size)
        if self.max_objects < 1:
            yield f"max_objects={self.max_objects}: must be at least 1"


@dataclass(frozen=True)
class Segmentation:
    """Pictures with the class of each pixel, in a frame of one size (`data/segmentation.py`).

    `image` uint8 [B, H, W, 3], each picture resized to fit, with zeros below and at its right; `extent` int32 [B, 2],
    its height and width there, and `original_size` int32 [B, 2], those that it was stored with; `segmentation` int32
    [B, H, W], each pixel's class, -1 where there is none.
    """

    size: int | tuple[int, int]
    """Of the frame: (height, width) in pixels, or the side of a square."""
    eval_size: int | tuple[int, int] | None = None
    """Of the frame in evaluations; None takes `size`."""
    enlarge: bool = True
    """As of "detection"."""
    image_feature: str = "image"
    """The dataset's feature that holds the image."""
    mask_feature: str = "segmentation_mask"
    """The feature that holds the mask: an image of one channel whose values are class ids."""
    ignore_labels: tuple[int, ...] = (255,)
    """Ids that are no class; the others are numbered anew without them (CamVid: 11, ADE20K: 0)."""
    class_names: tuple[str, ...] | None = None
    """Names of all ids from 0 on, the ignored ones included, where the dataset does not have them."""
    broken: Broken = "refuse"
    """As of "images"; a mask of another size than its picture is broken, too."""
    text: ClassVar[bool] = False
    varying: ClassVar[bool] = False

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from frame_problems(self.size, self.eval_size)
        if any(not 0 <= label < 65536 for label in self.ignore_labels):
            yield f"ignore_labels={self.ignore_labels}: expected ids from 0 to 65535"


@dataclass(frozen=True)
class RunningText:
    """Texts of one feature, cut into rows of one length."""

    length: int
    """Tokens in a row (T)."""
    feature: str = "text"
    """The dataset's feature that holds the text."""
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
class Windows(RunningText):
    """The split as one stream of tokens, cut into windows: `tokens` and `targets` int32 [B, T].

    Documents are joined with the tokenizer's end-of-text token between them (its separator if it has no
    such token, nothing if it has neither). Every token but the first is a target exactly once; the last
    window is padded, with -1 as targets.
    """


@dataclass(frozen=True)
class Documents(RunningText):
    """Documents packed into rows: `tokens`, `targets`, `segment_ids` and `positions` int32 [B, T].

    A document longer than a row is cut into pieces, and a piece's last target is the next piece's first token:
    every token but a document's first is a target exactly once. Each piece is a segment of its own, with
    positions from 0. Which pieces share a row is decided by best fit, the longest first.
    """


@dataclass(frozen=True)
class Sequences:
    """One or two texts a row, with a label: `tokens`, `token_mask`, `token_types` [B, T] and `labels` [B].

    Labels are int32 classes, or float32 if the dataset's feature is a float (regression).
    """

    length: int
    """Tokens in a row (T), special tokens included; the longer of two texts is cut first."""
    features: tuple[str, ...] = ("sentence",)
    """The dataset's one or two features that hold the texts."""
    label_feature: str | None = "label"
    """The feature that holds the label; None for texts alone."""
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
    """

    length: int
    """Tokens in a row (T), special tokens included; words beyond are cut off, and counted."""
    words_feature: str = "tokens"
    """The dataset's feature that holds a list of words."""
    tags_feature: str = "ner"
    """The feature that holds a list of as many classes."""
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
    """

    length: int
    """Tokens in a window (T), question and special tokens included."""
    stride: int = 128
    """Tokens of the context that neighbouring windows share."""
    question_length: int = 64
    """Longer questions are cut to so many tokens."""
    question_feature: str = "question"
    """The dataset's feature that holds the question."""
    context_feature: str = "context"
    """The dataset's feature that holds the text with the answer."""
    answers_feature: str = "answers"
    """The feature that holds the list of answers, each with `text` and `answer_start`."""
    id_feature: str | None = "id"
    """The feature that holds the question's id; None numbers the questions."""
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
    """A text and its translation: `tokens`, `token_mask` [B, T], `decoder_tokens` and `targets` int32 [B, T]."""

    length: int
    """Tokens in each of the two (T), special tokens included; what is longer is cut, and counted."""
    source_feature: str = "source"
    """The dataset's feature that holds the text."""
    target_feature: str = "target"
    """The feature that holds its translation."""
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


def frame_problems(size: int | tuple[int, int], eval_size: int | tuple[int, int] | None) -> Iterator[str]:
    """What is wrong with the sizes of frames."""
    for field, value in (("size", size), ("eval_size", eval_size)):
        if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
            yield f"{field}={value}: must be at least 1 pixel"
