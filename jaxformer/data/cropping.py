"""Crops and changes of scale for detection and segmentation, where sizes mean something; they work for any image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from jaxformer.config.fields import Fraction, Pixels, PositiveFloat, PositiveInt, not_empty
from jaxformer.data.geometry import MIN_VISIBLE, Interpolation, cut, resized, shorter_side_size
from jaxformer.data.transform import Example, RandomTransform, Rising, Size, Transform, pair

Sides = Annotated[tuple[PositiveInt, ...], not_empty("one or more lengths in pixels")]


@dataclass(frozen=True)
class RandomCrop(RandomTransform):
    """A random part of a fixed size; what a smaller image lacks is zeros at its right and bottom."""

    size: Size
    """The side of the square, or (height, width), in pixels."""
    min_visible: Fraction = MIN_VISIBLE
    """Objects are dropped if a smaller share of their box is left in the image."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Cuts the part out."""
        return random_part(example, *pair(self.size), rng, self.min_visible)


@dataclass(frozen=True)
class ScaleJitter(RandomTransform):
    """Enlarges or shrinks what is in the image, whose size stays (Ghiasi et al. 2021, section 3).

    Enlarged, a random part is seen; shrunk, the image stands at a random place on zeros. Unlike the paper's, a
    shrunk image is not always at the top left.
    """

    scale: Rising[PositiveFloat] = (0.5, 2.0)
    """Smallest and largest factor, drawn uniformly; the paper's standard jitter is 0.8 to 1.25, its large one
    0.1 to 2."""
    size: Size | None = None
    """Size of the result, (height, width) or the side of a square; None keeps each image's own."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""
    min_visible: Fraction = MIN_VISIBLE
    """Objects are dropped if a smaller share of their box is left in the image."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the scale."""
        old_height, old_width = example["image"].shape[:2]
        height, width = (old_height, old_width) if self.size is None else pair(self.size)
        scale = rng.uniform(*self.scale)
        if scale < 1:
            rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            return cut(resized(example, rows, columns, self.interpolation), -top, -left, height, width)
        part = (max(1, round(old_height / scale)), max(1, round(old_width / scale)))
        example = random_part(example, *part, rng, self.min_visible)
        return resized(example, height, width, self.interpolation)


@dataclass(frozen=True)
class ResizeShorter(Transform):
    """Resizes the shorter side, keeping the aspect ratio.

    With several sides it is DETR's choice of scale (Carion et al. 2020, section 4); its `longest` is 1333. Set
    `data.examples.enlarge=False`, else what is smaller than the frame is enlarged again.
    """

    sides: Sides = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """Lengths of the shorter side, in pixels; one is drawn for each image."""
    longest: int | None = None
    """The longer side is at most so long, and the shorter one as much shorter as it takes; None is no
    bound."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether there is anything to draw."""
        return len(self.sides) > 1

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Resizes the image."""
        side = self.sides[int(rng.integers(len(self.sides)))]
        height, width = example["image"].shape[:2]
        if self.longest is not None:
            side = min(side, max(1, round(self.longest * min(height, width) / max(height, width))))
        return resized(example, *shorter_side_size((height, width), side), self.interpolation)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work together."""
        if self.longest is not None and self.longest < max(self.sides):
            yield f"longest={self.longest}: smaller than sides={self.sides}; enlarge it"


@dataclass(frozen=True)
class DetrCrop(RandomTransform):
    """DETR's random crop (Carion et al. 2020, section 4, and its code): resizes the shorter side, cuts a part out.

    The part's height and width are drawn apart from each other. `ResizeShorter` comes after it, whether it cropped or
    not.
    """

    probability: Fraction = 0.5
    """The probability that it is applied."""
    sides: Sides = (400, 500, 600)
    """Lengths that the shorter side is resized to before; one is drawn for each image."""
    size: Rising[Pixels] = (384, 600)
    """Smallest and largest height and width of the part, in pixels."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""
    min_visible: Fraction = MIN_VISIBLE
    """Objects are dropped if a smaller share of their box is left in the image."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps cuts a part out."""
        if rng.random() >= self.probability:
            return example
        example = ResizeShorter(self.sides, None, self.interpolation)(example, rng)
        least, most = self.size
        have = example["image"].shape[:2]
        height, width = (int(rng.integers(min(least, side), min(most, side) + 1)) for side in have)
        return random_part(example, height, width, rng, self.min_visible)


@dataclass(frozen=True)
class Mosaic(RandomTransform):
    """Four images in one: puts them around a random point, with their boxes and masks (Bochkovskiy et al. 2020, 3.3).

    What reaches out is cut off. The other three are drawn from the whole split, as they are read: put it first in
    `data.transforms`.
    """

    probability: Fraction = 0.5
    """The probability that it is applied."""
    scale: Rising[PositiveFloat] = (0.5, 1.0)
    """Smallest and largest size of the four, drawn for each, as a share of what fits into the result: at 0.5
    all of each image can be seen, at 1 about a quarter."""
    center: Rising[Fraction] = (0.3, 0.7)
    """Smallest and largest place of the point where they meet, as shares of height and width."""
    size: Size | None = None
    """Size of the result, (height, width) or the side of a square; None takes the first image's."""
    min_visible: Fraction = MIN_VISIBLE
    """Objects are dropped if a smaller share of their box is left in the image."""
    draws: ClassVar[bool] = True  # is given a function that draws further examples

    def __call__(
        self, example: Example, rng: np.random.Generator, draw: Callable[[int], Sequence[Example]]
    ) -> Example:
        """Perhaps makes a mosaic.

        Raises:
          ValueError: there are neither boxes nor a mask, so that nothing would say what is where.
        """
        if "boxes" not in example and "segmentation" not in example:
            raise ValueError("a mosaic has one label for four images; use mixup or CutMix for classification")
        if rng.random() >= self.probability:
            return example
        height, width = example["image"].shape[:2] if self.size is None else pair(self.size)
        middle, across = (round(side * rng.uniform(*self.center)) for side in (height, width))
        placed = []
        for number, part in enumerate([example, *draw(3)]):
            rows, columns = part["image"].shape[:2]
            scale = min(height / rows, width / columns) * rng.uniform(*self.scale)
            rows, columns = max(1, round(rows * scale)), max(1, round(columns * scale))
            top = middle - rows if number < 2 else middle
            left = across - columns if number % 2 == 0 else across
            placed.append(cut(resized(part, rows, columns), -top, -left, height, width, self.min_visible))
        return example | joined(placed)


def joined(placed: Sequence[Example]) -> dict[str, Any]:
    """Examples of one size, each in its own quarter (images are 0 elsewhere, masks -1), as one."""
    found: dict[str, Any] = {
        key: np.stack([part[key] for part in placed]).max(axis=0)
        for key in ("image", "segmentation")
        if key in placed[0]
    }
    if "boxes" in placed[0]:
        found |= {key: np.concatenate([part[key] for part in placed]) for key in ("boxes", "labels")}
    return found


def random_part(
    example: Example, height: int, width: int, rng: np.random.Generator, min_visible: float
) -> Example:
    """A random part of an example; where the image is smaller, all of it, at the top left."""
    rows, columns = example["image"].shape[:2]
    top, left = int(rng.integers(max(0, rows - height) + 1)), int(rng.integers(max(0, columns - width) + 1))
    return cut(example, top, left, height, width, min_visible)
