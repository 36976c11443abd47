"""What models return."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from jaxformer.models.block import Beside
from jaxformer.models.cache import Cache
from jaxformer.models.experts import RouterLosses


@struct.dataclass
class ImageOutputs:
    """Of an image classifier.

    Attributes:
      logits: float32 [B, K].
      features: [B, D], what the head sees.
      tokens: [B, T, D] of a Transformer (prefix tokens first), or the last feature map [B, H, W, C] of a CNN.
    """

    logits: jax.Array
    features: jax.Array
    tokens: jax.Array


@struct.dataclass
class TextOutputs:
    """Of a model of text.

    Attributes:
      logits: float32; [B, T, V] of a language model, [B, T, K] of a head over tokens, [B, K] of one over texts.
      tokens: [B, T, D], what the last block gives.
      features: [B, D], what a head over texts sees; None where there is none.
      router: the losses of all layers' routers, float32 [B] each; None without experts.
      cache: the cache after these tokens, if one came in.
    """

    logits: jax.Array
    tokens: jax.Array
    features: jax.Array | None = None
    router: RouterLosses | None = None
    cache: Cache | None = None


def router_losses(beside: Sequence[Beside]) -> RouterLosses | None:
    """The mean over layers of what the routers lose; None without experts."""
    losses = [b.router for b in beside if b.router is not None]
    if not losses:
        return None
    # Of unrolled layers a list of [B], of a scan one [L, B].
    balance = jnp.concatenate([jnp.atleast_2d(loss.balance) for loss in losses])
    z = jnp.concatenate([jnp.atleast_2d(loss.z) for loss in losses])
    return RouterLosses(jnp.mean(balance, axis=0), jnp.mean(z, axis=0))
