"""Two towers: one model reads pictures, another texts, and both give vectors that are compared (CLIP, SigLIP, LiT)."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import NonNegativeInt, PositiveFloat, PositiveInt
from jaxformer.config.schema import choice
from jaxformer.models import BACKBONES, CONTRACT, TEXT_ENCODERS
from jaxformer.models.base import Kind, Model
from jaxformer.models.dense import Dense
from jaxformer.models.outputs import PairOutputs, mean_of_tokens
from jaxformer.models.patches import UNFIT, backbone_outputs, own_head_problems

LARGEST_SCALE = 100.0  # Radford et al. 2021, section 2.5
USUAL_SIZE = 224  # of images, for what has to be known of a tower that takes images of any size
Pooling: TypeAlias = Literal["end", "first", "mean", "last"]
ProjectionName: TypeAlias = Literal["linear", "affine", "none"]
# As in openai/CLIP: by the width of the tower.
fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class TwoTowers(Model):
    """An image model and a text model whose vectors are near each other where a text tells of an image.

    CLIP (Radford et al. 2021) compares by a softmax over the batch, SigLIP (Zhai et al. 2023) by a sigmoid of each pair
    with a bias. LiT (Zhai et al. 2022) is either with the image tower frozen: `optimizer.freeze=("image/.*",)`.
    """

    kind: ClassVar[Kind] = "two-towers"
    parts: ClassVar[tuple[str, ...]] = ("text",)
    not_of_image: ClassVar[tuple[str, ...]] = ("text",)
    heads = ("image_projection", "text_projection", "log_scale", "bias")

    image: Any = choice(BACKBONES, contract=CONTRACT)
    """The model that reads images: any of BACKBONES, with num_classes=0. Its parameters are "image/..."."""
    text: Any = choice(TEXT_ENCODERS, contract=CONTRACT)
    """The model that reads texts: "bert" with head="none" and pooler="none", or "gpt". Its parameters are
    "text/..."."""
    text_pooling: Pooling = "end"
    """Which of its tokens stand for a text: the last real one, as in CLIP ("end"), the first ("first"), the mean of the
    real ones ("mean"), or, as in SigLIP, the last place of the row, padding or not, which then is seen ("last")."""
    padding: NonNegativeInt | None = None
    """The token that text_pooling="last" sees on padding: 1 in SigLIP, 0 in SigLIP 2. None: what the batch has."""
    embedding: PositiveInt = 512
    """E, size of the vectors that are compared."""
    image_projection: ProjectionName = "linear"
    """What makes them of what the image tower gives: a product ("linear"), one with a bias ("affine"), or nothing
    ("none"), where the tower's width is `embedding`."""
    text_projection: ProjectionName = "linear"
    """The same for texts."""
    scale: PositiveFloat = 1 / 0.07
    """First value of the learned factor of the products, the inverse of a temperature: 10 in SigLIP. Where there is no
    `bias` it is clipped at 100, as in CLIP."""
    bias: float | None = None
    """First value of a learned number that is added to the products: -10 in SigLIP. None: there is none."""

    def problems(self) -> Iterator[str]:
        yield from own_head_problems(self.image, "image")
        yield from tower_problems(self.text, self.text_pooling, "text_pooling")
        for name, projection in (("image", self.image_projection), ("text", self.text_projection)):
            if projection == "none" and (width := self.width_of(name)) not in (None, self.embedding):
                yield f'{name}_projection="none": needs embedding={width}, the width of what {name} gives'

    @nn.nowrap
    def width_of(self, name: str) -> int | None:
        """The size of what a tower, "image" or "text", gives; None where its own fields do not fit each other."""
        if name == "text":
            return self.text.width
        try:
            return backbone_outputs(self.image, self.image.image_size or USUAL_SIZE).features.shape[-1]
        except UNFIT:
            return None

    @property
    def image_size(self) -> int | None:
        """Height and width of the images that the image tower takes; None: any."""
        return self.image.image_size

    @property
    def context_length(self) -> int:
        """The longest text, in tokens."""
        return self.text.longest_text

    @property
    def vocab_size(self) -> int | None:
        """Rows of the text tower's token table."""
        return self.text.vocab_size

    def setup(self) -> None:
        """What joins the two towers."""
        self.of_image = self.projected(self.image_projection, "image_projection")
        self.of_text = self.projected(self.text_projection, "text_projection")
        # Float32 in any precision: 16 bits would round their updates away.
        self.log_scale = self.param(
            "log_scale", nn.initializers.constant(math.log(self.scale)), (), jnp.float32
        )
        self.offset = jnp.float32(0)
        if self.bias is not None:
            self.offset = self.param("bias", nn.initializers.constant(self.bias), (), jnp.float32)

    @nn.nowrap
    def projected(self, how: ProjectionName, name: str) -> Dense | None:
        """The last layer of a tower."""
        if how == "none":
            return None
        return Dense(self.embedding, use_bias=how == "affine", kernel_init=fan_in, **self.dtypes, name=name)

    def __call__(
        self, image: Array, tokens: Array, token_mask: Array | None = None, deterministic: bool = True
    ) -> PairOutputs:
        """The vectors of images, float [B, H, W, C], and of texts, int [B, T]; see `text_features`."""
        images = self.image_features(image, deterministic)
        texts = self.text_features(tokens, token_mask, deterministic)
        scale, bias = self.numbers()
        rows = images.shape[:1]
        return PairOutputs(images, texts, jnp.broadcast_to(scale, rows), jnp.broadcast_to(bias, rows))

    def numbers(self) -> tuple[Array, Array]:
        """What products of vectors are multiplied by, and what is added to them, float32 []."""
        scale = jnp.exp(self.log_scale)
        if self.bias is None:  # SigLIP's go beyond
            scale = jnp.minimum(scale, LARGEST_SCALE)
        return scale, self.offset

    def image_features(self, image: Array, deterministic: bool = True) -> Array:
        """Float32 [B, E], of length 1, of images, float [B, H, W, C], or of what the tower gave of them, [B, D]."""
        features = image if image.ndim == 2 else self.seen(image, deterministic)
        return unit(features if self.of_image is None else self.of_image(features))

    def seen(self, image: Array, deterministic: bool = True) -> Array:
        """What the image tower gives of images, float [B, H, W, C], before it is projected: [B, D]."""
        return self.image(image, deterministic).features

    def text_features(
        self, tokens: Array, token_mask: Array | None = None, deterministic: bool = True
    ) -> Array:
        """Vectors of texts, float32 [B, E], of length 1.

        Args:
          tokens: int [B, T].
          token_mask: bool [B, T], False on padding; None: there is none.
          deterministic: whether there is no dropout.
        """
        if self.text_pooling == "last" and token_mask is not None and self.padding is not None:
            tokens = jnp.where(token_mask, tokens, self.padding)
        mask = None if self.text_pooling == "last" else token_mask
        seen = self.text(tokens, token_mask=mask, deterministic=deterministic).tokens
        features = pooled(seen, mask, self.text_pooling)
        return unit(features if self.of_text is None else self.of_text(features))


