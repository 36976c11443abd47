"""Number formats of parameters and of computation, and loss scaling for float16."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from jaxformer.models.base import replaced

DtypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Dtypes:
    """Dtypes one by one."""

    params: DtypeName = "float32"
    """What parameters, their gradients and their moving average are stored in."""
    compute: DtypeName = "float32"
    """What matrix products and activations are in. Softmax, normalisation statistics, losses and metrics are
    always float32. "float16" turns dynamic loss scaling on."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.params == "float16" != self.compute:
            scaled = 'gradients of float16 parameters vanish without the loss scale that compute="float16" turns on'
            yield f'params="float16": {scaled}; set that, or params="bfloat16"'


def dtypes(precision: str | Dtypes) -> Dtypes:
    """The meaning of a precision's name: parameters stay float32, and the name is the dtype of computation."""
    return precision if isinstance(precision, Dtypes) else Dtypes(compute=precision)  # type: ignore[arg-type]


def in_precision(model: Any, precision: str | Dtypes, axis: str | None = None) -> Any:
    """A linen module in a precision, and the modules in its fields; `axis`: pmap's, over which BatchNorm averages."""
    chosen = dtypes(precision)
    compute, params = jnp.dtype(chosen.compute), jnp.dtype(chosen.params)
    return replaced(model, dtype=compute, param_dtype=params, axis_name=axis)


@struct.dataclass
class LossScale:
    """Dynamic loss scaling (Micikevicius et al. 2018, section 3.2), needed by float16's short exponent."""

    scale: jax.Array
    """Float32 [], the factor of the loss, by which gradients are divided again."""
    good_steps: jax.Array
    """Int32 [], finite steps since the scale last changed."""

    INITIAL = 2.0**15
    LARGEST = 2.0**24
    DOUBLE_AFTER = 2000

    @classmethod
    def create(cls) -> "LossScale":
        """The scale at step 0."""
        return cls(scale=jnp.float32(cls.INITIAL), good_steps=jnp.int32(0))

    def adjust(self, finite: jax.Array) -> "LossScale":
        """Halves after an overflow; doubles after DOUBLE_AFTER finite steps in a row."""
        grow = finite & (self.good_steps + 1 >= self.DOUBLE_AFTER)
        doubled = jnp.minimum(self.scale * 2, self.LARGEST)
        scale = jnp.where(finite, jnp.where(grow, doubled, self.scale), jnp.maximum(self.scale / 2, 1.0))
        return LossScale(scale=scale, good_steps=jnp.where(finite & ~grow, self.good_steps + 1, 0))
