"""3-Augment (Touvron et al. 2022, "DeiT III", section 3): little augmentation for much training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import ImageFilter

from jaxformer.data.color import ColorJitter, to_array, to_picture
from jaxformer.data.operations import solarize
from jaxformer.data.transform import Transform
from jaxformer.data.transforms import Example

THRESHOLD = 128  # from which on values are inverted


@dataclass(frozen=True)
class ThreeAugment(Transform):
    """Makes a picture grey, solarizes it or blurs it, one of the three drawn uniformly, and jitters its colours.

    DeiT III flips and crops before: transforms of their own. Nothing moves, so boxes and masks stay.
    """

    jitter: float = 0.3
    """Strength of brightness, contrast and saturation, see `ColorJitter`; 0 leaves the colours alone."""
    radius: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels; the paper's, for pictures of 224."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the image."""
        picture = to_picture(example["image"])
        change, radius = int(rng.integers(3)), rng.uniform(*self.radius)
        if change == 0:
            picture = picture.convert("L").convert(picture.mode)
        elif change == 1:
            picture = solarize(picture, THRESHOLD)
        else:
            picture = picture.filter(ImageFilter.GaussianBlur(radius))
        example = example | {"image": to_array(picture)}
        return ColorJitter(self.jitter, self.jitter, self.jitter)(example, rng) if self.jitter else example

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        if self.jitter < 0:
            yield f"jitter={self.jitter}: must not be negative"
        if not 0 <= self.radius[0] <= self.radius[1]:
            yield f"radius={self.radius}: must be two lengths in pixels, 0 <= smallest <= largest"
