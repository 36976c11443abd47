"""DETR (Carion et al. 2020): the objects in an image as a set, by a Transformer over a backbone's maps.

With queries="anchors", a query is a box that every layer refines (Liu et al. 2022, DAB-DETR), each layer looks around
its box first (Gao et al. 2021, SMCA), and `denoising` teaches the decoder with true boxes that were moved (Li et al.
2022; Zhang et al. 2023): it learns in a fraction of the epochs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import (
    Constraint,
    Fraction,
    Input,
    Layers,
    PositiveFloat,
    PositiveInt,
    Rate,
    at_most,
)
from jaxformer.models.base import Kind, head_problems
from jaxformer.models.block import Block, StackInputs
from jaxformer.models.conv import Conv
from jaxformer.models.denoising import Noised, noised, seen_by
from jaxformer.models.dense import xavier
from jaxformer.models.detr_decoder import DetrDecoder, Memory, QueryName, logit, spread_anchors
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ActivationName
from jaxformer.models.outputs import Denoised, DetectionOutputs
from jaxformer.models.patches import Backboned, Levels
from jaxformer.models.positions import cells, inside, map_positions
from jaxformer.models.stack import Stack
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout

EIGHTS = Constraint("a multiple of 8, for positions in two directions", lambda value: value % 8 == 0)
normal = nn.initializers.normal(1.0)  # of queries, as PyTorch's embeddings are
RARE = 0.01  # the chance of a class at first where none stands for no object (Lin et al. 2017, section 3.3)


class DETR(Backboned):
    """Finds the objects in images."""

    kind: ClassVar[Kind] = "detector"
    heads = ("decoder/head",)

    num_classes: PositiveInt | None = None
    """Number of classes K; None: as many as the dataset has."""
    levels: Levels = (-1,)
    """Which of the backbone's maps, as indices; -1 is the last. The tokens of one follow those of the
    other."""
    width: Annotated[PositiveInt, EIGHTS] = 256
    """D, width of the tokens; a multiple of 8."""
    encoder_depth: Annotated[int, at_most(1000, 0)] = 6
    """Number of blocks of the encoder; 0: the decoder looks at the maps themselves."""
    decoder_depth: Layers = 6
    """Number of blocks of the decoder; each one's answer is learnt from."""
    num_heads: PositiveInt = 8
    """Number of attention heads; must divide width."""
    mlp_dim: PositiveInt = 2048
    """Hidden width of the MLPs."""
    num_queries: PositiveInt = 100
    """Q, the most objects that can be found in an image."""
    queries: QueryName = "learned"
    """ "learned" ones (the paper's), or "anchors": boxes."""
    no_object: bool = True
    """Whether there is one class more, the last, for no object: what the softmax needs, and the focal loss
    does not."""
    denoising: Annotated[int, at_most(1000, 0)] = 0
    """In training, how often every true object is given to the decoder with noise; with anchors alone."""
    box_noise: Input[PositiveFloat] = 1.0
    """How far the boxes of `denoising` are moved; see `denoising.noised`."""
    label_noise: Input[Fraction] = 0.25
    """Share of the labels of `denoising` that are drawn anew; see `denoising.noised`."""
    activation: ActivationName = "relu"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm."""
    dropout: Input[Rate] = 0.1
    """Rate of dropout of attention's and the MLPs' results, and in the MLPs."""
    attention_dropout: Input[Rate] = 0.0
    """Rate of dropout of the attention weights."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from head_problems(self.width, self.num_heads)
        if self.denoising and self.queries != "anchors":
            yield f'denoising={self.denoising}: expected 0, or a number with queries="anchors"'

    @property
    def task_sizes(self) -> dict[str, int]:
        """The number of queries, which is what a task matches objects with."""
        return {"num_queries": self.num_queries}

    def attended(self, path: Sequence[str], backbone: Sequence[Grid]) -> tuple[Grid, ...] | None:
        if path[0] == "backbone":
            return None
        if path[0] == "decoder" and "cross_attention" not in path:
            return ()  # queries that look at each other
        return tuple(backbone[level] for level in self.levels)

    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        return plain_layout(grids, asks, sees, cross, pooled="all objects")

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        extent: jax.Array | None = None,
        boxes: jax.Array | None = None,
        labels: jax.Array | None = None,
        deterministic: bool = True,
    ) -> DetectionOutputs:
        """Finds objects.

        Args:
          image: float [B, H, W, C], with padding at the bottom and right.
          extent: int32 [B, 2], height and width without it; None: there is none.
          boxes: the true ones, float32 [B, N, 4], for denoising in training.
          labels: their classes, int32 [B, N], -1 where there is no object.
          deterministic: whether there is neither dropout nor denoising.
        """
        num_classes = self.known("num_classes")
        if extent is None:
            extent = jnp.broadcast_to(jnp.asarray(image.shape[1:3], jnp.int32)[None], (len(image), 2))
        memory = self.encoded(image, extent, deterministic)
        x, positions, boxes_asked = self.first_queries(len(image))
        mask, noise = Mask(), None
        if self.denoising:
            table = self.param("label_embedding", normal, (num_classes, self.width), self.param_dtype)
            if not deterministic and boxes is not None and labels is not None and boxes_asked is not None:
                chances = num_classes, self.denoising, self.box_noise, self.label_noise
                noise = noised(self.make_rng("dropout"), boxes, labels, *chances)
                ones = jax.nn.one_hot(noise.labels, num_classes, dtype=self.dtype)  # 0 without an object
                x = jnp.concatenate([ones @ table.astype(self.dtype), x], axis=1)
                boxes_asked = jnp.concatenate([noise.boxes, boxes_asked], axis=1)
                mask = Mask(allowed=seen_by(noise, self.num_queries))
        bias = 0.0 if self.no_object else -math.log((1 - RARE) / RARE)
        fields = {"num_outputs": num_classes + self.no_object, "class_bias": bias, "block": self.block_fields}
        decoder = DetrDecoder(**self.passed_to(DetrDecoder) | fields, name="decoder")
        logits, found = decoder(x, positions, boxes_asked, memory, mask, deterministic)
        return outputs_of(logits, found, noise, self.denoising)

    @property
    def block_fields(self) -> dict[str, Any]:
        """The fields of every block."""
        return self.passed_to(Block) | {"norm_position": "post", "mlp_dropout": self.dropout}

    def encoded(self, image: jax.Array, extent: jax.Array, deterministic: bool) -> Memory:
        """The backbone's maps as tokens, after the encoder."""
        maps = self.backbone(image, deterministic).maps
        project: dict[str, Any] = {"use_bias": True, "kernel_init": xavier, **self.dtypes}
        parts = []
        for i, level in enumerate(self.levels):
            name = f"_{i}" if len(self.levels) > 1 else ""
            x = Conv(self.width, 1, **project, name=f"conv_projection{name}")(maps[level])
            rows, columns = inside(extent, (image.shape[1], image.shape[2]), (x.shape[1], x.shape[2]))
            positions = map_positions(rows, columns, self.width)  # [B, S, D]
            if name:
                own = self.param(f"level{name}_position_embedding", normal, (self.width,), self.param_dtype)
                positions = positions + own[None, None]
            tokens = x.reshape(len(image), -1, self.width)  # [B, S, D]
            parts.append((tokens, positions.astype(self.dtype), *cells(rows, columns)))
        memory = Memory(*(jnp.concatenate(part, axis=1) for part in zip(*parts)))
        if not self.encoder_depth:
            return memory
        encoder = Stack(Block, self.block_fields, self.encoder_depth, name="encoder")
        shared = StackInputs(mask=Mask(keys=memory.seen), positions=memory.positions)
        tokens, _ = encoder(memory.tokens, deterministic, shared)
        return replace(memory, tokens=tokens)

    def first_queries(self, batch: int) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
        """Queries [B, Q, D], their positions [B, Q, D] and boxes [B, Q, 4]: one of the two is None."""

        def for_all(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x[None], (batch, *x.shape))

        def learned(name: str) -> jax.Array:
            table = self.param(name, normal, (self.num_queries, self.width), self.param_dtype)
            return for_all(table.astype(self.dtype))

        if self.queries == "learned":
            positions = learned("query_position_embedding")
            return jnp.zeros_like(positions), positions, None
        x = learned("query_embedding")
        anchors = self.param("anchors", lambda key: logit(jnp.asarray(spread_anchors(self.num_queries))))
        return x, None, for_all(nn.sigmoid(anchors.astype(jnp.float32)))


def outputs_of(logits: jax.Array, boxes: jax.Array, noise: Noised | None, groups: int) -> DetectionOutputs:
    """The decoder's answers [L, B, T, ...], those to queries apart from those to noised objects, which are in front."""
    if noise is None:
        return DetectionOutputs(logits, boxes)
    total = noise.labels.shape[1]

    def of_objects(x: jax.Array) -> jax.Array:
        return x[:, :, :total].reshape(*x.shape[:2], groups, 2, total // (2 * groups), x.shape[-1])

    denoised = Denoised(of_objects(logits), of_objects(boxes))
    return DetectionOutputs(logits[:, :, total:], boxes[:, :, total:], denoised)
