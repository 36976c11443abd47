"""CoCa: one model that compares pictures with texts and writes about them (Yu et al. 2022, Contrastive Captioners)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import Layers, PositiveFloat, PositiveInt
from jaxformer.models.attention import Attention, MaybeArray
from jaxformer.models.base import Kind, Layer
from jaxformer.models.block import Aux, StackInputs
from jaxformer.models.captioner import Captioner, mean_attention, normal
from jaxformer.models.dense import Dense
from jaxformer.models.masks import Cache, Mask, empty_cache
from jaxformer.models.norms import NormName, token_norm
from jaxformer.models.outputs import CaptionedPairOutputs
from jaxformer.models.positions import token_positions
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout
from jaxformer.models.two_towers import LARGEST_SCALE, fan_in, unit


class AttentionPool(Layer):
    """Learned queries that look at tokens: a single layer of attention (Yu et al. 2022, section 3.2)."""

    queries: int
    """How many vectors come out, N."""
    num_heads: int
    """Number of attention heads."""
    norm: NormName
    """The norm of what comes out."""
    norm_epsilon: float
    """Its epsilon."""

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Pools [B, S, D] to [B, N, D]."""
        asked = self.param("probe", normal(0.02), (1, self.queries, tokens.shape[-1]), self.param_dtype)
        asked = jnp.broadcast_to(asked.astype(self.dtype), (len(tokens), *asked.shape[1:]))
        found, _ = Attention(self.num_heads, **self.dtypes, name="attention")(asked, tokens)
        return token_norm(self.norm, self.norm_epsilon, True, **self.dtypes, name="norm")(found)


