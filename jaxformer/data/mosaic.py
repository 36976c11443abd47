"""Mosaic: four pictures in one (Bochkovskiy et al. 2020, section 3.3)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxformer.data.cropping import cut
from jaxformer.data.geometry import MIN_VISIBLE
from jaxformer.data.transform import Transform
from jaxformer.data.transforms import (
    Example,
    pair,
    probability_problems,
    resized,
    share_problems,
    size_problems,
)


@dataclass(frozen=True)
class Mosaic(Transform):
    """Puts four pictures around a random point, with their boxes and masks; what reaches out is cut off.

    The other three are drawn from the whole split, as they are read: put it first in `data.transforms`.
    """

    probability: float = 0.5
    """How often."""
    scale: tuple[float, float] = (0.5, 1.0)
    """Smallest and largest size of the four, drawn for each, as a share of what fits into the result: at 0.5
    all of each picture can be seen, at 1 about a quarter."""
    center: tuple[float, float] = (0.3, 0.7)
    """Smallest and largest place of the point where they meet, as shares of height and width."""
    size: int | tuple[int, int] | None = None
    """Of the result, (height, width) or the side of a square; None takes the first picture's."""
    min_visible: float = MIN_VISIBLE
    """Objects of whose box a smaller share is left are dropped."""
    random: ClassVar[bool] = True
    draws: ClassVar[bool] = True  # is given a function that draws further examples

    def __call__(
        self, example: Example, rng: np.random.Generator, draw: Callable[[int], Sequence[Example]]
    ) -> Example:
        """Perhaps makes a mosaic.

        Raises:
          ValueError: there are neither boxes nor a mask, so that nothing would say what is where.
        """
        if "boxes" not in example and "segmentation" not in example:
            raise ValueError(
                "a mosaic has one label for four pictures; take mixup or CutMix for classification"
            )
        if rng.random() >= self.probability:
            return example
        height, width = example["image"].shape[:2] if self.size is None else pair(self.size)
        middle, across = (round(side * rng.uniform(*self.center)) for side in (height, width))
        placed = []
        for number, part in enumerate([example, *draw(3)]):
            part = self._scaled(part, height, width, rng)
            rows, columns = part["image"].shape[:2]
            top = middle - rows if number < 2 else middle
            left = across - columns if number % 2 == 0 else across
            placed.append(cut(part, -top, -left, height, width, self.min_visible))
        return example | self._joined(placed)

    def _scaled(self, part: Example, height: int, width: int, rng: np.random.Generator) -> Example:
        """A picture at its size in the mosaic."""
        rows, columns = part["image"].shape[:2]
        scale = min(height / rows, width / columns) * rng.uniform(*self.scale)
        return resized(part, max(1, round(rows * scale)), max(1, round(columns * scale)))

    def _joined(self, placed: list[Example]) -> dict[str, Any]:
        """Pictures of one size, each in its own quarter, as one."""
        joined = {"image": np.maximum.reduce([part["image"] for part in placed])}  # zeros elsewhere
        if "segmentation" in placed[0]:
            joined["segmentation"] = np.maximum.reduce(
                [part["segmentation"] for part in placed]
            )  # -1 elsewhere
        if "boxes" in placed[0]:
            joined |= {key: np.concatenate([part[key] for part in placed]) for key in ("boxes", "labels")}
        return joined

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from probability_problems(self.probability)
        if not 0 < self.scale[0] <= self.scale[1]:
            yield f"scale={self.scale}: must be two factors, 0 < smallest <= largest"
        if not 0 <= self.center[0] <= self.center[1] <= 1:
            yield f"center={self.center}: must be two shares, 0 <= smallest <= largest <= 1"
        if self.size is not None:
            yield from size_problems(self.size)
        yield from share_problems("min_visible", self.min_visible)
