"""Encoder-decoders: the Transformer (Vaswani et al. 2017) and T5 (Raffel et al. 2020)."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import Input, Layers, PositiveInt, Rate, Tokens
from jaxformer.models.attention import MaybeArray
from jaxformer.models.base import Kind, Prompted, behind, head_problems
from jaxformer.models.block import StackInputs
from jaxformer.models.dense import Dense, Embedding, xavier
from jaxformer.models.dropout import Dropout
from jaxformer.models.masks import Cache, Mask, cached_mask, empty_cache, in_front
from jaxformer.models.mlp import ActivationName
from jaxformer.models.outputs import TextOutputs
from jaxformer.models.positions import RelativeBias, for_rows, sinusoidal, token_positions
from jaxformer.models.text import GenerativeModel

normal = nn.initializers.normal
# As T5's (mesh_tensorflow's and transformers'): by the number of inputs. The query's is smaller, see `Attention`.
fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Seq2Seq(GenerativeModel, Prompted):
    """An encoder of one text and a decoder of another that looks at it."""

    kind: ClassVar[Kind] = "encoder-decoder"

    context_length: Tokens = 512
    """The longest text on either side, in tokens."""
    width: PositiveInt = 512
    encoder_depth: Layers = 6
    """Number of blocks of the encoder."""
    decoder_depth: Layers = 6
    """Number of blocks of the decoder."""
    num_heads: PositiveInt = 8
    activation: ActivationName = "relu"
    """Activation of the MLPs: "relu" in the Transformer and T5 1.0, "geglu" in T5 1.1."""
    norm_position: Literal["pre", "post"] = "post"
    """ "post" as published, "pre" as T5 and as deep ones train."""
    positions: Literal["sinusoidal", "learned", "relative"] = "sinusoidal"
    """ "sinusoidal" ones or a "learned" table, added on both sides, or T5's "relative" bias."""
    attention_scale: float | None = None
    """Scale of attention's logits; None: 1 / sqrt(head_dim). T5's is 1."""
    shared: bool = True
    """Whether encoder and decoder have one token table."""
    tied: bool = True
    """Whether the head is the decoder's token table."""
    scaled_embedding: bool = True
    """Whether tokens are multiplied by sqrt(width) (Vaswani et al. 2017, section 3.4)."""
    scaled_logits: bool = False
    """Whether what a tied head sees is divided by sqrt(width), as in T5."""
    dropout: Input[Rate] = 0.1
    """Rate of dropout after the embeddings, of each branch and, with norms in front, after the last one."""
    mlp_dropout: Input[Rate] = 0.0
    """Rate of dropout after the MLPs' activation."""

    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads, self.head_dim)
        if self.positions == "sinusoidal" and self.width % 2:
            yield f'width={self.width}: positions="sinusoidal" needs an even one'
        if self.scaled_logits and not self.tied:
            yield "scaled_logits: is for tied heads; set tied=True"

    def setup(self) -> None:
        """The two towers and what they share."""
        vocab_size = self.known("vocab_size")
        # Of unit variance as they come out, scaled or not.
        table = (vocab_size, self.width, normal(self.width**-0.5 if self.scaled_embedding else 1.0))
        self.token_embedding = Embedding(*table, **self.dtypes)
        self.decoder_embedding = self.token_embedding if self.shared else Embedding(*table, **self.dtypes)
        self.prompt_tokens = self.prompt_vectors(self.width)
        tables: list[Embedding | None] = [None, None]
        if self.positions == "learned":
            tables = [Embedding(self.context_length, self.width, **self.dtypes) for _ in tables]
        self.position_embedding, self.decoder_position_embedding = tables
        if self.positions == "relative":
            self.encoder_bias = RelativeBias(self.num_heads, True, param_dtype=self.param_dtype)
            self.decoder_bias = RelativeBias(self.num_heads, False, param_dtype=self.param_dtype)
        init = fan_in if self.attention_scale == 1 else xavier
        self.encoder = self.stack(None, self.encoder_depth, init, init)
        self.decoder = self.stack(None, self.decoder_depth, init, init, cross=True)
        pre = self.norm_position == "pre"
        self.encoder_norm = self.last_norm("encoder_norm") if pre else None
        self.decoder_norm = self.last_norm("decoder_norm") if pre else None
        init = normal(self.width**-0.5)
        self.head = None if self.tied else Dense(vocab_size, use_bias=False, kernel_init=init, **self.dtypes)
        self.drop = Dropout(self.dropout)

    def __call__(
        self, tokens: Array, decoder_tokens: Array, token_mask: MaybeArray = None, deterministic: bool = True
    ) -> TextOutputs:
        """Logits of the token after each of `decoder_tokens`.

        Args:
          tokens: the source's, int [B, S].
          decoder_tokens: the target's, from the one that starts it on, int [B, T].
          token_mask: bool [B, S], False on the source's padding; None: there is none. (The target's is at its end,
            where nothing sees it.)
          deterministic: whether there is no dropout.
        """
        context = self.encode(tokens, token_mask, deterministic)
        return self.decode(decoder_tokens, context, token_mask, deterministic=deterministic)

    def encode(self, tokens: Array, token_mask: MaybeArray = None, deterministic: bool = True) -> Array:
        """What the decoder looks at, [B, N + S, D], from the source's tokens int [B, S] behind N learned vectors
        (`prompt`), which take the positions from 0 on; the decoder has none."""
        token_mask = in_front(token_mask, self.prompt, True)
        x = behind(self.prompt_tokens, self.token_embedding(tokens))
        in_row = token_positions(x, None)  # within a text the same distances, and one bias for all rows
        positions = in_row if token_mask is None else token_positions(x, token_mask)
        x = self.embed(x, self.position_embedding, positions, deterministic)
        bias = self.encoder_bias(in_row, in_row) if self.positions == "relative" else None
        shared = StackInputs(mask=Mask(keys=token_mask), bias=bias)
        x, _ = self.encoder(x, deterministic, shared)
        return self.last(x, self.encoder_norm, deterministic)

    def decode(
        self,
        decoder_tokens: Array,
        context: MaybeArray,
        token_mask: MaybeArray = None,
        cache: Cache | None = None,
        deterministic: bool = True,
        last_only: bool = False,
    ) -> TextOutputs:
        """Logits of the token after each of `decoder_tokens`, float32 [B, T, V].

        Args:
          decoder_tokens: int [B, T].
          context: from `encode`, [B, N + S, D]; None where the cache has its keys and values already.
          token_mask: bool [B, S], False on the source's padding.
          cache: of the tokens before (`start`).
          deterministic: whether there is no dropout.
          last_only: whether the logits are of the last place alone, [B, 1, V].
        """
        if cache is None:
            positions = slots = token_positions(decoder_tokens, None)
            mask = Mask(causal=True)
        else:
            positions, slots = cache.place(jnp.ones(decoder_tokens.shape, bool))
            mask = cached_mask(positions, slots, None)
        x = self.decoder_embedding(decoder_tokens)
        x = self.embed(x, self.decoder_position_embedding, positions, deterministic)
        bias = self.decoder_bias(positions, slots) if self.positions == "relative" else None
        keys = in_front(token_mask, self.prompt, True)
        shared = StackInputs(mask=mask, bias=bias, context=context, context_mask=Mask(keys=keys))
        x, beside = self.decoder(x, deterministic, shared, (), cache)
        x = self.last(x, self.decoder_norm, deterministic)
        seen = x * self.width**-0.5 if self.scaled_logits else x
        logits, made_of = self.logits(seen, self.decoder_embedding, self.head, last_only)
        cache = cache and cache.after([b.cache for b in beside], slots, decoder_tokens.shape[1])
        return TextOutputs(logits, x, cache=cache, head=made_of)

    def embed(self, x: Array, by_position: Embedding | None, positions: Array, deterministic: bool) -> Array:
        """Tokens' vectors [B, T, D] with their positions, by a table of these if they are learned."""
        if self.scaled_embedding:
            x = x * jnp.asarray(self.width**0.5, self.dtype)
        if self.positions == "sinusoidal":
            x = x + for_rows(sinusoidal(positions, self.width).astype(self.dtype), x)
        elif by_position is not None:
            x = x + for_rows(by_position(positions), x)
        return self.drop(x, deterministic=deterministic)

    def last(self, x: Array, norm: nn.Module | None, deterministic: bool) -> Array:
        """What comes after the last block: with norms in front, one more, and dropout as in T5."""
        return x if norm is None else self.drop(norm(x), deterministic=deterministic)

    @nn.nowrap
    def start(self, batch: int, length: int) -> Cache:
        """An empty cache for targets of `length` tokens."""
        return empty_cache(batch, length, self.decoder_depth, self.num_heads, self.size_of_heads, self.dtype)
