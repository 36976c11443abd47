"""Rotary positions (Su et al. 2021, RoFormer), and how they are stretched to longer contexts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxformer.config.fields import Fraction, PositiveInt, above, at_least


@dataclass(frozen=True)
class Rotary:
    """How queries and keys turn with their position; in halves (x_i, x_{i + d/2}), as Llama and Qwen store them."""

    base: Annotated[float, above(1, "more than 1, such as 10000.0")] = 10_000.0
    """The longest wavelength over 2 pi, roughly."""
    share: Annotated[Fraction, above(0, "more than 0 and at most 1")] = 1.0
    """The share of a head's numbers that turn; the others have no position (Black et al. 2022, GPT-NeoX: 0.25)."""
    scaling: Literal["none", "linear", "ntk", "yarn", "llama3"] = "none"
    """To contexts `factor` times as long as `original_length`: "linear" divides positions (Chen et al. 2023),
    "ntk" enlarges the base (bloc97 2023), "yarn" divides long wavelengths alone and sharpens attention (Peng
    et al. 2023), "llama3" is Llama 3.1's (its `apply_scaling`)."""
    factor: Annotated[float, at_least(1, "1 or more: contexts are stretched, not shrunk")] = 1.0
    """How many times longer."""
    original_length: PositiveInt = 2048
    """The context that the model was trained on; for "yarn" and "llama3"."""
    fast: float = 32.0
    """ "yarn": wavelengths that turn this often in the original context are left as they are."""
    slow: float = 1.0
    """ "yarn": those that turn less often than this are divided wholly."""
    low: float = 1.0
    """ "llama3": `original_length` over the wavelength below which it is divided wholly."""
    high: float = 4.0
    """ "llama3": that above which it is left as it is."""

    def problems(self) -> Iterator[str]:
        """Yields a line for impossible borders."""
        if not 0 < self.slow < self.fast or not 0 < self.low < self.high:
            yield "scaling: expected 0 < slow < fast and 0 < low < high"

    def size(self, head_dim: int) -> int:
        """How many of a head's features turn, an even number."""
        return int(head_dim * self.share) // 2 * 2

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Radians a position, float64 [size / 2]."""
        size = self.size(head_dim)
        exponents = np.arange(0, size, 2) / size
        plain = 1.0 / self.base**exponents
        if self.scaling == "ntk":
            return 1.0 / (self.base * self.factor ** (size / (size - 2))) ** exponents
        keep: np.ndarray | float = 0.0 if self.scaling == "linear" else 1.0  # how much of a frequency stays
        if self.scaling == "yarn":
            keep = 1 - ramp(np.arange(size // 2), *self.yarn_borders(size))
        if self.scaling == "llama3":
            turns = self.original_length * plain / (2 * math.pi)
            keep = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return keep * plain + (1 - keep) * plain / self.factor

    def yarn_borders(self, size: int) -> tuple[int, int]:
        """The first and the last feature pair of YaRN's ramp (Peng et al. 2023, section 3.2)."""

        def pair_that_turns(times: float) -> float:
            return size * math.log(self.original_length / (times * 2 * math.pi)) / (2 * math.log(self.base))

        return max(math.floor(pair_that_turns(self.fast)), 0), min(
            math.ceil(pair_that_turns(self.slow)), size - 1
        )

    @property
    def sharpening(self) -> float:
        """What queries and keys are multiplied by: 0.1 ln(factor) + 1 for YaRN (Peng et al. 2023, equation 22)."""
        return 0.1 * math.log(self.factor) + 1 if self.scaling == "yarn" and self.factor > 1 else 1.0

    def tables(self, positions: Array, head_dim: int) -> tuple[Array, Array]:
        """Cosines and sines for `positions` int [B, T]: float32 [B, 1, T, size / 2]."""
        frequencies = jnp.asarray(self.frequencies(head_dim), jnp.float32)[None, None, None, :]
        angles = positions.astype(jnp.float32)[:, None, :, None] * frequencies
        return jnp.cos(angles) * self.sharpening, jnp.sin(angles) * self.sharpening


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high` on, and a line between."""
    return np.clip((x - low) / max(high - low, 1e-3), 0, 1)


def apply_rotary(x: Array, tables: tuple[Array, Array]) -> Array:
    """Heads [B, H, T, Dh] turned by their positions, in float32; features behind the tables' size are left."""
    cosine, sine = (jnp.broadcast_to(t, (*x.shape[:3], t.shape[-1])) for t in tables)
    half = cosine.shape[-1]
    x32 = x.astype(jnp.float32)
    first, second, rest = x32[..., :half], x32[..., half : 2 * half], x[..., 2 * half :]
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), rest], axis=-1)
