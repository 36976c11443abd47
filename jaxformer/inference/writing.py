"""How a text is written with a model: what the user chooses, what comes of it, and the loop that all models share."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import count
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from jaxformer.config import schema
from jaxformer.config.fields import Beams, NewTokens, NonNegativeFloat, between
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.beam import beam_search, repeat_rows
from jaxformer.decoding.loop import Chunk, Rules, StopStrings, stream
from jaxformer.decoding.sampling import Sampling, seen_tokens
from jaxformer.errors import UserError, counted
from jaxformer.inference.texts import naming
from jaxformer.models.layouts import unrolled

logger = logging.getLogger("jaxformer")
Tree = Any

LENGTH_STEP = 32  # texts are padded to multiples of it, so that few lengths are compiled
BATCH = 32  # texts that are written, or scored, at a time
TOKENS_AT_A_TIME = 16  # between two looks of the host, in a stream
NO_TOKEN = -1  # no model ever chooses it


@dataclass(frozen=True)
class Generation:
    """Options for text generation."""

    max_new_tokens: NewTokens = 256
    """How many tokens are written at most."""
    sampling: Sampling = field(default_factory=Sampling)
    """How each token is chosen."""
    stops: tuple[str, ...] = ()
    """Strings before which a text ends."""
    seed: Annotated[int, between(0, 2**32 - 1, "0 to 2**32 - 1")] = 0
    """Decides what is drawn."""
    beams: Beams = 1
    """How many hypotheses a beam search follows; 1 draws tokens (or takes the likeliest, with temperature 0)."""
    length_penalty: NonNegativeFloat = 0.6
    """Alpha of the beam search (Wu et al. 2016, equation 14); 0 compares log-probabilities."""

    def check(self) -> None:
        """Raises UserError if a field's value is impossible."""
        self.sampling.check()
        if found := list(schema.problems(self)):
            raise UserError(*found)

    def problems(self) -> Iterator[str]:
        """Yields a line if a beam search, which draws nothing, is told how to draw."""
        names = [f.name for f in fields(Sampling) if getattr(self.sampling, f.name) != f.default]
        if self.beams > 1 and names:
            yield f"{', '.join(names)}: has no effect with beams={self.beams}; leave one of them out"


@dataclass(frozen=True)
class Continuation:
    """What came after a prompt."""

    text: str
    """The text without the prompt, up to the stop string or the end of text."""
    tokens: int
    """How many tokens were written."""
    ended: str
    """Why there is no more of it: "end of text", "stop string", "length" (`max_new_tokens` were written) or "context"
    (the model takes no more)."""


