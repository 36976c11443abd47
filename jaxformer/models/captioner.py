"""Models that write of a picture: any backbone, and a decoder that looks at it or goes on from it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import Input, Layers, Rate, left_out
from jaxformer.config.schema import choice
from jaxformer.models import BACKBONES, CONTRACT
from jaxformer.models.attention import ATTENTION_MAPS, MaybeArray
from jaxformer.models.base import Kind, head_problems
from jaxformer.models.block import Aux, StackInputs
from jaxformer.models.dense import Dense, Embedding
from jaxformer.models.dropout import Dropout
from jaxformer.models.masks import Cache, Mask, cached_mask, empty_cache
from jaxformer.models.mlp import ActivationName
from jaxformer.models.outputs import TextOutputs
from jaxformer.models.patches import own_head_problems
from jaxformer.models.positions import for_rows, sincos2d, token_positions
from jaxformer.models.text import GenerativeModel
from jaxformer.models.token_layout import Grid

normal = nn.initializers.normal


class Captioner(GenerativeModel):
    """A backbone that sees the picture and a decoder that writes.

    The decoder's cross-attention reads the backbone's tokens ("cross": Vinyals et al. 2015's task with the Transformer
    of Vaswani et al. 2017), or these stand in front of the text in one row ("prefix"), where they see each other and
    the text sees them and what is before it (Wang et al. 2022, GIT, figure 3; Beyer et al. 2024, PaliGemma, 3.2).
    """

    kind: ClassVar[Kind] = "captioner"
    not_of_image: ClassVar[tuple[str, ...]] = ("decoder",)

    backbone: Any = choice(BACKBONES, contract=CONTRACT)
    """The model that sees the picture: any of BACKBONES, with num_classes=0. Its parameters are "backbone/...":
    `optimizer.freeze` freezes them."""
    reads: Literal["cross", "prefix"] = "cross"
    """How the decoder sees the picture: by cross-attention, or as tokens in front of the text."""
    depth: Layers = 6
    """Number of blocks of the decoder."""
    activation: ActivationName = "gelu_tanh"
    """Activation of the decoder's MLPs."""
    word_dropout: Input[Rate] = 0.0
    """Rate at which the decoder does not see a word that it has to go on from, in training (Bowman et al. 2016, section
    3.2): it then has to look at the picture, and learns less by heart of which words follow each other."""

    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads, self.head_dim)
        yield from own_head_problems(self.backbone)
        if self.width % 4 or self.width < 8:
            yield f"width={self.width}: positions on a feature map need a multiple of 4, from 8 on"

    @property
    def image_size(self) -> int | None:
        """Height and width of the pictures that the backbone takes; None: any."""
        return self.backbone.image_size

    def setup(self) -> None:
        """The parts beside the backbone; weights begin as GPT-2's do."""
        vocab_size = self.known("vocab_size")
        self.image_projection = Dense(self.width, **self.dtypes)
        self.image_norm = self.last_norm("image_norm")
        self.token_embedding = Embedding(vocab_size, self.width, **self.dtypes)
        self.position_embedding = Embedding(self.context_length, self.width, **self.dtypes)
        inits = normal(0.02), normal(0.02 / (2 * self.depth) ** 0.5)
        self.decoder = self.stack(None, self.depth, *inits, cross=self.reads == "cross")
        self.norm_last = self.last_norm("norm_last")
        init = normal(0.02)
        self.head = None if self.tied else Dense(vocab_size, use_bias=False, kernel_init=init, **self.dtypes)
        self.drop = Dropout(self.dropout)

    def __call__(
        self, image: Array, tokens: Array, token_mask: MaybeArray = None, deterministic: bool = True
    ) -> TextOutputs:
        """Logits of the token after each.

        Args:
          image: float [B, H, W, C].
          tokens: int [B, T], from the one that starts a text on.
          token_mask: bool [B, T], False on padding, which is at the end here; None: there is none.
          deterministic: whether there is no dropout.
        """
        context = self.encode(image, deterministic)
        return self.decode(tokens, context, token_mask, deterministic=deterministic)

    def encode(self, image: Array, deterministic: bool = True) -> Array:
        """What the decoder sees of pictures float [B, H, W, C]: [B, S, D]."""
        return self.pooled(self.see(image, deterministic)[0])

    def see(self, image: Array, deterministic: bool = True) -> tuple[Array, Grid]:
        """The backbone's tokens of pictures float [B, H, W, C], those of a feature map with their positions, [B, S, D],
        and the grid whose places the last ones are; of a model that gives no map a single place."""
        outputs = self.backbone(image, deterministic)
        seen, maps = outputs.tokens, outputs.maps
        x = self.image_projection(seen.reshape(len(seen), -1, seen.shape[-1]))
        if seen.ndim == 4:
            _, rows, columns, _ = seen.shape
            positions = jnp.asarray(sincos2d(rows, columns, self.width), x.dtype)
            return self.image_norm(x + for_rows(positions, x)), (rows, columns)
        return self.image_norm(x), maps[-1].shape[1:3] if maps else (1, 1)

    def pooled(self, seen: Array) -> Array:
        """What the decoder is given of the backbone's tokens [B, S, D]: all of them."""
        return seen

    def decode(
        self,
        tokens: Array,
        context: MaybeArray,
        token_mask: MaybeArray = None,
        cache: Cache | None = None,
        deterministic: bool = True,
        last_only: bool = False,
    ) -> TextOutputs:
        """Logits of the token after each, float32 [B, T, V].

        Args:
          tokens: int [B, T].
          context: from `encode`, [B, S, D]; None where the cache has its keys and values already.
          token_mask: bool [B, T], False on padding: at the end without a cache, in front with one.
          cache: of the tokens before (`start`).
          deterministic: whether there is no dropout.
          last_only: whether the logits are of the last place alone, [B, 1, V].
        """
        prefix = self.reads == "prefix"
        count = context.shape[1] if prefix and context is not None else 0
        # A picture's tokens in front of the text have the position 0, all of them: then they see each other, and
        # "no key behind the query" is the whole mask.
        if cache is None:
            positions = token_positions(tokens, None) + prefix
            positions = slots = jnp.pad(positions, ((0, 0), (count, 0)))
        else:
            valid = jnp.ones(tokens.shape, bool) if token_mask is None else token_mask
            positions, slots = cache.place(jnp.pad(valid, ((0, 0), (count, 0)), constant_values=True), count)
        whole_texts = cache is None and not prefix
        mask = Mask(causal=True) if whole_texts else cached_mask(positions, slots, None)
        x = self.embed(tokens, positions[:, count:] - prefix, deterministic)
        if count and context is not None:
            x = jnp.concatenate([context, x], axis=1)
        shared = StackInputs(mask=mask, context=None if prefix else context)
        x, beside = self.through(x, shared, cache, deterministic)
        x = self.norm_last(x[:, count:])
        logits, made_of = self.logits(x, self.token_embedding, self.head, last_only)
        cache = cache and cache.after([b.cache for b in beside], slots, count + tokens.shape[1])
        return TextOutputs(logits, x, cache=cache, head=made_of)

    def embed(self, tokens: Array, places: Array, deterministic: bool) -> Array:
        """Tokens as vectors with their positions, [B, T, D]; `places` int [B, T] is negative on padding in front."""
        x = self.token_embedding(tokens)
        if not (left_out(self.word_dropout) or deterministic):
            seen = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.word_dropout, tokens.shape)
            x = jnp.where(seen[:, :, None], x, 0)
        x = x + for_rows(self.position_embedding(jnp.maximum(places, 0)), x)
        return self.drop(x, deterministic=deterministic)

    def through(
        self, x: Array, shared: StackInputs, cache: Cache | None, deterministic: bool
    ) -> tuple[Array, list[Aux]]:
        """What the decoder's blocks make of tokens [B, T, D], and what they return beside them."""
        return self.decoder(x, deterministic, shared, (), cache)

    def looking(self, image: Array, tokens: Array) -> Array:
        """Where the decoder looks from each token's place, float32 [B, T, h, w], on the backbone's last grid: the mean
        over heads and layers, where Xu et al. 2015 (figure 3) have one of each.

        It adds up to 1, or less where the decoder looks at words or at class tokens, too. The collection
        "attention_maps" has to be mutable.

        Args:
          image: float [B, H, W, C].
          tokens: int [B, T], from the one that starts a text on.
        """
        seen, grid = self.see(image)
        self.decode(tokens, self.pooled(seen))
        found = self.of_picture(self.variables[ATTENTION_MAPS], tokens.shape[1])
        return found[..., -math.prod(grid) :].reshape(*tokens.shape, *grid)

    @nn.nowrap
    def of_picture(self, maps: Mapping[str, Any], words: int) -> Array:
        """The attention of the last so many places to the picture's tokens, float32 [B, T, S], in `maps`."""
        if self.reads == "cross":
            found = mean_attention(maps["decoder"], "cross_attention")
            return found[..., : found.shape[-1] - self.prefix]
        found = mean_attention(maps["decoder"], "attention")
        return found[:, -words:, : found.shape[1] - words]

    @nn.nowrap
    def start(self, batch: int, length: int, seen: int) -> Cache:
        """An empty cache for texts of `length` tokens, padding included, of pictures with `seen` tokens."""
        slots = length + seen if self.reads == "prefix" else length
        return empty_cache(batch, slots, self.depth, self.num_heads, self.size_of_heads, self.dtype)


def mean_attention(stack: Mapping[str, Any], name: str) -> Array:
    """The attention in the modules of a name in a stack's blocks, the mean over heads and layers, float32 [B, T, S]."""
    each = [jnp.mean(block[name]["weights"], axis=-3) for block in stack.values()]
    return jnp.mean(
        jnp.concatenate([x.reshape(-1, *x.shape[-3:]) for x in each]), axis=0
    )  # scanned ones in one leaf
