"""What models return."""

import jax
from flax import struct


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