class Writer:
    """A model and its tokenizer, which write texts, a batch of them at a time.

    Args:
      model: a linen module.
      variables: its variables.
      tokenizer: what its tokens mean.

    Attributes:
      context_length: the longest text that the model takes, in tokens.
      special: the tokens that no text shows, but for the one that ends it.
    """

    goes_on: ClassVar[bool]
    """Whether the model goes on with the prompt, in one context with it; else it writes a text of its own."""
    next_step: ClassVar[Callable[..., tuple[jax.Array, Tree]]]
    """The model's step, of `decoding/steps.py`."""
    reorder: ClassVar[Callable[..., Tree] | None] = None
    """How a beam search reorders the state; None takes all of its rows."""

    def __init__(self, model: nn.Module, variables: Tree, tokenizer: Tokenizer):
        unstacked, self.variables = unrolled(model, variables)
        self.model: Any = unstacked
        self.tokenizer = tokenizer
        self.context_length: int = self.model.longest_text
        marked = tokenizer.hf.get_added_tokens_decoder().items()
        self.special = {token for token, added in marked if added.special} - {tokenizer.eos_id}
        self.step = Partial(partial(self.next_step, self.model), self.variables)

    def encode(self, prompt: str) -> list[int]:
        """The ids of a prompt.

        Raises:
          UserError: the prompt has no tokens, or has characters that are no token.
        """
        raise NotImplementedError

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[Tree, jax.Array]:
        """A state that has seen the prompts, with room for `new_tokens` more, and logits [B, V] of what comes next."""
        raise NotImplementedError

    def generate(self, prompts: Sequence[list[int]], how: Generation) -> Iterator[Continuation]:
        """Yields what comes after each prompt; BATCH prompts are worked on at a time.

        Raises:
          UserError: a prompt is too long (of any batch, before the first), or a field of `how` is impossible.
        """
        how.check()
        self.check_prompts(prompts)
        samples = sample_numbers(prompts)
        for first in range(0, len(prompts), BATCH):
            part = slice(first, first + BATCH)
            batch = prompts[part]
            stops = StopStrings(how.stops, self.tokenizer.decode, len(batch))
            if how.beams > 1:
                self.search(batch, how, stops)
            else:
                for _ in self.stream(batch, how, stops, samples[part]):
                    pass
            self.warn_of_special(stops.ids)
            for row, ids in enumerate(stops.ids):
                ended = "length" if len(ids) == how.max_new_tokens else "context"
                ended = "end of text" if ids and ids[-1] == self.tokenizer.eos_id else ended
                ended = ended if stops.found[row] is None else "stop string"
                yield Continuation(stops.texts[row], len(ids), ended)

    def stream(
        self,
        prompts: Sequence[list[int]],
        how: Generation,
        stops: StopStrings,
        samples: Sequence[int] | None = None,
    ) -> Iterator[Chunk]:
        """Yields what comes after each prompt, as it is made, and gives it to `stops`.

        Where a prompt and what has come after it fill the context, the text goes on from the last half of it. What is
        drawn depends on the seed, the text, its number among equal prompts (`samples`; `sample_numbers` if None) and
        the token's number. It does not depend on other texts of the batch, except for rounding.

        Raises:
          UserError: a prompt is too long.
        """
        self.check_prompts(prompts)
        samples = sample_numbers(prompts) if samples is None else samples
        texts, done = [list(ids) for ids in prompts], np.zeros(len(prompts), bool)
        key, eos_id, written = jax.random.key(how.seed), self.tokenizer.eos_id, 0
        with_prompt = self.goes_on and how.sampling.repetition_penalty != 1
        while written < how.max_new_tokens and not done.all():
            views = [self.view(ids) for ids in texts]
            going = [view for view, is_done in zip(views, done) if not is_done]
            room = self.room(going, how.max_new_tokens - written)
            state, logits = self.start(views, room)
            chunks = stream(
                self.step,
                state,
                logits,
                Rules(how.sampling, () if eos_id is None else (eos_id,)),
                key=key,
                max_new_tokens=room,
                seen=seen_tokens(views, logits.shape[1]) if with_prompt else None,
                rows=jnp.array(samples, jnp.int32),
                chunk=TOKENS_AT_A_TIME,
                first=written,
            )
            for chunk in chunks:
                # A text that is over stays so, whatever else the loop on the device makes of it.
                counts = np.where(done, 0, chunk.counts)
                done = done | chunk.done
                for row in np.flatnonzero(counts).tolist():
                    new = chunk.tokens[row, : counts[row]].tolist()
                    texts[row] += new
                    done[row] |= stops.extend(row, new)
                yield Chunk(chunk.tokens, counts, done)
                if done.all():
                    return
            written += room
            if not self.goes_on:
                return

    def search(self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings) -> None:
        """Gives `stops` the best continuation of each prompt that a beam search finds, as far as the context goes."""
        rooms, eos_id = [self.room([ids], how.max_new_tokens) for ids in prompts], self.tokenizer.eos_id
        new = max(rooms)
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
            limits=jnp.array(rooms, jnp.int32),
            reorder=self.reorder,
        )
        for row, (ids, length) in enumerate(zip(np.asarray(written)[:, 0], np.asarray(lengths)[:, 0])):
            stops.extend(row, ids[:length].tolist())

    def room(self, prompts: Sequence[list[int]], wanted: int) -> int:
        """How many tokens, at most `wanted`, can be written after all of the prompts; the model never sees the last."""
        before = max(map(len, prompts)) if self.goes_on else 2  # a text of its own has a token that begins it
        return min(wanted, self.context_length + 1 - before)

    def view(self, ids: list[int]) -> list[int]:
        """The tokens of a text that the model sees: all of them, or those from its last half on where it was full.

        That depends on the text alone, and on no other that is in the same batch.
        """
        beyond = len(ids) - self.context_length
        if beyond <= 0:
            return ids
        half = max(1, self.context_length // 2)
        return ids[-(half + (beyond - 1) % (self.context_length + 1 - half)) :]

    def encoded(self, prompts: Iterable[tuple[str, str]]) -> list[list[int]]:
        """The ids of prompts, each given with its name for messages.

        Raises:
          UserError: as of `encode` and `check_prompts`; names the prompt.
        """
        found = []
        for prompt, place in prompts:
            with naming(place):
                found.append(self.encode(prompt))
                self.check_prompts(found[-1:])
        return found

    def warn_of_special(self, texts: Sequence[list[int]]) -> None:
        """Warns of tokens that were written and are not in the texts, such as those of a model that hardly learnt."""
        counts = Counter(token for ids in texts for token in ids if token in self.special)
        if counts:
            names = ", ".join(sorted(str(self.tokenizer.hf.id_to_token(token)) for token in counts))
            told = "%d of %d tokens that were written are special ones (%s), which are not shown"
            logger.warning(told, counts.total(), sum(map(len, texts)), names)

    def check_prompts(self, prompts: Sequence[list[int]]) -> None:
        """Raises UserError for a prompt that is longer than the context."""
        longest = max(map(len, prompts), default=0)
        if longest > self.context_length:
            context = f"the model's context is {self.context_length}"
            raise UserError(f"prompt: has {counted(longest, 'token')}, {context}; shorten it")

    def padded(self, texts: Sequence[list[int]], left: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Texts as tokens int32 [B, T] and their mask bool [B, T], padded on one side."""
        length = min(rounded(max(map(len, texts))), self.context_length)
        tokens, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), bool)
        for row, ids in enumerate(texts):
            place = slice(length - len(ids), length) if left else slice(0, len(ids))
            tokens[row, place], mask[row, place] = ids, True
        return tokens, mask


def sample_numbers(prompts: Sequence[list[int]]) -> list[int]:
    """The number of each prompt among those that are equal to it: it draws as if the others were not there."""
    numbers = defaultdict[tuple[int, ...], count](count)
    return [next(numbers[tuple(prompt)]) for prompt in prompts]


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
      UserError: `sampling` has something that is no field of `Sampling`, or a value is impossible.
    """
    known = schema.config_fields(Sampling)
    hints = {name: schema.did_you_mean(name, known) for name in sampling if name not in known}
    if hints:
        raise UserError(*(f"{name}: generate has no such argument; {hint}" for name, hint in hints.items()))
    stops = tuple(stop) if isinstance(stop, (list, tuple)) else (stop,)
    how = Generation(max_new_tokens, Sampling(**sampling), stops, seed, beams, length_penalty)
    how.check()
    return how


beam_search_compiled = jax.jit(
    beam_search, static_argnames=("beams", "max_new_tokens", "eos_id", "pad_id", "length_penalty", "reorder")
)
