"""The Vision Transformer (Dosovitskiy et al. 2021), on patches of the image or of a CNN's feature maps."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import Layers, NonNegativeInt, Pixels, PositiveFloat, PositiveInt
from jaxformer.config.schema import choice
from jaxformer.models import BACKBONES, CONTRACT
from jaxformer.models.attention import Attention
from jaxformer.models.base import Dropouts, ImageModel, Layer, Prompted, head_problems
from jaxformer.models.block import Block
from jaxformer.models.dense import Dense, Initializer
from jaxformer.models.dropout import Dropout
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs, classified, logits_of
from jaxformer.models.patches import (
    PatchEmbedding,
    backbone_outputs,
    backbone_problems,
    on_grids,
    patch_problems,
)
from jaxformer.models.positions import sincos2d
from jaxformer.models.resampling import mean_of
from jaxformer.models.stack import Stack
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout

normal = nn.initializers.normal(0.02)  # of positions and tokens, as in google-research/vision_transformer


class MapPool(Layer):
    """Multi-head attention pooling by one learned query (Zhai et al. 2022, section 3.4), as in big_vision."""

    num_heads: int
    """Number of attention heads."""
    mlp_dim: int
    """Hidden width of the MLP."""
    activation: ActivationName
    """Activation of the MLP."""
    norm_epsilon: float
    """Epsilon of the LayerNorm."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Pools [B, T, D] to [B, D]."""
        batch, _, width = tokens.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width), self.param_dtype)
        query = jnp.broadcast_to(probe.astype(self.dtype), (batch, 1, width))
        x, _ = Attention(self.num_heads, **self.dtypes, name="attention")(query, tokens)
        y = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")(x)
        x = x + Mlp(self.mlp_dim, self.activation, **self.dtypes, name="mlp")(y)
        return x[:, 0]


