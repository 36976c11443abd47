"""A trained encoder-decoder from a run's folder: it writes a text for another one."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.loop import Chunk, StopStrings, stream
from jaxformer.errors import UserError
from jaxformer.inference.writing import (
    TOKENS_AT_A_TIME,
    Continuation,
    Generation,
    continuations,
    rounded,
    search,
)
from jaxformer.models.cache import Cache
from jaxformer.weights.layouts import unrolled

Tree = Any
State = tuple[Cache, jax.Array]  # the cache, and the mask of the source's tokens


class TextToText:
    """An encoder-decoder with a tokenizer.

    Args:
      model: a Seq2Seq.
      variables: its variables.
      tokenizer: what its tokens mean, on both sides.

    Attributes:
      context_length: the longest text on either side, in tokens.

    Raises:
      UserError: the tokenizer has no token that ends a text.
    """

    def __init__(self, model: Any, variables: Tree, tokenizer: Tokenizer):
        self.model, self.variables = unrolled(model, variables)
        self.tokenizer = tokenizer
        self.context_length: int = self.model.context_length
        if tokenizer.eos_id is None:
            raise UserError(
                "this run's tokenizer has no token that ends a text; train it with template='seq2seq'"
            )
        self.eos_id: int = tokenizer.eos_id
        first = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
        self.first_id = 0 if first is None else first
        self._begin = jax.jit(partial(begin, self.model), static_argnums=4)
        self._step = Partial(partial(decode, self.model), self.variables)

    def encode(self, prompt: str) -> list[int]:
        """The ids of a source text, as in training: with the token that ends it, whether the template has it or not."""
        ids = self.tokenizer.encode(prompt)
        return ids if ids[-1:] == [self.eos_id] else [*ids, self.eos_id]

    def check_prompts(self, prompts: Sequence[list[int]]) -> None:
        """Raises UserError for a text that is longer than the model takes."""
        longest = max(map(len, prompts), default=0)
        if longest > self.context_length:
            raise UserError(
                f"--prompt: has {longest} tokens, the model takes {self.context_length}; shorten it"
            )

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[State, jax.Array]:
        """The decoder's state, with room for `new_tokens`, and logits [B, V] of the first one.

        Raises:
          UserError: a text is longer than the model takes.
        """
        self.check_prompts(prompts)
        length = min(rounded(max(map(len, prompts))), self.context_length)
        tokens = np.zeros((len(prompts), length), np.int32)
        mask = np.zeros((len(prompts), length), bool)
        for row, ids in enumerate(prompts):
            tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
        return self._begin(self.variables, tokens, mask, jnp.int32(self.first_id), new_tokens + 1)

    def room(self, how: Generation) -> int:
        """Tokens that can be written, at most."""
        return min(how.max_new_tokens, self.context_length - 1)

    def stream(
        self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings, first_row: int = 0
    ) -> Iterator[Chunk]:
        """What is written for each text, as it is made; see `Writer`."""
        state, logits = self.start(prompts, self.room(how))
        return stream(
            self._step,
            state,
            logits,
            key=jax.random.key(how.seed),
            sampling=how.sampling,
            max_new_tokens=self.room(how),
            eos_ids=(self.eos_id,),
            pad_id=0,
            rows=first_row + jnp.arange(len(prompts)),
            chunk=TOKENS_AT_A_TIME,
            stops=stops,
        )

    def search(self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings) -> None:
        """Beam search, see `Writer`."""
        state, logits = self.start(prompts, self.room(how))
        search(self._step, state, logits, self.eos_id, self.room(how), how, stops)

    def generate(self, prompts: Sequence[list[int]], how: Generation) -> Iterator[Continuation]:
        """Yields what is written for each text; see `continuations`."""
        return continuations(self, prompts, how)


def begin(
    model: Any, variables: Tree, tokens: jax.Array, mask: jax.Array, first: jax.Array, slots: int
) -> tuple[State, jax.Array]:
    """The state after the source's tokens [B, S] and the target's first, and logits [B, V] of what comes next."""
    context = model.apply(variables, tokens, mask, method="encode")
    cache = model.start(len(tokens), slots)
    firsts = jnp.broadcast_to(first, (len(tokens), 1))
    outputs = model.apply(variables, firsts, context, mask, cache=cache, last_only=True, method="decode")
    return (outputs.cache, mask), outputs.logits[:, -1]


def decode(model: Any, variables: Tree, state: State, tokens: jax.Array) -> tuple[jax.Array, State]:
    """A decode step: logits [B, V] of what comes after tokens [B], and the state with them."""
    cache, mask = state
    outputs = model.apply(
        variables, tokens[:, None], None, mask, cache=cache, last_only=True, method="decode"
    )
    return outputs.logits[:, -1], (outputs.cache, mask)
