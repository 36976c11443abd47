"""An image to change, and a way to change it."""

import numpy as np


def picture(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth image with some noise, full of values."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(rows / (3 + c) + columns / (5 - c)) for c in range(channels)]
    return (np.stack(waves, -1) + rng.normal(0, 12, (height, width, channels))).clip(0, 255).astype(np.uint8)


def run(transform, image: np.ndarray, seed: int = 0) -> np.ndarray:
    """What a transform makes of an image."""
    example = {"image": image, "labels": 3}
    result = transform(example, np.random.default_rng(seed))
    assert result["labels"] == 3
    assert example["image"] is image  # the example that was given is as it was
    return result["image"]
