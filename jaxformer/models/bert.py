"""Encoders of text: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019), MiniLM."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.block import Block, Shared
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout
from jaxformer.models.embedding import Embedding
from jaxformer.models.gpt import for_rows, place
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ACTIVATIONS, ActivationName
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import TextOutputs
from jaxformer.models.problems import heads, rates, sizes
from jaxformer.models.stack import RematName, Stack

Dtype = Any
normal = nn.initializers.normal(0.02)


class BERT(nn.Module):
    """An encoder with a head for what is to be learnt."""

    vocab_size: int | None = None
    """Rows of the token table; None: as many as the tokenizer has tokens."""
    max_positions: int = 512
    """Rows of the position table."""
    position_offset: int = 0
    """The row of the first token; RoBERTa's is 2 (its padding's number plus 1)."""
    token_types: int = 2
    """Rows of the table of token types; 0: there is none."""
    width: int = 768
    """D, of the tokens."""
    depth: int = 12
    """blocks."""
    num_heads: int = 12
    """Attention heads."""
    mlp_dim: int | None = None
    """The MLPs' hidden width; None: 4 x width."""
    activation: ActivationName = "gelu_erf"
    """The MLPs' and the masked-LM head's."""
    norm_epsilon: float = 1e-12
    """Of every LayerNorm: 1e-12 in BERT, 1e-5 in RoBERTa."""
    norm_position: Literal["pre", "post"] = "post"
    """ "post" in BERT; "pre" trains without a warm-up from scratch."""
    head: Literal["mlm", "sequence", "token", "span", "none"] = "mlm"
    """What is on top: masked-LM logits ("mlm"), classes or numbers of a text ("sequence"), of each token
    ("token"), the borders of an answer ("span"), or nothing ("none")."""
    num_classes: int | None = None
    """K, of the heads "sequence" and "token"; None: as many as the dataset has classes."""
    pooler: Literal["tanh", "relu", "none"] = "tanh"
    """The layer between the first token and a head over texts: tanh(dense), as in BERT and RoBERTa,
    relu(dense) as in DistilBERT, or "none"."""
    dropout: float = 0.1
    """After the embedding, of each branch and before a head."""
    attention_dropout: float = 0.1
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
        yield from sizes(self, "vocab_size", "max_positions", "depth", "mlp_dim", "num_classes")
        yield from rates(self, "dropout", "attention_dropout")
        if not 0 <= self.position_offset < self.max_positions:
            yield f"position_offset={self.position_offset}: expected 0 to max_positions={self.max_positions} - 1"
        if self.token_types < 0:
            yield f"token_types={self.token_types}: expected 0 or more"

    @property
    def context_length(self) -> int:
        """The longest text, in tokens."""
        return self.max_positions - self.position_offset

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        token_mask: jax.Array | None = None,
        token_types: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        mixed_tokens: jax.Array | None = None,
        mixed_token_mask: jax.Array | None = None,
        mix_weight: jax.Array | None = None,
        deterministic: bool = True,
    ) -> TextOutputs:
        """What the head says of texts.

        Args:
          tokens: int [B, T].
          token_mask: bool [B, T], False on padding; None: there is none.
          token_types: int [B, T]; None: all 0.
          segment_ids: int [B, T], which text of a packed row; tokens see their own alone.
          positions: int [B, T]; None: from 0 on.
          mixed_tokens: int [B, T], texts that are mixed in, word by word (Guo et al. 2019, wordMixup).
          mixed_token_mask: bool [B, T], False on their padding; what is padding in both is padding, and where one of
            the two has ended its vector is 0, as in the paper.
          mix_weight: float32 [B], what a text's own vectors are multiplied by; those mixed in have the rest.
          deterministic: whether there is no dropout.

        Returns:
          logits: of the head; of "none" the tokens themselves.
        """
        if self.vocab_size is None:
            raise ValueError("vocab_size is None: take it from the tokenizer")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        own_mask = token_mask
        if token_mask is not None and mixed_token_mask is not None:
            token_mask = token_mask | mixed_token_mask  # places as many as the longer text has
        positions = place(tokens, token_mask) if positions is None else positions
        table = Embedding(self.vocab_size, self.width, normal, **dtypes, name="token_embedding")
        x = table(tokens)  # [B, T, D]
        if mixed_tokens is not None and mix_weight is not None:
            x = weighted(x, mix_weight, own_mask) + weighted(
                table(mixed_tokens), 1 - mix_weight, mixed_token_mask
            )
        by_position = Embedding(self.max_positions, self.width, normal, **dtypes, name="position_embedding")
        x = x + for_rows(by_position(positions + self.position_offset), x)
        if self.token_types:
            by_type = Embedding(self.token_types, self.width, normal, **dtypes, name="type_embedding")
            x = x + by_type(jnp.zeros_like(tokens) if token_types is None else token_types)
        x = LayerNorm(self.norm_epsilon, **dtypes, name="embedding_norm")(x)
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        stack = Stack(Block, self.block(), self.depth, 0.0, self.remat, self.scan, name="encoder")
        x, _ = stack(x, deterministic, Shared(mask=Mask(segments=segment_ids, keys=token_mask)))
        if self.norm_position == "pre":
            x = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(x)

        features = x[:, 0]  # [B, D]
        if self.pooler != "none" and self.head in ("sequence", "none"):
            features = Dense(self.width, kernel_init=normal, **dtypes, name="pooler")(features)
            features = jnp.tanh(features) if self.pooler == "tanh" else jax.nn.relu(features)
        if self.head == "none":
            return TextOutputs(x, x, features)
        if self.head == "mlm":
            return TextOutputs(self.masked_lm(x, table), x, features)
        of_text = self.head == "sequence"
        seen = Dropout(self.dropout)(features if of_text else x, deterministic=deterministic)
        labels = 2 if self.head == "span" else self.num_classes
        if labels is None:
            raise ValueError("num_classes is None: take it from the dataset's classes")
        logits = Dense(labels, kernel_init=normal, **dtypes, name="head")(seen).astype(jnp.float32)
        return TextOutputs(logits, x, features)

    def masked_lm(self, x: jax.Array, table: Embedding) -> jax.Array:
        """Logits [B, T, V] by one more layer and the token table (google-research/bert, `get_masked_lm_output`)."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = Dense(self.width, kernel_init=normal, **dtypes, name="mlm_dense")(x)
        y = LayerNorm(self.norm_epsilon, **dtypes, name="mlm_norm")(ACTIVATIONS[self.activation](y))
        logits = table.logits(y)
        bias = self.param("mlm_bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype)
        return logits + jnp.broadcast_to(bias.astype(jnp.float32), logits.shape)

    @nn.nowrap
    def block(self) -> dict[str, Any]:
        """The blocks' fields."""
        return {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim or 4 * self.width,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "norm_position": self.norm_position,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "kernel_init": normal,
            "out_init": normal,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }


def weighted(x: jax.Array, weight: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Vectors x [B, T, D] times their text's weight [B]; 0 where `mask` [B, T] is False."""
    weights = jnp.broadcast_to(weight[:, None], x.shape[:2])
    weights = weights if mask is None else jnp.where(mask, weights, 0)
    return weights[:, :, None].astype(x.dtype) * x
