"""Beam search with any model, on the device.

A hypothesis is a sequence that ends with the end token, or that has `max_new_tokens` tokens. Its score is its
log-probability over ((5 + length) / 6) ** length_penalty (Wu et al. 2016, equation 14), its end token counted.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from jaxformer.decoding.loop import MaybeArray, State, Step


@struct.dataclass
class Beams:
    """Where a search is: K beams that go on, and the K best hypotheses, which are over."""

    position: Array
    """Int32 [], how many tokens the beams have."""
    tokens: Array
    """Int32 [B, K, N], the beams."""
    logprobs: Array
    """Float32 [B, K], the beams', the likeliest first; -inf where there is none."""
    finished: Array
    """Int32 [B, K, N], hypotheses."""
    lengths: Array
    """Int32 [B, K], of the hypotheses."""
    scores: Array
    """Float32 [B, K], of the hypotheses, the best first; -inf where there is none yet."""
    state: State
    """The model's, with B * K rows, before it has read the last tokens."""


def beam_search(
    step: Step,
    state: State,
    first_logits: Array,
    *,
    beams: int,
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    length_penalty: float = 0.6,
    limits: MaybeArray = None,
    reorder: Callable[[State, Array], State] | None = None,
) -> tuple[Array, Array, Array]:
    """The best hypotheses that a beam finds. A pure function, to be jitted.

    Each step looks at the 2 * beams best continuations, so that there are `beams` that go on even if all beams
    end. An end counts only if it is among the best `beams` of them, as in Hugging Face's transformers: a beam of 1
    is then greedy decoding. (tensor2tensor counts all ends.) A prompt is finished when no beam can become better than
    the worst of its hypotheses.

    Args:
      step: (state, tokens int32 [B * beams]) -> (logits float32 [B * beams, V], state), as in `loop.py`;
        row b * beams + k is beam k of prompt b.
      state: the model's after the prompts, for B * beams rows (`repeat_rows`).
      first_logits: [B, V], of the first token after each prompt.
      beams: K, how many sequences are followed, and how many hypotheses are returned.
      max_new_tokens: N.
      eos_id: the end token.
      pad_id: what follows it.
      length_penalty: alpha, at least 0: the larger, the longer the best hypotheses. 0 compares log-probabilities;
        Vaswani et al. 2017 have 0.6.
      limits: int32 [B], how many tokens each prompt's hypotheses may have, at most N; None: all N.
      reorder: (state, rows int32 [B * beams]) -> the state where row i is what row rows[i] was. If it is None,
        that is done to every array whose first axis is B * beams: a model that stacks its layers in the first axis
        needs one of its own.

    Returns:
      tokens int32 [B, K, N], the best hypothesis first; lengths int32 [B, K], which count the end token; scores
      float32 [B, K]. Where there are fewer than K hypotheses, the last ones have score -inf and length 0.
    """
    batch = first_logits.shape[0]
    most = jnp.full((batch, 1), max_new_tokens) if limits is None else limits[:, None]

    def extend(search: Beams, logits: Array) -> tuple[Beams, Array]:
        """The search after a token more, given logits [B, K, V]; and the beams that it comes from, int32 [B, K]."""
        chances = search.logprobs[..., None] + jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        # Where a model gives NaN, too.
        chances = jnp.where(search.logprobs[..., None] > -jnp.inf, chances, -jnp.inf)
        flat = chances.reshape(batch, -1)
        logprobs, places = lax.top_k(flat, min(2 * beams, flat.shape[1]))
        origin, tokens = jnp.divmod(places, chances.shape[-1])  # the beam that goes on, and how
        sequences = rows_of(search.tokens, origin).at[:, :, search.position].set(tokens)
        length = search.position + 1
        ends = (tokens == eos_id) | (length == most)

        over = jnp.where(ends, logprobs, -jnp.inf)[:, :beams] / penalty(length, length_penalty)
        merged = jnp.concatenate([search.scores, over], axis=1)
        lengths = jnp.concatenate([search.lengths, jnp.where(over > -jnp.inf, length, 0)], axis=1)
        scores, kept = lax.top_k(merged, beams)
        finished = rows_of(jnp.concatenate([search.finished, sequences[:, :beams]], axis=1), kept)

        live, going_on = lax.top_k(jnp.where(ends, -jnp.inf, logprobs), beams)
        best_to_come = live[:, :1] / penalty(most, length_penalty)
        worst = scores[:, -1:]
        done = (worst > -jnp.inf) & (worst >= best_to_come)
        logprobs = jnp.where(done, -jnp.inf, live)  # a prompt that is finished stays as it is
        tokens, lengths = rows_of(sequences, going_on), rows_of(lengths, kept)
        search = Beams(length, tokens, logprobs, finished, lengths, scores, search.state)
        return search, rows_of(origin, going_on)

    def body(search: Beams) -> Beams:
        last = lax.dynamic_index_in_dim(search.tokens, search.position - 1, axis=2, keepdims=False)
        logits, state = step(search.state, last.reshape(-1))
        search, origin = extend(search, logits.reshape(batch, beams, -1))
        if beams > 1:
            state = (reorder or take_rows)(state, (origin + beams * jnp.arange(batch)[:, None]).reshape(-1))
        return replace(search, state=state)

    nothing = jnp.full((batch, beams, max_new_tokens), pad_id, jnp.int32)
    first = jnp.where(jnp.arange(beams)[None] == 0, jnp.zeros((batch, 1)), -jnp.inf)
    lengths, scores = jnp.zeros((batch, beams), jnp.int32), jnp.full((batch, beams), -jnp.inf)
    start = Beams(jnp.int32(0), nothing, first, nothing, lengths, scores, state)
    search, _ = extend(start, jnp.repeat(first_logits[:, None], beams, axis=1))
    search = lax.while_loop(lambda search: jnp.any(search.logprobs > -jnp.inf), body, search)
    return search.finished, search.lengths, search.scores


def penalty(length: int | Array, alpha: float) -> Array:
    """What a log-probability is divided by: ((5 + length) / 6) ** alpha."""
    return ((5 + jnp.asarray(length, jnp.float32)) / 6) ** alpha


def rows_of(x: Array, rows: Array) -> Array:
    """[B, K, ...] and int32 [B, M] -> [B, M, ...]."""
    return jax.vmap(lambda x, rows: x[rows])(x, rows)


def take_rows(state: State, rows: Array) -> State:
    """The state whose row i is what row rows[i] was, in every array with as many rows."""
    return map_rows(state, len(rows), lambda x: jnp.take(x, rows, axis=0))


def repeat_rows(state: State, batch: int, beams: int) -> State:
    """Each of the `batch` rows `beams` times, in every array with as many rows: the state of `beam_search`."""
    return map_rows(state, batch, lambda x: jnp.repeat(x, beams, axis=0))


def map_rows(state: State, rows: int, function: Callable[[Any], Any]) -> State:
    """Applies `function` to the arrays whose first axis is `rows`."""
    return jax.tree.map(lambda x: function(x) if jnp.ndim(x) and len(x) == rows else x, state)
