"""GPT-2 and ViT in Flax linen as tutorials write them: linen's own attention, Dense and LayerNorm, autodiff, and
nothing else. Shapes and arithmetic are those of ours; how they are written is not.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to what came in."""

    heads: int
    mlp: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> tuple[Array, None]:
        """[B, T, D] to the same, as a step of a scan."""
        y = nn.LayerNorm(dtype=self.dtype)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(y, mask=mask)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        y = nn.gelu(nn.Dense(self.mlp, dtype=self.dtype)(y))
        return x + nn.Dense(x.shape[-1], dtype=self.dtype)(y), None


class Stack(nn.Module):
    """Blocks one after the other, or one of them scanned over its parameters."""

    depth: int
    heads: int
    mlp: int
    scan: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        fields = {"heads": self.heads, "mlp": self.mlp, "dtype": self.dtype}
        if self.scan:
            along = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            return nn.scan(Block, **along, in_axes=nn.broadcast, length=self.depth)(**fields)(x, mask)[0]
        for _ in range(self.depth):
            x, _ = Block(**fields)(x, mask)
        return x


class GPT(nn.Module):
    """A decoder: logits [B, T, V] of the token after each."""

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    scan: bool
    dtype: Any

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        table = nn.Embed(self.vocabulary, self.width, dtype=self.dtype)
        places = nn.Embed(self.length, self.width, dtype=self.dtype)(jnp.arange(tokens.shape[1])[None])
        x = table(tokens) + places
        x = Stack(self.depth, self.heads, 4 * self.width, self.scan, self.dtype)(
            x, nn.make_causal_mask(tokens)
        )
        return table.attend(nn.LayerNorm(dtype=self.dtype)(x))


class ViT(nn.Module):
    """An encoder of patches with a class token: logits [B, classes] of images [B, H, W, 3]."""

    patch: int
    width: int
    depth: int
    heads: int
    mlp: int
    classes: int
    scan: bool
    dtype: Any

    @nn.compact
    def __call__(self, images: Array) -> Array:
        sides = (self.patch, self.patch)
        x = nn.Conv(self.width, sides, sides, padding="VALID", dtype=self.dtype)(images)
        x = x.reshape(len(x), -1, self.width)
        first = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(first.astype(self.dtype), (len(x), 1, 1)), x], axis=1)
        table = self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = Stack(self.depth, self.heads, self.mlp, self.scan, self.dtype)(x + table.astype(self.dtype), None)
        return nn.Dense(self.classes, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x)[:, 0])
