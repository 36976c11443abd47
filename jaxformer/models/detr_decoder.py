"""DETR's decoder: queries that look at a picture and at each other; after every layer each has a box and a class."""

import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from jaxformer.models.base import Layer
from jaxformer.models.block import Block, BlockInputs, StackInputs
from jaxformer.models.dense import Dense
from jaxformer.models.image_positions import box_positions
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import Mlp
from jaxformer.models.norms import LayerNorm

Dtype = Any
QueryName: TypeAlias = Literal["learned", "anchors"]
EDGE = 1e-4  # what keeps the logarithm of a box's share finite


@struct.dataclass
class Memory:
    """What the decoder looks at."""

    tokens: jax.Array
    """[B, S, D]."""
    positions: jax.Array
    """[B, S, D]."""
    seen: jax.Array
    """Bool [B, S], False on padding."""
    places: jax.Array
    """Float32 [B, S, 2], x and y of each token as shares of the picture."""
    cells: jax.Array
    """Float32 [B, S, 2], width and height of what a token stands for."""


def spread_anchors(count: int) -> np.ndarray:
    """Boxes that cover a picture evenly, each about twice its share of it; float32 [count, 4] in cxcywh.

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
    """H."""

    @nn.compact
    def __call__(self, x: jax.Array, boxes: jax.Array, memory: Memory) -> jax.Array:
        """The bias, float32 [B, H, T, S], for queries [B, T, D] with boxes [B, T, 4]."""
        inits: dict[str, Any] = {"kernel_init": nn.initializers.zeros, "bias_init": around}
        layer = Dense(4 * self.num_heads, **inits, **self.dtypes, name="place")
        said = (
            layer(x).astype(jnp.float32).reshape(*x.shape[:2], self.num_heads, 2, 2).swapaxes(1, 2)
        )  # [B, H, T, 2, 2]
        half = boxes[:, None, :, 2:] / 2
        centre = boxes[:, None, :, :2] + said[..., 0, :] * half
        # Not narrower than a token: else what is small would fall between two.
        spread = jnp.square(half * jnp.exp(jnp.clip(said[..., 1, :], -3, 3))) + jnp.square(
            memory.cells[:, None, :1] / 2
        )
        distances = [
            jnp.square(centre[..., axis, None] - memory.places[:, None, None, :, axis])
            / spread[..., axis, None]
            for axis in range(2)
        ]
        return -(distances[0] + distances[1]) / 2


def around(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    """What a `BoxPrior` says first: heads half-way to the box's edge in all directions, spread as wide as the box."""
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
    """Which kind."""
    depth: int
    """blocks."""
    num_outputs: int
    """Logits of a query."""
    class_bias: float
    """Of these logits at first."""
    norm_epsilon: float
    """Of the final norm."""
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
        """What all layers say.

        Args:
          x: queries, [B, T, D].
          positions: theirs, [B, T, D]; None with anchors.
          boxes: anchors, float32 [B, T, 4] in cxcywh; None with learned queries.
          memory: what is looked at.
          mask: of self-attention.
          deterministic: whether there is no dropout.

        Returns:
          Logits float32 [depth, B, T, num_outputs] and boxes float32 [depth, B, T, 4] in cxcywh.
        """
        width, heads = x.shape[-1], self.block["num_heads"]
        norm = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")
        bias_init = nn.initializers.constant(self.class_bias)
        classify = Dense(self.num_outputs, bias_init=bias_init, param_dtype=self.param_dtype, name="head")
        box_head = [Dense(width, **self.dtypes, name=f"head_box_{i}") for i in (1, 2)]
        last = nn.initializers.zeros if self.queries == "anchors" else nn.initializers.xavier_uniform()
        box_head.append(Dense(4, kernel_init=last, param_dtype=self.param_dtype, name="head_box_3"))
        locate = Mlp(width, "relu", **self.dtypes, name="mlp_position") if self.queries == "anchors" else None

        all_logits, all_boxes = [], []
        for i in range(self.depth):
            bias = None
            if locate is not None and boxes is not None:
                positions = locate(box_positions(boxes, width).astype(self.dtype))
                bias = BoxPrior(heads, **self.dtypes, name=f"prior_{i}")(x, boxes, memory)
            shared = StackInputs(
                mask=mask,
                positions=positions,
                context=memory.tokens,
                context_mask=Mask(keys=memory.seen),
                context_bias=bias,
                context_positions=memory.positions,
            )
            x, _ = Block(**self.block, cross=True, name=f"block_{i}")(x, BlockInputs(), shared, deterministic)
            said = norm(x)
            moved = nn.relu(box_head[1](nn.relu(box_head[0](said))))
            moved = box_head[2](moved.astype(jnp.float32))
            found = nn.sigmoid(moved if boxes is None else moved + logit(boxes))
            all_logits.append(classify(said.astype(jnp.float32)))
            all_boxes.append(found)
            if boxes is not None:
                boxes = jax.lax.stop_gradient(found)  # each layer learns to refine what it is given
        return jnp.stack(all_logits), jnp.stack(all_boxes)
