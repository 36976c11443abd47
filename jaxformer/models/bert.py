"""Encoders of text: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019), MiniLM."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import Input, Layers, NonNegativeInt, PositiveFloat, PositiveInt, Rate, Tokens
from jaxformer.errors import ConfigError
from jaxformer.models.base import Kind, Prompted, behind, head_problems
from jaxformer.models.block import StackInputs
from jaxformer.models.dense import Dense, Embedding
from jaxformer.models.dropout import Dropout
from jaxformer.models.masks import Mask, in_front, positions_behind
from jaxformer.models.mlp import ACTIVATIONS, ActivationName
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import TextOutputs, TokenHead, mean_of_tokens
from jaxformer.models.positions import for_rows, token_positions
from jaxformer.models.text import Windowed

normal = nn.initializers.normal(0.02)


class BERT(Windowed, Prompted):
    """An encoder with a head for what is to be learnt."""

    kind: ClassVar[Kind] = "encoder"
    sizes: ClassVar[tuple[str, ...]] = ("vocab_size", "num_classes")
    heads = ("head", "mlm_dense", "mlm_norm", "mlm_bias", "pooler")

    max_positions: Tokens = 512
    """The longest text, in tokens; rows of the position table, where there is one."""
    position_offset: NonNegativeInt = 0
    """The row of the first token; RoBERTa's is 2 (its padding's number plus 1)."""
    positions: Literal["learned", "rotary"] = "learned"
    """A learned table, or "rotary" as in ModernBERT."""
    token_types: NonNegativeInt = 2
    """Rows of the table of token types; 0: there is none."""
    depth: Layers = 12
    """Number of blocks."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs and of the masked-LM head."""
    norm_epsilon: PositiveFloat = 1e-12
    """Epsilon of every LayerNorm: 1e-12 in BERT, 1e-5 in RoBERTa."""
    embedding_norm: bool = True
    """A LayerNorm of the tokens before the first block; SigLIP's text encoder has none."""
    norm_position: Literal["pre", "post"] = "post"
    """ "post" in BERT; "pre" trains without a warm-up from scratch."""
    first_norm: bool = True
    """Whether the first block has a norm before its attention; ModernBERT's has none, behind that of the tokens."""
    use_bias: bool = True
    """Whether dense layers and LayerNorms have biases; those that end with classes or tokens have them always."""
    head_layer: bool = False
    """Whether heads over classes see what the layer of the masked-LM head makes of their input, as in ModernBERT."""
    head: Literal["mlm", "sequence", "token", "span", "none"] = "mlm"
    """What is on top: masked-LM logits ("mlm"), classes or numbers of a text ("sequence"), of each token
    ("token"), the borders of an answer ("span"), or nothing ("none")."""
    num_classes: PositiveInt | None = None
    """Number of classes K of the heads "sequence" and "token"; None: as many as the dataset has classes."""
    pooler: Literal["tanh", "relu", "none", "mean"] = "tanh"
    """What a head over texts sees: of the first token tanh(dense), as in BERT and RoBERTa, relu(dense) as in
    DistilBERT, or the token itself ("none"); or the mean of all tokens, as in sentence encoders."""
    dropout: Input[Rate] = 0.1
    """Rate of dropout after the embedding, of each branch and before a head."""
    attention_dropout: Input[Rate] = 0.1

    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads)
        if self.position_offset >= self.max_positions:
            yield f"position_offset={self.position_offset}: expected 0 to max_positions={self.max_positions} - 1"
        if self.positions == "rotary" and self.num_heads > 0:
            yield from self.turning_problems(self.width // self.num_heads)
        if not self.first_norm and (self.scan or self.norm_position == "post"):
            why = "blocks that are scanned over are alike" if self.scan else "it would have no norm at all"
            yield f'first_norm=False: {why}; set scan=False and norm_position="pre"'

    @property
    def context_length(self) -> int:
        """The longest text, in tokens."""
        return self.max_positions - self.position_offset

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        token_mask: Array | None = None,
        token_types: Array | None = None,
        segment_ids: Array | None = None,
        positions: Array | None = None,
        mixed_tokens: Array | None = None,
        mixed_token_mask: Array | None = None,
        mix_weight: Array | None = None,
        deterministic: bool = True,
    ) -> TextOutputs:
        """The logits of the head for texts.

        Learned vectors (`prompt`) are tokens of type 0 that stand in front of each text and take the positions from 0
        on, as in Hugging Face's peft. Outputs are of the others alone, and so is what a head sees of a text: the first
        token is the text's own (peft has the first vector in its place).

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

        Raises:
          ConfigError: there is a prompt, through which the texts of a packed row would see each other.
        """
        if self.prompt and segment_ids is not None:
            remedy = 'take the adapter "prefix", or a decoder, or rows of one text'
            raise ConfigError(
                f"model.prompt: texts that share a row would see each other through it; {remedy}"
            )
        own_mask = token_mask
        if token_mask is not None and mixed_token_mask is not None:
            token_mask = token_mask | mixed_token_mask  # places as many as the longer text has
        positions = token_positions(tokens, token_mask) if positions is None else positions
        positions = positions_behind(positions, self.prompt)
        table = Embedding(self.known("vocab_size"), self.width, normal, **self.dtypes, name="token_embedding")
        x = table(tokens)  # [B, T, D]
        if mixed_tokens is not None and mix_weight is not None:
            mixed = weighted(table(mixed_tokens), 1 - mix_weight, mixed_token_mask)
            x = weighted(x, mix_weight, own_mask) + mixed
        x = behind(self.prompt_vectors(self.width), x)  # [B, N + T, D]
        rows = (self.max_positions, self.width, normal)
        if self.positions == "learned":
            by_position = Embedding(*rows, **self.dtypes, name="position_embedding")
            x = x + for_rows(by_position(positions + self.position_offset), x)
        if self.token_types:
            by_type = Embedding(self.token_types, self.width, normal, **self.dtypes, name="type_embedding")
            types = jnp.zeros_like(tokens) if token_types is None else token_types
            x = x + by_type(in_front(types, self.prompt, 0))
        if self.embedding_norm:
            x = self.normed(x, "embedding_norm")
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        keys = in_front(token_mask, self.prompt, True)
        masks = [Mask(window=window, segments=segment_ids, keys=keys) for window in self.windows()]
        turns = self.turns(positions, self.width // self.num_heads) if self.positions == "rotary" else ()
        first = {"attention_norm": self.first_norm}
        stack = self.stack("encoder", self.depth, normal, normal, first)
        x, _ = stack(x, deterministic, StackInputs(), masks, rotaries=turns)
        x = x[:, self.prompt :] if self.prompt else x
        if self.norm_position == "pre":
            x = self.normed(x, "norm")

        features = mean_of_tokens(x, token_mask) if self.pooler == "mean" else x[:, 0]  # [B, D]
        if self.pooler in ("tanh", "relu") and self.head in ("sequence", "none"):
            features = Dense(self.width, kernel_init=normal, **self.dtypes, name="pooler")(features)
            features = jnp.tanh(features) if self.pooler == "tanh" else jax.nn.relu(features)
        if self.head == "none":
            return TextOutputs(x, x, features)
        if self.head == "mlm":
            logits, made_of = self.masked_lm(x, table)
            return TextOutputs(logits, x, features, head=made_of)
        of_text = self.head == "sequence"
        seen = features if of_text else x
        seen = Dropout(self.dropout)(
            self.layer(seen) if self.head_layer else seen, deterministic=deterministic
        )
        count = 2 if self.head == "span" else self.known("num_classes")
        logits = Dense(count, kernel_init=normal, **self.dtypes, name="head")(seen).astype(jnp.float32)
        return TextOutputs(logits, x, features)

    def normed(self, x: Array, name: str) -> Array:
        """`x` [..., D] after a LayerNorm of this name."""
        return LayerNorm(self.norm_epsilon, self.use_bias, **self.dtypes, name=name)(x)

    def layer(self, x: Array) -> Array:
        """What the layer of the masked-LM head makes of `x` [..., D]: a dense layer, activation and norm."""
        dense = Dense(self.width, use_bias=self.use_bias, kernel_init=normal, **self.dtypes, name="mlm_dense")
        return self.normed(ACTIVATIONS[self.activation](dense(x)), "mlm_norm")

    def masked_lm(self, x: Array, table: Embedding) -> tuple[Array, TokenHead]:
        """Logits [B, T, V] by one more layer and the token table (google-research/bert, `get_masked_lm_output`), and
        what they are made of."""
        y = self.layer(x)
        logits = table.logits(y)
        bias = self.param("mlm_bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype)
        logits = logits + jnp.broadcast_to(bias.astype(jnp.float32), logits.shape)
        return logits, TokenHead(y.astype(self.dtype), table.embedding, bias)


def weighted(x: Array, weight: Array, mask: Array | None) -> Array:
    """Vectors x [B, T, D] times their text's weight [B]; 0 where `mask` [B, T] is False."""
    weights = jnp.broadcast_to(weight[:, None], x.shape[:2])
    weights = weights if mask is None else jnp.where(mask, weights, 0)
    return weights[:, :, None].astype(x.dtype) * x
