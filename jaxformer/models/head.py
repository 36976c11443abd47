"""The layer that gives logits."""

from typing import Any

import jax
from flax import linen as nn

from jaxformer.models.dense import Dense


def logits_of(
    features: jax.Array, num_classes: int, param_dtype: Any, name: str = "head"
) -> jax.Array | None:
    """Logits float32 [B, K] of features [B, D], by a sub-module of the linen module that calls this.

    The head is of zeros at first: every class is equally likely, as in google-research/vision_transformer.

    Args:
      features: what the head sees.
      num_classes: K; 0: there is no head, and no parameters.
      param_dtype: of the parameters.
      name: of the sub-module.
    """
    if not num_classes:
        return None
    return Dense(num_classes, kernel_init=nn.initializers.zeros, param_dtype=param_dtype, name=name)(features)
