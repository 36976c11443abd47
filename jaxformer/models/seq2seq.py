"""Encoder-decoders: the Transformer (Vaswani et al. 2017) and T5 (Raffel et al. 2020)."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.block import Block, LayerCache, Shared
from jaxformer.models.cache import Cache, advance, cached_mask, empty_cache
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout
from jaxformer.models.embedding import Embedding
from jaxformer.models.gpt import for_rows, place
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ActivationName
from jaxformer.models.norms import NormName, token_norm
from jaxformer.models.outputs import TextOutputs
from jaxformer.models.positions import RelativeBias, sinusoidal
from jaxformer.models.problems import heads, rates, sizes
from jaxformer.models.stack import RematName, Stack

Dtype = Any
# As T5's (mesh_tensorflow's and transformers'): by the number of inputs. The query's is smaller, see `Attention`.
fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Seq2Seq(nn.Module):
    """An encoder of one text and a decoder of another that looks at it."""

    vocab_size: int | None = None
    """Rows of the token tables; None: as many as the tokenizer has tokens."""
    context_length: int = 512
    """The longest text on either side, in tokens."""
    width: int = 512
    """D, of the tokens."""
    encoder_depth: int = 6
    """The encoder's blocks."""
    decoder_depth: int = 6
    """The decoder's blocks."""
    num_heads: int = 8
    """Attention heads."""
    head_dim: int | None = None
    """A head's size; None: width / num_heads."""
    mlp_dim: int | None = None
    """The MLPs' hidden width; None: 4 x width."""
    activation: ActivationName = "relu"
    """The MLPs': "relu" in the Transformer and T5 1.0, "geglu" in T5 1.1."""
    norm: NormName = "layer"
    """LayerNorm ("layer") or T5's RMSNorm ("rms")."""
    norm_epsilon: float = 1e-6
    """Of every norm."""
    norm_position: Literal["pre", "post"] = "post"
    """ "post" as published, "pre" as T5 and as deep ones train."""
    use_bias: bool = True
    """Whether dense layers and LayerNorms have biases; T5 has none."""
    positions: Literal["sinusoidal", "learned", "relative"] = "sinusoidal"
    """ "sinusoidal" ones or a "learned" table, added on both sides, or T5's "relative" bias."""
    attention_scale: float | None = None
    """Of attention's logits; None: 1 / sqrt(head_dim). T5's is 1."""
    shared: bool = True
    """Whether encoder and decoder have one token table."""
    tied: bool = True
    """Whether the head is the decoder's token table."""
    scaled_embedding: bool = True
    """Whether tokens are multiplied by sqrt(width) (Vaswani et al. 2017, section 3.4)."""
    scaled_logits: bool = False
    """Whether what a tied head sees is divided by sqrt(width), as in T5."""
    dropout: float = 0.1
    """After the embeddings, of each branch and, with norms in front, after the last one."""
    mlp_dropout: float = 0.0
    """After the MLPs' activation."""
    attention_dropout: float = 0.0
    """Of attention weights."""
    remat: RematName = "none"
    """What the backward pass keeps; see `ViT`."""
    scan: bool = False
    """Scans over stacked layers instead of unrolling them: compiles faster."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from heads(self)
        yield from sizes(self, "vocab_size", "context_length", "encoder_depth", "decoder_depth")
        yield from sizes(self, "head_dim", "mlp_dim")
        yield from rates(self, "dropout", "mlp_dropout", "attention_dropout")
        if self.positions == "sinusoidal" and self.width % 2:
            yield f'width={self.width}: positions="sinusoidal" needs an even one'
        if self.scaled_logits and not self.tied:
            yield "scaled_logits: is for tied heads; set tied=True"

    def setup(self) -> None:
        """The two towers and what they share."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.vocab_size is None:
            raise ValueError("vocab_size is None: take it from the tokenizer")
        # Of unit variance as they come out, scaled or not.
        init = nn.initializers.normal(self.width**-0.5 if self.scaled_embedding else 1.0)
        table = (self.vocab_size, self.width, init, self.dtype, self.param_dtype)
        self.token_embedding = Embedding(*table)
        self.decoder_embedding = self.token_embedding if self.shared else Embedding(*table)
        if self.positions == "learned":
            learned = (self.context_length, self.width)
            self.position_embedding = Embedding(*learned, **dtypes)
            self.decoder_position_embedding = Embedding(*learned, **dtypes)
        if self.positions == "relative":
            self.encoder_bias = RelativeBias(self.num_heads, True, param_dtype=self.param_dtype)
            self.decoder_bias = RelativeBias(self.num_heads, False, param_dtype=self.param_dtype)
        self.encoder = Stack(Block, self.block(cross=False), self.encoder_depth, 0.0, self.remat, self.scan)
        self.decoder = Stack(Block, self.block(cross=True), self.decoder_depth, 0.0, self.remat, self.scan)
        if self.norm_position == "pre":
            self.encoder_norm = self.last_norm("encoder_norm")
            self.decoder_norm = self.last_norm("decoder_norm")
        if not self.tied:
            self.head = Dense(self.vocab_size, False, nn.initializers.normal(self.width**-0.5), **dtypes)
        self.drop = Dropout(self.dropout)

    def __call__(
        self,
        tokens: jax.Array,
        decoder_tokens: jax.Array,
        token_mask: jax.Array | None = None,
        deterministic: bool = True,
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

    def encode(
        self, tokens: jax.Array, token_mask: jax.Array | None = None, deterministic: bool = True
    ) -> jax.Array:
        """What the decoder looks at, [B, S, D], from the source's tokens int [B, S]."""
        positions = place(tokens, token_mask)
        x = self.embed(self.token_embedding, tokens, positions, "position_embedding", deterministic)
        in_row = place(tokens, None)  # within a text the same distances, and one bias for all rows
        bias = self.encoder_bias(in_row, in_row) if self.positions == "relative" else None
        shared = Shared(mask=Mask(keys=token_mask), bias=bias)
        x, _ = self.encoder(x, deterministic, shared)
        return self.last(x, "encoder_norm", deterministic)

    def decode(
        self,
        decoder_tokens: jax.Array,
        context: jax.Array | None,
        token_mask: jax.Array | None = None,
        cache: Cache | None = None,
        deterministic: bool = True,
        last_only: bool = False,
    ) -> TextOutputs:
        """Logits of the token after each of `decoder_tokens`, float32 [B, T, V].

        Args:
          decoder_tokens: int [B, T].
          context: from `encode`, [B, S, D]; None where the cache has its keys and values already.
          token_mask: bool [B, S], False on the source's padding.
          cache: of the tokens before (`start`).
          deterministic: whether there is no dropout.
          last_only: whether the logits are of the last place alone, [B, 1, V].
        """
        if cache is None:
            positions = slots = place(decoder_tokens, None)
            mask = Mask(causal=True)
        else:
            positions, slots = cache.place(jnp.ones(decoder_tokens.shape, bool))
            mask = cached_mask(positions, slots, None)
        name = "decoder_position_embedding"
        x = self.embed(self.decoder_embedding, decoder_tokens, positions, name, deterministic)
        shared = Shared(
            mask=mask,
            bias=self.decoder_bias(positions, slots) if self.positions == "relative" else None,
            context=context,
            context_mask=Mask(keys=token_mask),
            slot=None if cache is None else cache.slot,
            remembers=cache is not None,
        )
        caches = None if cache is None else self.remembered(cache.layers, context)
        x, beside = self.decoder(x, deterministic, shared, (), caches)
        x = self.last(x, "decoder_norm", deterministic)
        seen = x[:, -1:] if last_only else x
        if self.tied:
            scaled = seen * self.width**-0.5 if self.scaled_logits else seen
            logits = self.decoder_embedding.logits(scaled)
        else:
            logits = self.head(seen).astype(jnp.float32)
        if cache is not None:
            cache = advance(cache, [b.cache for b in beside], slots, decoder_tokens.shape[1])
        return TextOutputs(logits, x, cache=cache)

    @nn.nowrap
    def remembered(self, layers: Sequence[LayerCache], context: jax.Array | None) -> list[LayerCache]:
        """The layers' caches, without the source's keys and values where they are to be computed."""
        return [LayerCache(layer.own, layer.memory if context is None else None) for layer in layers]

    def embed(
        self, table: Embedding, tokens: jax.Array, positions: jax.Array, name: str, deterministic: bool
    ) -> jax.Array:
        """Tokens as vectors with their positions, [B, T, D]."""
        x = table(tokens)
        if self.scaled_embedding:
            x = x * jnp.asarray(self.width**0.5, self.dtype)
        if self.positions == "sinusoidal":
            x = x + for_rows(sinusoidal(positions, self.width).astype(self.dtype), x)
        elif self.positions == "learned":
            x = x + for_rows(getattr(self, name)(positions), x)
        return self.drop(x, deterministic=deterministic)

    def last(self, x: jax.Array, name: str, deterministic: bool) -> jax.Array:
        """What comes after the last block: with norms in front, one more, and dropout as in T5."""
        if self.norm_position == "post":
            return x
        return self.drop(getattr(self, name)(x), deterministic=deterministic)

    def last_norm(self, name: str) -> nn.Module:
        """A tower's last norm."""
        return token_norm(
            self.norm, self.norm_epsilon, self.use_bias, self.dtype, self.param_dtype, name=name
        )

    @property
    def size_of_heads(self) -> int:
        """A head's size."""
        return self.head_dim or self.width // self.num_heads

    @nn.nowrap
    def block(self, cross: bool) -> dict[str, Any]:
        """The blocks' fields, with or without cross-attention."""
        init = fan_in if self.attention_scale == 1 else nn.initializers.xavier_uniform()
        return {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim or 4 * self.width,
            "head_dim": self.head_dim,
            "activation": self.activation,
            "norm": self.norm,
            "norm_epsilon": self.norm_epsilon,
            "norm_position": self.norm_position,
            "use_bias": self.use_bias,
            "attention_scale": self.attention_scale,
            "cross": cross,
            "dropout": self.dropout,
            "mlp_dropout": self.mlp_dropout,
            "attention_dropout": self.attention_dropout,
            "kernel_init": init,
            "out_init": init,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }

    @nn.nowrap
    def start(self, batch: int, length: int) -> Cache:
        """An empty cache for targets of `length` tokens."""
        return empty_cache(batch, length, self.decoder_depth, self.num_heads, self.size_of_heads, self.dtype)