def tower_problems(text: Any, pooling: Pooling, field: str) -> Iterator[str]:
    """Yields a line for everything that keeps a model of text from being a tower; `field` has the pooling."""
    if text.kind == "encoder" and text.head != "none":
        yield f'text.head="{text.head}": a text tower\'s own head is never read; set it to "none"'
    elif text.kind == "encoder" and text.pooler in ("tanh", "relu"):
        yield f'text.pooler="{text.pooler}": its layer is never read; set it to "none"'
    if text.kind == "decoder" and not text.tied:
        yield "text.tied=False: a text tower's own head is never read; set it to True"
    if text.kind == "decoder" and pooling == "first":
        yield f'{field}="first": of a decoder the first token sees no other one; take "end"'


def pooled(tokens: Array, token_mask: Array | None, how: Pooling) -> Array:
    """What stands for each text, [B, D], of its tokens [B, T, D]; `token_mask` bool [B, T] is False on padding."""
    if how == "mean":
        return mean_of_tokens(tokens, token_mask)
    if token_mask is None:
        return tokens[:, 0 if how == "first" else -1]
    last = tokens.shape[1] - 1 - jnp.argmax(token_mask[:, ::-1], axis=1)
    place = jnp.argmax(token_mask, axis=1) if how == "first" else last  # [B]
    return jnp.take_along_axis(tokens, place[:, None, None], axis=1)[:, 0]


def unit(x: Array) -> Array:
    """Vectors x [B, E] as float32 of length 1; 0 stays 0, with a gradient of 0."""
    x = x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
