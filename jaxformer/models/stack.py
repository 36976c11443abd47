"""A stack of equal blocks: unrolled or scanned over, rematerialised or not."""

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.attention import ATTENTION_MAPS

RematName: TypeAlias = Literal["none", "full", "dots", "dots_without_batch"]

# What a rematerialised block keeps for its backward pass, instead of all of its activations.
REMAT_POLICIES: dict[str, Any] = {
    "full": None,  # nothing but the block's input
    "dots": jax.checkpoint_policies.checkpoint_dots,  # the results of all matrix products
    "dots_without_batch": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,  # of dense layers alone
}


class Stack(nn.Module):
    """Blocks one after the other.

    A block is a module that maps (x, drop_path_rate, deterministic) to (x, None). Its rate is float32 [], or
    None where no path is ever dropped; the None that it returns is what a scan would collect.

    Attributes:
      block: the blocks' class.
      fields: those of every block.
      depth: how many.
      drop_path: the last block's rate of dropped paths; it grows linearly from 0 in the first.
      remat: what the backward pass keeps; a key of REMAT_POLICIES, or "none" to keep everything.
      scan: one block scanned over stacked parameters ("blocks", a leading axis for layers) instead of `depth`
        blocks ("block_0", ...): compiles in the same time whatever the depth. weights/layouts.py converts.
    """

    block: type[nn.Module]
    fields: dict[str, Any]
    depth: int
    drop_path: float = 0.0
    remat: RematName = "none"
    scan: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        rates = None
        if self.drop_path:
            rates = jnp.linspace(0.0, self.drop_path, self.depth, dtype=jnp.float32)
        block: Any = self.block
        if self.remat != "none":
            policy = REMAT_POLICIES[self.remat]
            # Static argument 3 is `deterministic` (0 is the block). Inside a scan, XLA cannot merge what is computed
            # twice, and needs no barrier against it.
            block = nn.remat(block, policy=policy, prevent_cse=not self.scan, static_argnums=(3,))
        if not self.scan:
            for i in range(self.depth):
                rate = None if rates is None else rates[i]
                x, _ = block(**self.fields, name=f"block_{i}")(x, rate, deterministic)
            return x
        blocks = nn.scan(
            block,
            variable_axes={"params": 0, ATTENTION_MAPS: 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=self.depth,
        )
        return blocks(**self.fields, name="blocks")(x, rates, deterministic)[0]
