"""A stack of equal blocks: unrolled or scanned over, rematerialised or not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import left_out
from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.base import RematName
from jaxformer.models.block import Aux, BlockInputs, StackInputs
from jaxformer.models.masks import Cache, Mask
from jaxformer.models.placement import platform
from jaxformer.models.remat import REMAT_POLICIES

NOTHING_SHARED = StackInputs()


class Stack(nn.Module):
    """Blocks one after the other.

    A block is a module that maps (x, layer, shared, deterministic) to (x, beside); see `block.py` for the types.
    """

    block: type[nn.Module]
    """The blocks' class."""
    fields: dict[str, Any]
    """Those of every block."""
    depth: int
    """How many."""
    drop_path: float = 0.0
    """The last block's rate of dropped paths; it grows linearly from 0 in the first."""
    remat: RematName = "none"
    """What the backward pass keeps; a key of REMAT_POLICIES."""
    scan: bool = False
    """One block scanned over stacked parameters ("blocks", a leading axis for layers) instead of `depth`
    blocks ("block_0", ...): compiles in the same time whatever the depth. models/layouts.py converts."""
    first_fields: Mapping[str, Any] | None = None
    """Those of the first block alone; where blocks are scanned over they are not taken."""

    @nn.compact
    def __call__(
        self,
        x: Array,
        deterministic: bool,
        shared: StackInputs = NOTHING_SHARED,
        masks: Sequence[Mask] = (),
        cache: Cache | None = None,
        first: int = 0,
        rotaries: Sequence[tuple[Array, Array]] = (),
    ) -> tuple[Array, list[Aux]]:
        """Maps [B, T, D] to [B, T, D].

        Args:
          x: tokens.
          deterministic: whether there is no dropout.
          shared: what all blocks are given.
          masks: of self-attention, block by block, from the first one again after the last; none: the shared one.
          cache: of the tokens before; only where blocks are not scanned over.
          first: how many of the first tokens the last block gives by themselves, too (`Aux.first`); 0: none, as in a
            scan, whose blocks are alike.
          rotaries: `Rotary.tables`, block by block as `masks` are; none: the shared ones.

        Returns:
          Tokens, and what the blocks return beside them: of each block, or of a scan one with a leading layer axis.
        """
        if len(rotaries) == 1:
            shared, rotaries = replace(shared, rotary=rotaries[0]), ()
        if len(masks) == 1:  # stays a `Mask` of few words, which a fused kernel may know, in a scan too
            shared, masks = replace(shared, mask=masks[0]), ()
        if cache is not None:
            shared = replace(shared, slot=cache.slot)
        rates = None
        if not left_out(self.drop_path):
            rates = jnp.linspace(0.0, self.drop_path, self.depth, dtype=jnp.float32)
        block: Any = self.block
        # On CPUs, products in 16 bits take longer fused with what is computed again before them than read from memory.
        if self.remat != "none" or (self.scan and platform() != "cpu"):
            policy = REMAT_POLICIES[self.remat]
            # Static argument 4 is `deterministic` (0 is the block). Inside a scan, XLA cannot merge what is computed
            # twice, and needs no barrier against it.
            block = nn.remat(block, policy=policy, prevent_cse=not self.scan, static_argnums=(4,))
        if not self.scan:
            beside = []
            for i in range(self.depth):
                rate = None if rates is None else rates[i]
                mask = masks[i % len(masks)] if masks else None
                rotary = rotaries[i % len(rotaries)] if rotaries else None
                own = first if i == self.depth - 1 else 0
                layer = BlockInputs(rate, mask, rotary, None if cache is None else cache.layers[i], own)
                fields = {**self.fields, **((self.first_fields or {}) if i == 0 else {})}
                x, found = block(**fields, name=f"block_{i}")(x, layer, shared, deterministic)
                beside.append(found)
            return x, beside
        if cache is not None:
            raise ValueError("layers that are scanned over have no cache: unroll them (models/layouts.py)")
        axes: Any = {"params": 0, ATTENTION_MAPS: 0}
        rngs: Any = {"params": True, "dropout": True}
        inputs = (0, nn.broadcast, nn.broadcast)  # what is a layer's own, and what all share
        blocks = nn.scan(block, variable_axes=axes, split_rngs=rngs, in_axes=inputs, length=self.depth)
        turns = [rotaries[i % len(rotaries)] for i in range(self.depth)] if rotaries else []
        turning = jax.tree.map(lambda *each: jnp.stack(each), *turns) if turns else None
        layers = BlockInputs(rates, stacked_masks(masks, self.depth, x.shape[1]), turning)
        x, found = blocks(**self.fields, name="blocks")(x, layers, shared, deterministic)
        return x, [found]


def stacked_masks(masks: Sequence[Mask], depth: int, tokens: int) -> Mask | None:
    """Every layer's mask of self-attention over `tokens` as one, with a leading layer axis."""
    if not masks:
        return None
    all_seen = jnp.ones((1, 1, tokens, tokens), bool)
    arrays = (mask.array(tokens, tokens) for mask in masks)
    whole = jnp.broadcast_arrays(*(all_seen if array is None else array for array in arrays))
    return Mask(allowed=jnp.stack([whole[i % len(whole)] for i in range(depth)]))
