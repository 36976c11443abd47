"""DETR's decoder: queries that look at an image and at each other; after every layer each has a box and a class."""

import math
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from jaxformer.models.base import Dtype, Layer
from jaxformer.models.block import Block, BlockInputs, StackInputs
from jaxformer.models.dense import Dense, xavier
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.positions import box_positions

QueryName: TypeAlias = Literal["learned", "anchors"]
EDGE = 1e-4  # what keeps the logarithm of a box's share finite


@struct.dataclass
class Memory:
    """The tokens of the image, which the decoder looks at."""

    tokens: jax.Array
    """Tokens, [B, S, D]."""
    positions: jax.Array
    """Positions of the tokens, [B, S, D]."""
    seen: jax.Array
    """Bool [B, S], False on padding."""
    places: jax.Array
    """Float32 [B, S, 2], x and y of each token as shares of the image."""
    cells: jax.Array
    """Float32 [B, S, 2], width and height of what a token stands for."""


def spread_anchors(count: int) -> np.ndarray:
    """Boxes that cover an image evenly, each about twice its share of it; float32 [count, 4] in cxcywh.

    The centres are those of the R2 sequence (Roberts 2018), which are well apart for every number of them.
    """
    plastic = 1.32471795724474602596
    steps = np.arange(count)[:, None] * np.array([1 / plastic, 1 / plastic**2])
    sides = np.full((count, 2), min(0.5, 2 / math.sqrt(count)))
    return np.concatenate([(0.5 + steps) % 1, sides], axis=1).astype(np.float32)


def logit(share: jax.Array) -> jax.Array:
    """The inverse of the sigmoid, finite at 0 and 1."""
    share = jnp.clip(share, EDGE, 1 - EDGE)
    return jnp.log(share) - jnp.log1p(-share)


class BoxPrior(Layer):
    """A bias of attention that is highest near each query's box (Gao et al. 2021, SMCA-DETR, equations 4 to 6).

    Each head looks at a place of its own around the box's centre, in a Gaussian as wide as the box; where exactly, the
    query says.
    """

    num_heads: int
    """Number of heads H."""

    @nn.compact
    def __call__(self, x: jax.Array, boxes: jax.Array, memory: Memory) -> jax.Array:
        """The bias, float32 [B, H, T, S], for queries [B, T, D] with boxes [B, T, 4]."""
        inits: dict[str, Any] = {"kernel_init": nn.initializers.zeros, "bias_init": around, **self.dtypes}
        said = Dense(4 * self.num_heads, **inits, name="place")(x).astype(jnp.float32)
        said = said.reshape(*x.shape[:2], self.num_heads, 2, 2).swapaxes(1, 2)  # [B, H, T, 2, 2]
        half = boxes[:, None, :, 2:] / 2
        centre = boxes[:, None, :, :2] + said[..., 0, :] * half
        # Not narrower than a token: otherwise what is small would fall between two.
        least = jnp.square(memory.cells[:, None, :1] / 2)
        spread = jnp.square(half * jnp.exp(jnp.clip(said[..., 1, :], -3, 3))) + least

        def distance(axis: int) -> jax.Array:
            apart = centre[..., axis, None] - memory.places[:, None, None, :, axis]  # [B, H, T, S]
            return jnp.square(apart) / spread[..., axis, None]

        return -(distance(0) + distance(1)) / 2


def around(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    """The first bias of a `BoxPrior`: heads half-way to the box's edge in all directions, spread as wide as the box."""
    heads = shape[0] // 4
    angles = 2 * np.pi * np.arange(heads) / heads
    offsets = 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return jnp.asarray(np.stack([offsets, np.zeros_like(offsets)], axis=1).reshape(-1), dtype)


class DetrDecoder(Layer):
    """Decoder blocks with heads for classes and boxes, which all layers share.

    With "learned" queries it is DETR's (Carion et al. 2020, section 3.2). With "anchors" queries have boxes, which each
    layer refines (Liu et al. 2022, DAB-DETR, sections 3 and 4): the box says where the query is, and where
    cross-attention looks first (`BoxPrior`).
    """

    queries: QueryName
    """The kind of queries."""
    decoder_depth: int
    """Number of blocks."""
    num_outputs: int
    """Number of logits of a query."""
    class_bias: float
    """First bias of these logits."""
    norm_epsilon: float
    """Epsilon of the final norm."""
    block: dict[str, Any]
    """The fields of every `Block`."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array | None,
        boxes: jax.Array | None,
        memory: Memory,
        mask: Mask,
        deterministic: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """The answers of all layers.

        Args:
          x: queries, [B, T, D].
          positions: positions of the queries, [B, T, D]; None with anchors.
          boxes: anchors, float32 [B, T, 4] in cxcywh; None with learned queries.
          memory: the tokens of the image.
          mask: mask of self-attention.
          deterministic: whether there is no dropout.

        Returns:
          Logits float32 [decoder_depth, B, T, num_outputs] and boxes float32 [decoder_depth, B, T, 4] in cxcywh.
        """
        width, heads = x.shape[-1], self.block["num_heads"]
        norm = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")
        bias_init, anchored = nn.initializers.constant(self.class_bias), self.queries == "anchors"
        classify = Dense(self.num_outputs, bias_init=bias_init, param_dtype=self.param_dtype, name="head")
        first, second = (Dense(width, **self.dtypes, name=f"head_box_{i}") for i in (1, 2))
        init = nn.initializers.zeros if anchored else xavier
        third = Dense(4, kernel_init=init, param_dtype=self.param_dtype, name="head_box_3")
        locate = Mlp(width, "relu", **self.dtypes, name="mlp_position") if anchored else None

        context: dict[str, Any] = {"context": memory.tokens, "context_positions": memory.positions}
        common = StackInputs(mask=mask, context_mask=Mask(keys=memory.seen), **context)

        answers = []
        for i in range(self.decoder_depth):
            bias = None
            if locate is not None and boxes is not None:
                positions = locate(box_positions(boxes, width).astype(self.dtype))
                bias = BoxPrior(heads, **self.dtypes, name=f"prior_{i}")(x, boxes, memory)
            shared = replace(common, positions=positions, context_bias=bias)
            x, _ = Block(**self.block, cross=True, name=f"block_{i}")(x, BlockInputs(), shared, deterministic)
            said = norm(x)
            moved = third(nn.relu(second(nn.relu(first(said)))).astype(jnp.float32))
            found = nn.sigmoid(moved if boxes is None else moved + logit(boxes))
            answers.append((classify(said.astype(jnp.float32)), found))
            if boxes is not None:
                boxes = jax.lax.stop_gradient(found)  # each layer learns to refine what it is given
        logits, found_boxes = zip(*answers)
        return jnp.stack(logits), jnp.stack(found_boxes)
