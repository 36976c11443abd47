"""The convolutional block attention module (Woo et al. 2018, CBAM)."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.cnn_attention.gates import gated, largest, squeezed
from jaxformer.models.conv import Conv
from jaxformer.models.mlp import Mlp
from jaxformer.models.problems import sizes

Dtype = Any


class CBAM(nn.Module):
    """A gate for each channel, then one for each place, both by means and maxima (section 3).

    The norm behind the convolution over places is of the authors' code; the paper does not mention it.
    """

    reduction: int = 16
    """Channels over the hidden ones of the MLP that gives channels their gates."""
    kernel_size: int = 7
    """Of the convolution that gives places theirs, odd."""
    use_bias: bool = True
    """Whether the MLP has biases: yes in the authors' code, no in timm's."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    where = "branch"

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        yield from sizes(self, "reduction", "kernel_size")
        if self.kernel_size % 2 == 0:
            yield f"kernel_size={self.kernel_size}: expected an odd number, such as 7"

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        hidden = max(1, x.shape[-1] // self.reduction)
        mlp = Mlp(hidden, "relu", use_bias=self.use_bias, **dtypes, name="mlp")
        places = x.reshape(x.shape[0], -1, x.shape[3])  # [B, H W, C]
        of_channels = mlp(squeezed(places, 1, self.dtype)) + mlp(largest(places, 1))
        x = gated(x, of_channels[:, None])
        both = jnp.concatenate([squeezed(x, 3, self.dtype), largest(x, 3)], axis=3)
        return gated(x, norm(name="norm")(Conv(1, self.kernel_size, **dtypes, name="conv")(both)))
