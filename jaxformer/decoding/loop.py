"""Decoding token by token with any model: a loop on the device, or chunks of it for a host that prints.

A model takes part as `step(state, tokens) -> (logits, state)`: tokens are int32 [B], what was chosen last; logits
are float32 [B, V], of what comes next; `state` is any tree of arrays (the key-value cache, positions) and keeps its
structure, shapes and dtypes. A `step` that needs parameters is best a `jax.tree_util.Partial(function, params)`:
its arrays are then arguments of the compiled program and not constants in it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax
from jax.tree_util import Partial

from jaxformer.decoding.sampling import Sampling, sample
from jaxformer.errors import UserError

MaybeArray: TypeAlias = Array | None
State: TypeAlias = Any
Step: TypeAlias = Callable[[State, Array], tuple[Array, State]]


@dataclass(frozen=True)
class Rules:
    """What a decoding keeps to; static under jit."""

    sampling: Sampling
    """How tokens are chosen."""
    eos_ids: tuple[int, ...]
    """A row is finished when it has chosen one of these; none if ()."""
    pad_id: int = 0
    """What finished rows emit."""


@struct.dataclass
class Progress:
    """Where a decoding is."""

    position: Array
    """Int32 [], the number of the next token: how many the longest row has, if the first has the number 0."""
    tokens: Array
    """Int32 [B], the last token of each row."""
    lengths: Array
    """Int32 [B], how many tokens each row has, its end included."""
    done: Array
    """Bool [B], which rows are finished."""
    seen: MaybeArray
    """Bool [B, V], what the repetition penalty is for; None without one."""
    state: State
    """The model's, before it has read `tokens`."""


@dataclass(frozen=True)
class Chunk:
    """The next tokens of a stream, on the host."""

    tokens: np.ndarray
    """Int32 [B, n], n >= 1."""
    counts: np.ndarray
    """Int32 [B], how many of them are the row's; the others are padding."""
    done: np.ndarray
    """Bool [B], which rows are finished."""