class CoCa(Captioner):
    """A captioner whose first blocks see the text alone, and so give a vector of it that pictures are compared with.

    The picture's tokens are pooled by learned queries for the decoder, and these by one query for the picture's vector
    (the poolers in a cascade). The text's vector is that of a class token behind its words, which they do not see.
    """

    kind: ClassVar[Kind] = "coca"
    not_of_image: ClassVar[tuple[str, ...]] = ("unimodal", "decoder", "caption_pool", "image_pool")
    heads = ("vector_projection", "text_projection", "log_scale")

    bias: ClassVar[None] = None
    """What is added to the products, as two towers name it: nothing."""

    unimodal_depth: Layers = 6
    """Number of blocks that see the text alone; `depth` is that of those behind them, with cross-attention."""
    queries: PositiveInt = 256
    """How many vectors of a picture the decoder looks at; 256 in the paper."""
    embedding: PositiveInt = 512
    """E, size of the vectors that are compared."""
    scale: PositiveFloat = 1 / 0.07
    """First value of the learned factor of the products, the inverse of a temperature; it is clipped at 100."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.reads != "cross":
            yield f'reads="{self.reads}": the last blocks look at the picture by cross-attention; set it to "cross"'

    def attended(self, path: Sequence[str], backbone: Sequence[Grid]) -> tuple[Grid, ...] | None:
        return tuple(backbone[-1:]) if path[0] == "caption_pool" else None

    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        return plain_layout(grids, asks, sees, True, pooled="all queries")

    def setup(self) -> None:
        """The captioner's parts, the blocks before its own, the poolers and what makes the vectors."""
        super().setup()
        inits = normal(0.02), normal(0.02 / (2 * self.unimodal_depth) ** 0.5)
        self.unimodal = self.stack(None, self.unimodal_depth, *inits)
        pool: dict[str, Any] = {
            "num_heads": self.num_heads,
            "norm": self.norm,
            "norm_epsilon": self.norm_epsilon,
        }
        self.caption_pool = AttentionPool(self.queries, **pool, **self.dtypes)
        self.image_pool = AttentionPool(1, **pool, **self.dtypes)
        self.text_norm = self.last_norm("text_norm")
        for name in ("vector_projection", "text_projection"):
            setattr(self, name, Dense(self.embedding, use_bias=False, kernel_init=fan_in, **self.dtypes))
        self.class_token = self.param("class_token", normal(0.02), (1, 1, self.width), self.param_dtype)
        start = nn.initializers.constant(math.log(self.scale))
        self.log_scale = self.param("log_scale", start, (), jnp.float32)  # in any precision

    def __call__(  # type: ignore[override]
        self, image: Array, tokens: Array, token_mask: MaybeArray = None, deterministic: bool = True
    ) -> CaptionedPairOutputs:
        """The vectors of pictures and texts, and logits of the token after each; arguments as `Captioner` has them."""
        context = self.encode(image, deterministic)
        words, text = self.read(tokens, token_mask, deterministic)
        shared = StackInputs(mask=Mask(causal=True), context=context)
        x = self.norm_last(self.decoder(words, deterministic, shared)[0])
        logits, _ = self.logits(x, self.token_embedding, self.head, False)
        rows = (len(tokens),)
        scale, bias = (jnp.broadcast_to(number, rows) for number in self.numbers())
        return CaptionedPairOutputs(self.compared(context), text, scale, bias, logits=logits, tokens=x)

    def pooled(self, seen: Array) -> Array:
        """What the decoder is given of the backbone's tokens [B, S, D]: [B, queries, D]."""
        return self.caption_pool(seen)

    @nn.nowrap
    def of_picture(self, maps: Mapping[str, Any], words: int) -> Array:
        """The attention to the queries times that of the queries to the picture's tokens, float32 [B, T, S]."""
        return super().of_picture(maps, words) @ mean_attention({"pool": maps["caption_pool"]}, "attention")

    def read(self, tokens: Array, token_mask: MaybeArray, deterministic: bool) -> tuple[Array, Array]:
        """The words after the blocks that see the text alone, [B, T, D], and the text's vector, float32 [B, E]."""
        x = self.embed(tokens, token_positions(tokens, None), deterministic)
        last = jnp.broadcast_to(self.class_token.astype(x.dtype), (len(x), 1, self.width))
        keys = None if token_mask is None else jnp.pad(token_mask, ((0, 0), (0, 1)), constant_values=True)
        shared = StackInputs(mask=Mask(causal=True, keys=keys))
        x, _ = self.unimodal(jnp.concatenate([x, last], axis=1), deterministic, shared)
        return x[:, :-1], unit(self.text_projection(self.text_norm(x[:, -1])))

    def through(
        self, x: Array, shared: StackInputs, cache: Cache | None, deterministic: bool
    ) -> tuple[Array, list[Aux]]:
        own = self.unimodal_depth
        first = None if cache is None else replace(cache, layers=cache.layers[:own])
        second = None if cache is None else replace(cache, layers=cache.layers[own:])
        x, of_text = self.unimodal(x, deterministic, replace(shared, context=None), (), first)
        x, of_both = self.decoder(x, deterministic, shared, (), second)
        return x, [*of_text, *of_both]

    @nn.nowrap
    def start(self, batch: int, length: int, seen: int) -> Cache:
        depth = self.unimodal_depth + self.depth
        return empty_cache(batch, length, depth, self.num_heads, self.size_of_heads, self.dtype)

    def compared(self, context: Array) -> Array:
        """The vectors of pictures, float32 [B, E], of length 1, from what `encode` gives."""
        return unit(self.vector_projection(self.image_pool(context)[:, 0]))

    def numbers(self) -> tuple[Array, Array]:
        """What products of vectors are multiplied by, and what is added to them, float32 []."""
        return jnp.minimum(jnp.exp(self.log_scale), LARGEST_SCALE), jnp.float32(0)

    def image_features(self, image: Array, deterministic: bool = True) -> Array:
        """Float32 [B, E], of length 1, of images, float [B, H, W, C]."""
        return self.compared(self.encode(image, deterministic))

    def text_features(
        self, tokens: Array, token_mask: MaybeArray = None, deterministic: bool = True
    ) -> Array:
        """Float32 [B, E], of length 1, of texts int [B, T]; `token_mask` bool [B, T] is False on padding."""
        return self.read(tokens, token_mask, deterministic)[1]
