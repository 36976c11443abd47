"""The contract of a transform: what a config says of it, and what is called for each example on the host."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from jaxformer.config.fields import Constraint, Pixels

T = TypeVar("T")
Example = dict[str, Any]

Size: TypeAlias = Pixels | tuple[Pixels, Pixels]
"""A field's type: the side of a square, or (height, width), in pixels."""
Rising: TypeAlias = Annotated[
    tuple[T, T], Constraint("the smaller one first", lambda ends: ends[0] <= ends[1])
]
"""A field's type: the smallest and the largest of what is drawn."""


@dataclass(frozen=True)
class Transform:
    """A change of one example: `transform.bind(tokenizer)(example, rng) -> example`.

    All that is random comes from `rng`, a `numpy.random.Generator`. Arrays that are given are never written into.
    """

    modality: ClassVar[Literal["image", "text"]] = "image"
    """The examples that it is for: `image` uint8 [H, W, C], or `tokens` [T] without their padding."""
    random: ClassVar[bool] = False
    """Whether it changes an example differently from time to time, which does not belong in an evaluation."""
    draws: ClassVar[bool] = False
    """Whether it is called with a third argument, a function that draws further examples."""
    fills: ClassVar[Mapping[str, int]] = {}
    """What stands on padding in the arrays that it adds to rows of tokens."""

    def check(self, example: Example) -> None:
        """Raises ValueError for the first example of a dataset, if it makes no sense for such."""

    def bind(self, tokenizer: Any) -> Any:
        """What is called for each example of text, which is told the tokenizer; see `TextTransform`."""
        return self


@dataclass(frozen=True)
class RandomTransform(Transform):
    """A transform of images that is random."""

    random: ClassVar[bool] = True


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size that may be one number."""
    return (size, size) if isinstance(size, int) else size
