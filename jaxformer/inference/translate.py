"""An encoder-decoder writes a text for another one."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.loop import Chunk, StopStrings, stream
from jaxformer.decoding.steps import SourceState, next_target, read_sources, take_targets
from jaxformer.errors import UserError
from jaxformer.inference.writing import TOKENS_AT_A_TIME, Generation, Writer

Tree = Any


class TextToText(Writer):
    """An encoder-decoder with a tokenizer, the same on both sides.

    Raises:
      UserError: the tokenizer has no token that ends a text.
    """

    next_step = staticmethod(next_target)
    reorder = staticmethod(take_targets)

    def __init__(self, model: nn.Module, variables: Tree, tokenizer: Tokenizer):
        super().__init__(model, variables, tokenizer)
        if tokenizer.eos_id is None:
            raise UserError(
                "this run's tokenizer has no token that ends a text; train it with template='seq2seq'"
            )
        self.eos_id: int = tokenizer.eos_id
        first = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
        self.first_id = 0 if first is None else first
        self._begin = jax.jit(partial(read_sources, self.model), static_argnums=4)

    def encode(self, prompt: str) -> list[int]:
        """The ids of a source text, as in training: with the token that ends it, whether the template has it or not."""
        ids = self.tokenizer.encode(prompt)
        return ids if ids[-1:] == [self.eos_id] else [*ids, self.eos_id]

    def room(self, prompts: Sequence[list[int]], how: Generation) -> int:
        return min(how.max_new_tokens, self.context_length - 1)

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[SourceState, jax.Array]:
        self.check_prompts(prompts)
        tokens, mask = self.padded(prompts)
        return self._begin(self.variables, tokens, mask, jnp.int32(self.first_id), new_tokens + 1)

    def stream(
        self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings, first_row: int = 0
    ) -> Iterator[Chunk]:
        room = self.room(prompts, how)
        state, logits = self.start(prompts, room)
        return stream(
            self.step,
            state,
            logits,
            key=jax.random.key(how.seed),
            sampling=how.sampling,
            max_new_tokens=room,
            eos_ids=(self.eos_id,),
            pad_id=0,
            rows=first_row + jnp.arange(len(prompts)),
            chunk=TOKENS_AT_A_TIME,
            stops=stops,
        )
