"""Crops and changes of scale for detection and segmentation, where sizes mean something; they work for any picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformer.data.geometry import MIN_VISIBLE, follow, window
from jaxformer.data.transform import Transform
from jaxformer.data.transforms import (
    Example,
    Interpolation,
    pair,
    probability_problems,
    resized,
    share_problems,
    shorter_side_size,
    size_problems,
)


@dataclass(frozen=True)
class RandomCrop(Transform):
    """A random part of a fixed size; what a smaller picture lacks is zeros at its right and bottom."""

    size: int | tuple[int, int]
    """The side of the square, or (height, width), in pixels."""
    min_visible: float = MIN_VISIBLE
    """Objects of whose box a smaller share is left are dropped."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Cuts the part out."""
        return random_part(example, *pair(self.size), rng, self.min_visible)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from size_problems(self.size)
        yield from share_problems("min_visible", self.min_visible)


@dataclass(frozen=True)
class ScaleJitter(Transform):
    """Enlarges or shrinks what is in the picture, whose size stays (Ghiasi et al. 2021, section 3).

    Enlarged, a random part is seen; shrunk, the picture stands at a random place on zeros. Unlike the paper's, a
    shrunk picture is not always at the top left.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor, drawn uniformly; the paper's standard jitter is 0.8 to 1.25, its large one
    0.1 to 2."""
    size: int | tuple[int, int] | None = None
    """Of the result, (height, width) or the side of a square; None keeps each picture's own."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""
    min_visible: float = MIN_VISIBLE
    """Objects of whose box a smaller share is left are dropped."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the scale."""
        old_height, old_width = example["image"].shape[:2]
        height, width = (old_height, old_width) if self.size is None else pair(self.size)
        scale = rng.uniform(*self.scale)
        if scale < 1:
            small = (max(1, round(height * scale)), max(1, round(width * scale)))
            example = resized(example, *small, self.interpolation)
            return random_place(example, height, width, rng)
        part = (max(1, round(old_height / scale)), max(1, round(old_width / scale)))
        example = random_part(example, *part, rng, self.min_visible)
        return resized(example, height, width, self.interpolation)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        if not 0 < self.scale[0] <= self.scale[1]:
            yield f"scale={self.scale}: must be two factors, 0 < smallest <= largest"
        if self.size is not None:
            yield from size_problems(self.size)
        yield from share_problems("min_visible", self.min_visible)


@dataclass(frozen=True)
class ResizeShorter:
    """Resizes the shorter side, keeping the aspect ratio.

    With several sides it is DETR's choice of scale (Carion et al. 2020, section 4); its `longest` is 1333. Set
    `data.examples.enlarge=False`, else what is smaller than the frame is enlarged again.
    """

    sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """Lengths of the shorter side, in pixels; one is drawn for each picture."""
    longest: int | None = None
    """The longer side is at most so long, and the shorter one as much shorter as it takes; None is no
    bound."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""

    @property
    def random(self) -> bool:
        """Whether there is anything to draw."""
        return len(self.sides) > 1

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Resizes the picture."""
        side = self.sides[int(rng.integers(len(self.sides)))]
        height, width = example["image"].shape[:2]
        if self.longest is not None:
            side = min(side, max(1, round(self.longest * min(height, width) / max(height, width))))
        size = shorter_side_size((height, width), side)
        return resized(example, *size, self.interpolation)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        if not self.sides or min(self.sides) < 1:
            yield f"sides={self.sides}: expected one or more lengths of at least 1 pixel"
        elif self.longest is not None and self.longest < max(self.sides):
            yield f"longest={self.longest}: smaller than sides={self.sides}; enlarge it"


@dataclass(frozen=True)
class DetrCrop(Transform):
    """DETR's random crop (Carion et al. 2020, section 4, and its code): resizes the shorter side, cuts a part out.

    The part's height and width are drawn apart from each other. `ResizeShorter` comes after it, whether it cropped or
    not.
    """

    probability: float = 0.5
    """How often."""
    sides: tuple[int, ...] = (400, 500, 600)
    """Lengths that the shorter side is resized to before; one is drawn for each picture."""
    size: tuple[int, int] = (384, 600)
    """Smallest and largest height and width of the part, in pixels."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""
    min_visible: float = MIN_VISIBLE
    """Objects of whose box a smaller share is left are dropped."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps cuts a part out."""
        if rng.random() >= self.probability:
            return example
        example = ResizeShorter(self.sides, None, self.interpolation)(example, rng)
        least, most = self.size
        height, width = (
            int(rng.integers(min(least, have), min(most, have) + 1)) for have in example["image"].shape[:2]
        )
        return random_part(example, height, width, rng, self.min_visible)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from probability_problems(self.probability)
        if not self.sides or min(self.sides) < 1:
            yield f"sides={self.sides}: expected one or more lengths of at least 1 pixel"
        if not 1 <= self.size[0] <= self.size[1]:
            yield f"size={self.size}: must be two lengths in pixels, 1 <= smallest <= largest"
        yield from share_problems("min_visible", self.min_visible)


def random_part(
    example: Example, height: int, width: int, rng: np.random.Generator, min_visible: float = MIN_VISIBLE
) -> Example:
    """A random part of an example; where the picture is smaller, all of it, at the top left."""
    have = example["image"].shape
    top = int(rng.integers(max(0, have[0] - height) + 1))
    left = int(rng.integers(max(0, have[1] - width) + 1))
    return cut(example, top, left, height, width, min_visible)


def random_place(example: Example, height: int, width: int, rng: np.random.Generator) -> Example:
    """An example whose picture stands at a random place in a larger one."""
    have = example["image"].shape
    top, left = int(rng.integers(height - have[0] + 1)), int(rng.integers(width - have[1] + 1))
    return cut(example, -top, -left, height, width)


def cut(
    example: Example, top: int, left: int, height: int, width: int, min_visible: float = MIN_VISIBLE
) -> Example:
    """The window of an example from (top, left) on; zeros, and no class, where it reaches out of the picture."""
    image = example["image"]
    moved = follow(example, window(top, left, height, width), min_visible)
    first_row, first_column = max(top, 0), max(left, 0)
    part = image[first_row : max(top + height, 0), first_column : max(left + width, 0)]
    if part.shape[:2] != (height, width):
        whole = np.zeros((height, width, image.shape[2]), np.uint8)
        row, column = first_row - top, first_column - left
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        part = whole
    return example | moved | {"image": part}
