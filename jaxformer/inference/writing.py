"""What all models that write texts have in common: how they are asked to, and what comes of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from jaxformer.config import schema
from jaxformer.config.fields import NonNegativeFloat, PositiveInt, at_least
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.beam import beam_search, repeat_rows
from jaxformer.decoding.loop import Chunk, StopStrings
from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.models.layouts import unrolled

Tree = Any

LENGTH_STEP = 32  # texts are padded to multiples of it, so that few lengths are compiled
BATCH = 32  # texts that are written, or scored, at a time
TOKENS_AT_A_TIME = 16  # between two looks of the host, in a stream
NO_TOKEN = -1  # is never chosen


@dataclass(frozen=True)
class Generation:
    """Options for text generation."""

    max_new_tokens: PositiveInt = 256
    """How many tokens are written at most."""
    sampling: Sampling = field(default_factory=Sampling)
    """How each token is chosen."""
    stops: tuple[str, ...] = ()
    """Strings before which a text ends."""
    seed: Annotated[int, at_least(0)] = 0
    """Decides what is drawn."""
    beams: PositiveInt = 1
    """How many hypotheses a beam search follows; 1 draws tokens (or takes the likeliest, with temperature 0)."""
    length_penalty: NonNegativeFloat = 0.6
    """Alpha of the beam search (Wu et al. 2016, equation 14); 0 compares log-probabilities."""


@dataclass(frozen=True)
class Continuation:
    """What came after a prompt."""

    text: str
    """The text without the prompt, up to the stop string or the end of text."""
    tokens: int
    """How many tokens were written."""
    ended: str
    """ "end of text", "stop string" or "length"."""


class Writer:
    """A model and its tokenizer, which write texts, a batch of them at a time.

    Args:
      model: a linen module.
      variables: its variables.
      tokenizer: what its tokens mean.

    Attributes:
      context_length: the longest text that the model takes, in tokens.
    """

    next_step: ClassVar[Callable[..., tuple[jax.Array, Tree]]]
    """The model's step, of `decoding/steps.py`."""
    reorder: ClassVar[Callable[..., Tree] | None] = None
    """How a beam search reorders the state; None takes all of its rows."""

    def __init__(self, model: nn.Module, variables: Tree, tokenizer: Tokenizer):
        unstacked, self.variables = unrolled(model, variables)
        self.model: Any = unstacked
        self.tokenizer = tokenizer
        self.context_length: int = self.model.context_length
        self.step = Partial(partial(self.next_step, self.model), self.variables)

    def encode(self, prompt: str) -> list[int]:
        """The ids of a prompt.

        Raises:
          UserError: the prompt has no tokens, or has characters that are no token.
        """
        raise NotImplementedError

    def room(self, prompts: Sequence[list[int]], how: Generation) -> int:
        """How many tokens can be written after all of the prompts."""
        raise NotImplementedError

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[Tree, jax.Array]:
        """A state that has seen the prompts, with room for `new_tokens` more, and logits [B, V] of what comes next."""
        raise NotImplementedError

    def stream(
        self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings, first_row: int = 0
    ) -> Iterator[Chunk]:
        """Yields what comes after each prompt, as it is made, and gives it to `stops`.

        The prompts have the numbers `first_row`, `first_row + 1`, ... where something is drawn.

        Raises:
          UserError: a prompt is too long.
        """
        raise NotImplementedError

    def search(self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings) -> None:
        """Gives `stops` the best continuation of each prompt that a beam search finds."""
        new, eos_id = self.room(prompts, how), self.tokenizer.eos_id
        state, logits = self.start(prompts, new)
        written, lengths, _ = beam_search_compiled(
            self.step,
            repeat_rows(state, len(prompts), how.beams),
            logits,
            beams=how.beams,
            max_new_tokens=new,
            eos_id=NO_TOKEN if eos_id is None else eos_id,
            pad_id=0,
            length_penalty=how.length_penalty,
            reorder=self.reorder,
        )
        for row, (ids, count) in enumerate(zip(np.asarray(written)[:, 0], np.asarray(lengths)[:, 0])):
            stops.extend(row, ids[:count].tolist())

    def generate(self, prompts: Sequence[list[int]], how: Generation) -> Iterator[Continuation]:
        """Yields what comes after each prompt; BATCH prompts are worked on at a time.

        Raises:
          UserError: a prompt is too long (of any batch, before the first), or a field of `how` is impossible.
        """
        check(how)
        self.check_prompts(prompts)
        for first in range(0, len(prompts), BATCH):
            batch = prompts[first : first + BATCH]
            stops = StopStrings(how.stops, self.tokenizer.decode, len(batch))
            if how.beams > 1:
                self.search(batch, how, stops)
            else:
                for _ in self.stream(batch, how, stops, first):
                    pass
            for row in range(len(batch)):
                yield finished(stops, row, self.tokenizer.eos_id)

    def check_prompts(self, prompts: Sequence[list[int]]) -> None:
        """Raises UserError for a prompt that is longer than the context."""
        longest = max(map(len, prompts), default=0)
        if longest > self.context_length:
            raise UserError(
                f"prompt: has {longest} tokens, the model's context is {self.context_length}; shorten it"
            )

    def padded_length(self, longest: int) -> int:
        """The length that texts are padded to."""
        return min(rounded(longest), self.context_length)

    def padded(self, texts: Sequence[list[int]], left: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Texts as tokens int32 [B, T] and their mask bool [B, T], padded on one side."""
        length = self.padded_length(max(map(len, texts)))
        tokens, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), bool)
        for row, ids in enumerate(texts):
            place = slice(length - len(ids), length) if left else slice(0, len(ids))
            tokens[row, place], mask[row, place] = ids, True
        return tokens, mask


def check(how: Generation) -> None:
    """Raises UserError if a field is impossible."""
    if found := [*schema.problems(how), *schema.problems(how.sampling)]:
        raise UserError(*found)


def finished(stops: StopStrings, row: int, eos_id: int | None) -> Continuation:
    """A row's text as it stands."""
    ids = stops.ids[row]
    ended = "length"
    if stops.found[row] is not None:
        ended = "stop string"
    elif ids and ids[-1] == eos_id:
        ended = "end of text"
    return Continuation(stops.text(row), len(ids), ended)


def rounded(length: int) -> int:
    """The next multiple of LENGTH_STEP."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def generation(
    max_new_tokens: int,
    stop: str | Sequence[str],
    seed: int,
    beams: int,
    length_penalty: float,
    **sampling: Any,
) -> Generation:
    """Options for text generation from a function's arguments.

    Raises:
      UserError: `sampling` has something that is no field of `Sampling`.
    """
    known = schema.config_fields(Sampling)
    if unknown := [name for name in sampling if name not in known]:
        lines = (
            f"{name}: generate has no such argument; {schema.did_you_mean(name, known)}" for name in unknown
        )
        raise UserError(*lines)
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return Generation(max_new_tokens, Sampling(**sampling), stops, seed, beams, length_penalty)


beam_search_compiled = jax.jit(
    beam_search, static_argnames=("beams", "max_new_tokens", "eos_id", "pad_id", "length_penalty", "reorder")
)