class ViT(ImageModel, Dropouts, Prompted):
    """A Vision Transformer that classifies images."""

    heads = ("head", "head_distilled")

    image_size: Pixels = 224
    """Height and width of the images, in pixels."""
    patch_size: PositiveInt | tuple[PositiveInt, ...] = 16
    """Height and width of a patch of the image, or of a backbone's map; one for each of `levels`, or one for
    all. Patches have to tile what they are cut from."""
    backbone: Any | None = choice(BACKBONES, contract=CONTRACT, default=None)
    """The model whose feature maps are cut into patches in the image's place: any of BACKBONES, with
    num_classes=0. Its parameters are "backbone/...": `optimizer.freeze` freezes them. None has none."""
    levels: tuple[int, ...] = (-1,)
    """Which of the backbone's maps, as indices; -1 is the last. Each has a patch embedding of its own, and
    the tokens of one follow those of the other."""
    width: PositiveInt = 768
    """D, width of the tokens."""
    depth: Layers = 12
    """Number of blocks."""
    num_heads: PositiveInt = 12
    """Number of attention heads; must divide width."""
    mlp_dim: PositiveInt | None = None
    """Hidden width of the MLPs; None: 4 x width."""
    pool: Literal["cls", "average", "map"] = "cls"
    """What the head sees: the class token ("cls"), the mean of the patches ("average"), or attention pooling
    ("map"). Only "cls" has a class token."""
    distillation_token: bool = False
    """A second token and a second head, which learns from a teacher (Touvron et al. 2021, DeiT, section 4).
    Outputs have its logits as `distilled`; when evaluated, `logits` are the mean of both heads'."""
    positions: Literal["learned", "sincos2d"] = "learned"
    """A learned table, or fixed sines and cosines ("sincos2d")."""
    patch_bias: bool = True
    """Whether patch embeddings have a bias; CLIP's has none."""
    embedding_norm: bool = False
    """A LayerNorm of the tokens before the first block, as in CLIP (Radford et al. 2021, section 2.4)."""
    registers: NonNegativeInt = 0
    """Number of extra learned tokens that are thrown away at the end (Darcet et al. 2024)."""
    representation: PositiveInt | None = None
    """Width of a tanh layer before the head, as Dosovitskiy et al. 2021 pretrain; None: no layer."""
    layer_scale: PositiveFloat | None = None
    """First value of LayerScale (Touvron et al. 2021, CaiT); None has none."""
    qk_norm: bool = False
    """RMSNorm on queries and keys (Dehghani et al. 2023)."""
    activation: ActivationName = "gelu_tanh"
    """Activation of the MLPs; "gelu_tanh" in JAX's ViTs, "gelu_erf" in transformers' and timm's."""
    norm_epsilon: PositiveFloat = 1e-6
    """Epsilon of every LayerNorm; 1e-6 in JAX's ViTs and timm's, 1e-12 in transformers'."""

    def problems(self) -> Iterator[str]:
        if not self.levels or (self.backbone is None and self.levels != (-1,)):
            yield f"levels={list(self.levels)}: expected indices of a backbone's maps, or [-1] without a backbone"
        elif not isinstance(self.patch_size, int) and len(self.patch_size) != len(self.levels):
            yield f"patch_size={list(self.patch_size)}: expected a number, or one for each of {len(self.levels)} levels"
        elif self.backbone is None:
            yield from patch_problems(self.image_size, self.patch_sizes[0])
        else:
            yield from backbone_problems(self.backbone, self.image_size, self.levels, self.patch_sizes)
        yield from head_problems(self.width, self.num_heads)
        if self.distillation_token and (self.pool != "cls" or self.representation is not None):
            yield 'distillation_token=True: needs pool="cls" and representation=None'
        if self.positions == "sincos2d" and (self.width % 4 or self.width < 8):
            yield f'width={self.width}: positions="sincos2d" needs a multiple of 4 from 8 on'

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """The patches' height and width, level by level."""
        size = self.patch_size
        return (size,) * len(self.levels) if isinstance(size, int) else size

    @property
    def prefix_tokens(self) -> int:
        """Tokens in front of the patches: the class token, the distillation token, the prompt and the registers."""
        return (self.pool == "cls") + self.distillation_token + self.prompt + self.registers

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Rows and columns of the patches of an image of image_size, level by level."""
        sides = [self.image_size]
        if self.backbone is not None:
            maps = backbone_outputs(self.backbone, self.image_size).maps
            sides = [maps[level].shape[1] for level in self.levels]
        return tuple((side // size, side // size) for side, size in zip(sides, self.patch_sizes))

    @property
    def grid(self) -> Grid:
        """Rows and columns of the last level's patches."""
        return self.grids[-1]

    @property
    def tokens_before_grid(self) -> int:
        """Tokens in front of the last level's patches."""
        return self.prefix_tokens + sum(rows * columns for rows, columns in self.grids[:-1])

    @property
    def by_class_token(self) -> bool:
        """Whether a class token reads the patches for the head."""
        return self.pool == "cls"

    @property
    def deciding_tokens(self) -> int:
        """How many of the first tokens heads read; 0 where there is no class token, or no head."""
        return 1 + self.distillation_token if self.by_class_token and self.num_classes else 0

    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        return plain_layout(grids, asks, sees, cross, deciding=self.deciding_tokens)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; the table of positions is made for those that it is initialised with.

        The outputs' "tokens" are the class token, the distillation token, the prompt (Jia et al. 2022, section 3.2:
        the shallow form), the registers, then the patches, row by row; "maps" are the patches of each level on their
        grid.
        """
        fields: dict[str, Any] = self.passed_to(Block) | {"mlp_dim": self.mlp_dim or 4 * self.width}
        sources = [image]
        if self.backbone is not None:
            maps = self.backbone(image, deterministic).maps
            sources = [maps[level] for level in self.levels]
        patches, grids = [], []
        for i, (source, size) in enumerate(zip(sources, self.patch_sizes)):
            name = f"patch_embedding_{i}" if len(sources) > 1 else "patch_embedding"
            embed = PatchEmbedding(size, self.width, self.patch_bias, **self.dtypes, name=name)
            patches.append(embed(source))  # [B, T, D]
            grids.append((source.shape[1] // size, source.shape[2] // size))
        x = self.with_prefix_and_positions(jnp.concatenate(patches, axis=1), grids)
        if self.embedding_norm:
            x = LayerNorm(self.norm_epsilon, **self.dtypes, name="embedding_norm")(x)
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        block = fields | {"mlp_dropout": self.dropout}
        encoder = Stack(Block, block, self.depth, self.drop_path, self.remat, self.scan, name="encoder")
        x, beside = encoder(x, deterministic, first=self.deciding_tokens)  # [B, prefix + T, D]
        norm = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")
        tokens = norm(x)

        seen = tokens[:, self.prefix_tokens :]
        first = tokens
        if self.deciding_tokens:  # the others' last MLP and norm are left out where nothing reads them
            first = norm(x[:, : self.deciding_tokens] if beside[-1].first is None else beside[-1].first)
        if self.pool == "cls":
            features = first[:, 0]  # [B, D]
        elif self.pool == "average":
            features = mean_of(seen)
        else:
            features = MapPool(**self.passed_to(MapPool) | {"mlp_dim": fields["mlp_dim"]}, name="pool")(seen)
        if self.representation is not None:
            init = nn.initializers.lecun_normal()
            layer = Dense(self.representation, kernel_init=init, **self.dtypes, name="representation")
            features = jnp.tanh(layer(features))
        outputs = classified(self, tokens, on_grids(seen, grids), features)
        if outputs.logits is None or not self.distillation_token:
            return outputs
        classes = self.known("num_classes")
        distilled = logits_of(first[:, 1], classes, self.param_dtype, name="head_distilled")
        logits = (outputs.logits + distilled) / 2 if deterministic else outputs.logits
        return replace(outputs, logits=logits, distilled=distilled)

    def with_prefix_and_positions(self, patches: jax.Array, grids: Sequence[Grid]) -> jax.Array:
        """Patches [B, T, D] with their positions added, behind the class token, the distillation token, the prompt and
        registers.

        The learned table has rows for the class token and the distillation token, as in DeiT, and none for the prompt
        and the registers, as in DINOv2.
        """
        batch, count, width = patches.shape

        def for_batch(tokens: jax.Array) -> jax.Array:
            # Before it is rounded, so that the gradient is added up over the batch in float32.
            return jnp.broadcast_to(tokens, (batch, *tokens.shape[1:])).astype(self.dtype)

        def learned(name: str, number: int, init: Initializer = normal) -> jax.Array:
            return for_batch(self.param(name, init, (1, number, width), self.param_dtype))

        x = patches
        if self.positions == "sincos2d":
            tables = [jnp.asarray(sincos2d(*grid, width)) for grid in grids]
            x = x + for_batch(jnp.concatenate(tables, axis=1))
        prefix = [learned("class_token", 1, nn.initializers.zeros)] if self.pool == "cls" else []
        prefix += [learned("distillation_token", 1)] if self.distillation_token else []
        x = jnp.concatenate([*prefix, x], axis=1)  # [B, prefix + T, D]
        if self.positions == "learned":
            x = x + learned("position_embedding", len(prefix) + count)
        between = [learned("prompt_tokens", self.prompt)] if self.prompt else []
        between += [learned("register_tokens", self.registers)] if self.registers else []
        if between:
            x = jnp.concatenate([x[:, : len(prefix)], *between, x[:, len(prefix) :]], axis=1)
        return x