class StopStrings:
    """Texts that grow token by token, and end before the first stop string.

    The first is the one that is complete first, and the longest of those that are complete at the same character: so
    it does not matter how many tokens come at a time. It may start and end inside of tokens.

    Args:
      stops: the strings, none if ().
      decode: token ids -> text, as `Tokenizer.decode`. The text of more tokens should go on from that of fewer, but
        for a last character of which bytes are missing (U+FFFD).
      rows: how many texts there are.

    Raises:
      UserError: a stop string is empty.
    """

    def __init__(self, stops: Sequence[str], decode: Callable[[list[int]], str], rows: int = 1):
        if not all(stops):
            raise UserError("a stop string is empty: every text would end at once; leave it out")
        self.stops = tuple(stops)
        self.decode = decode
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        self.texts = [""] * rows  # up to their stop strings
        self.found: list[str | None] = [None] * rows  # what has ended each text

    def extend(self, row: int, ids: Sequence[int]) -> bool:
        """Takes the next tokens of a row, and says whether a stop string has ended it; further ones are dropped."""
        known = len(self.ids[row])
        if self.found[row] is None and ids:
            self.ids[row] += ids
            self.texts[row] = self.decode(self.ids[row])
            if first_stop(self.texts[row], self.stops):
                self.end(row, known)
        return self.found[row] is not None

    def end(self, row: int, known: int) -> None:
        """Cuts a row at its stop string, which is complete after more than `known` tokens."""
        for count in range(known + 1, len(self.ids[row]) + 1):
            text = self.decode(self.ids[row][:count])
            if stop := first_stop(text, self.stops):
                self.ids[row] = self.ids[row][:count]
                self.texts[row], self.found[row] = text[: stop[0]], stop[1]
                return

    def settled(self, row: int) -> str:
        """The part of the text that will not change: what may be the beginning of a stop string is held back, and
        so are characters of which bytes are missing.
        """
        text = self.texts[row]
        if self.found[row] is not None:
            return text
        text = text.rstrip("\ufffd")
        beginnings = (stop[:length] for stop in self.stops for length in range(1, len(stop)))
        return text[: len(text) - max((len(b) for b in beginnings if text.endswith(b)), default=0)]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the stop string that is complete first begins, and which it is; None if there is none."""
    places = ((text.find(stop), stop) for stop in stops)
    found = [(place + len(stop), place, stop) for place, stop in places if place >= 0]
    return min(found)[1:] if found else None


def stream(
    step: Step,
    state: State,
    first_logits: Array,
    rules: Rules,
    *,
    key: Array,
    max_new_tokens: int,
    seen: MaybeArray = None,
    rows: MaybeArray = None,
    chunk: int = 8,
    first: int = 0,
) -> Iterator[Chunk]:
    """Decodes until every row is finished or has `max_new_tokens` tokens: the first, then up to `chunk` at a time.

    Compiled once for a `step` (the same function, or a Partial of it) and shapes. The arrays of `state` are
    donated: they are gone after the first chunk; those of a Partial are not.

    Args:
      step: the model (see above); it is called once less than there are tokens.
      state: the model's, after the prompts; donated.
      first_logits: [B, V], of the first token after each prompt.
      rules: how tokens are chosen, and when a row ends.
      key: a random key; token t of row b is drawn with fold_in(fold_in(key, t), rows[b]).
      max_new_tokens: how many tokens a row gets at most.
      seen: bool [B, V], the tokens of the prompts, for the repetition penalty; None penalises new tokens alone.
      rows: int32 [B], a row's number in its random keys; 0, 1, ..., B - 1 if it is None.
      chunk: tokens between two looks of the host.
      first: the number of the first token; what is drawn depends on it, as if so many had been made before.
    """
    step = step if isinstance(step, Partial) else Partial(step)
    progress = replace(begin_compiled(first_logits, key, seen, rows, rules, first), state=state)
    emitted = progress.tokens[:, None]
    position, end = first, first + max_new_tokens
    lengths = np.zeros(first_logits.shape[0], np.int32)
    while True:
        made = int(progress.position) - position
        counts = np.array(progress.lengths) - lengths
        done = np.array(progress.done)  # copies: the arrays are donated
        position, lengths = position + made, lengths + counts
        yield Chunk(np.asarray(emitted)[:, :made], counts, done)
        if done.all() or position >= end:
            return
        progress, emitted = advance_compiled(step, progress, key, rows, end, rules, chunk)


def begin(
    first_logits: Array, key: Array, seen: MaybeArray, rows: MaybeArray, rules: Rules, first: int | Array = 0
) -> Progress:
    """The progress after the first token, which has the number `first`; without the model's state."""
    batch = len(first_logits)
    if rules.sampling.repetition_penalty == 1:
        seen = None
    elif seen is None:
        seen = jnp.zeros(first_logits.shape, bool)
    tokens, lengths = jnp.full(batch, rules.pad_id, jnp.int32), jnp.zeros(batch, jnp.int32)
    nothing = Progress(jnp.int32(first), tokens, lengths, jnp.zeros(batch, bool), seen, None)
    return choose(nothing, first_logits, key, rows, rules)


def choose(progress: Progress, logits: Array, key: Array, rows: MaybeArray, rules: Rules) -> Progress:
    """The progress after a token more, chosen from logits [B, V]."""
    done = progress.done
    drawn = sample(jax.random.fold_in(key, progress.position), logits, rules.sampling, progress.seen, rows)
    tokens = jnp.where(done, rules.pad_id, drawn)
    seen = progress.seen
    if seen is not None:
        seen = jax.vmap(lambda row, token: row.at[token].set(True))(seen, drawn)
    ended = done | jnp.isin(tokens, jnp.array(rules.eos_ids, jnp.int32))
    return Progress(progress.position + 1, tokens, progress.lengths + ~done, ended, seen, progress.state)


def advance(
    step: Step, progress: Progress, key: Array, rows: MaybeArray, limit: int | Array, rules: Rules, width: int
) -> tuple[Progress, Array]:
    """Decodes up to `width` tokens more, until there are `limit` in all or every row is finished.

    Returns:
      the progress, and the new tokens int32 [B, width], filled up with padding.
    """
    batch, start = progress.tokens.shape[0], progress.position
    end = jnp.minimum(start + width, limit)

    def unfinished(carry: tuple[Progress, Array]) -> Array:
        return (carry[0].position < end) & ~jnp.all(carry[0].done)

    def body(carry: tuple[Progress, Array]) -> tuple[Progress, Array]:
        progress, emitted = carry
        place = progress.position - start
        logits, state = step(progress.state, progress.tokens)
        progress = choose(replace(progress, state=state), logits, key, rows, rules)
        return progress, emitted.at[:, place].set(progress.tokens)

    tokens = jnp.full((batch, width), rules.pad_id, jnp.int32)
    return lax.while_loop(unfinished, body, (progress, tokens))


begin_compiled = jax.jit(begin, static_argnames="rules")
advance_compiled = jax.jit(advance, static_argnames=("rules", "width"), donate_argnames="progress")
