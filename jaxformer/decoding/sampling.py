"""Choosing the next token from logits: greedy, or drawn after temperature, top-k, top-p and min-p.

The kept tokens are those of Hugging Face's transformers, and so is the order: repetition penalty, temperature,
top-k, top-p, min-p, each on what the one before has left. A vocabulary is never sorted: top-k takes the k-th value
from `lax.top_k`, top-p finds its threshold by bisection over the bits of the probabilities, and a draw goes to a
block of the vocabulary first and then to a token in it, which needs hundreds of random numbers and not 50 000.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxformer.config import schema
from jaxformer.config.fields import Constraint, above, at_least, between
from jaxformer.errors import UserError

BLOCK = 256  # tokens; a vocabulary of 50 257 has 197 blocks
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
COLD = 1e-6  # a temperature below which no other token than the likeliest is ever drawn
BITS_OF_ONE = int(np.float32(1).view(np.int32))  # floats from 0 to 1 are ordered as their bits are
HALVINGS = BITS_OF_ONE.bit_length()

FINITE = Constraint("a finite number", math.isfinite)
HEAT = at_least(0, "0 for the likeliest token, or a number above, as in 0.8")
SHARE = between(0, 1, "a share of the largest probability from 0 to 1, as in 0.05")
PROBABILITY = Constraint("a probability above 0, at most 1, as in 0.9", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: Annotated[float, HEAT, FINITE] = 1.0
    """What logits are divided by; 0, or less than 1e-6, takes the likeliest token, whatever the other filters say."""
    top_k: Annotated[int, at_least(1, "1 or more, or None to keep all tokens")] | None = None
    """Keep the k likeliest tokens, and those that are as likely as the k-th (Fan et al. 2018)."""
    top_p: Annotated[float, PROBABILITY] | None = None
    """Keep the likeliest tokens until their probabilities add up to this (Holtzman et al. 2020)."""
    min_p: Annotated[float, SHARE] | None = None
    """Keep tokens that are at least this share as likely as the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: Annotated[float, above(0, "a number above 0, as in 1.2, or 1 for none"), FINITE] = 1.0
    """Divides positive and multiplies negative logits of tokens that were there before (Keskar et al. 2019,
    section 4.1); 1.2 in the paper, 1 for none. It counts in greedy decoding, too."""

    def check(self) -> None:
        """Raises UserError if a field's value is impossible."""
        if found := list(schema.problems(self)):
            raise UserError(*found)


def sample(
    key: Array, logits: Array, sampling: Sampling, seen: Array | None = None, rows: Array | None = None
) -> Array:
    """The next token of every row.

    A row is drawn with a key of its own, so that what else is in the batch does not matter to it.

    Args:
      key: a random key.
      logits: [B, V].
      sampling: how to choose; of equally likely tokens the greedy choice is the first.
      seen: bool [B, V], the tokens that the repetition penalty is for; None penalises nothing.
      rows: int32 [B], what is folded into `key`; 0, 1, ..., B - 1 if it is None.

    Returns:
      int32 [B].
    """
    if sampling.temperature < COLD:
        return likeliest(penalized(defined(logits), sampling, seen))[:, 0]
    rows = jnp.arange(logits.shape[0]) if rows is None else rows
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
    return categorical(keys, filtered(logits, sampling, seen))


def filtered(logits: Array, sampling: Sampling, seen: Array | None = None) -> Array:
    """Penalised and scaled logits, -inf where a token is not kept; each row keeps at least one.

    A logit that is NaN is never kept, and +inf is the largest finite number. A row where no token is possible
    keeps token 0.

    Args:
      logits: [B, V].
      sampling: what to keep. A temperature of 0 keeps the first of the likeliest.
      seen: bool [B, V], the tokens that the repetition penalty is for; None penalises nothing.

    Returns:
      float32 [B, V].
    """
    logits = penalized(defined(logits), sampling, seen)
    if sampling.temperature < COLD:
        return jnp.where(token_ids(logits) == likeliest(logits), logits, -jnp.inf)
    if sampling.temperature != 1:
        logits = bounded(logits / min(sampling.temperature, LARGEST), logits)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p:
        logits = keep_min_p(logits, sampling.min_p)
    return logits


def seen_tokens(texts: Sequence[Sequence[int]], vocab_size: int) -> Array:
    """Which tokens are in each text, bool [B, V]."""
    seen = np.zeros((len(texts), vocab_size), bool)
    for row, ids in enumerate(texts):
        seen[row, list(ids)] = True
    return jnp.asarray(seen)


def penalized(logits: Array, sampling: Sampling, seen: Array | None) -> Array:
    """Logits after the repetition penalty."""
    penalty = min(max(sampling.repetition_penalty, SMALLEST), LARGEST)  # 0 / 0 and 0 * inf are NaN
    if penalty == 1 or seen is None:
        return logits
    changed = jnp.where(logits < 0, logits * penalty, logits / penalty)
    return bounded(jnp.where(seen, changed, logits), logits)


def likeliest(logits: Array) -> Array:
    """The first of the largest logits [B, V]: int32 [B, 1]. On CPU XLA's argmax takes three times as long."""
    largest = logits == jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(largest, token_ids(logits), logits.shape[-1]), axis=-1, keepdims=True)


def keep_top_k(logits: Array, k: int) -> Array:
    """Keeps the k largest logits [B, V], and those that equal the k-th."""
    values, _ = lax.top_k(logits, min(k, logits.shape[-1]))
    least = jnp.min(values, axis=-1, keepdims=True)  # XLA makes a sort of everything of values[:, -1:]
    return jnp.where(logits >= least, logits, -jnp.inf)


def keep_top_p(logits: Array, p: float) -> Array:
    """Keeps the likeliest tokens until their probabilities add up to p; of equal ones the first.

    In other words: goes through the tokens from the least likely up, and leaves out those up to which the sum is
    at most 1 - p.
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    bits = lax.bitcast_convert_type(probabilities, jnp.int32)
    blocks, block_bits = in_blocks(probabilities, 0), in_blocks(bits, 0)  # sums of blocks are faster on CPU
    most = jnp.float32(1 - p)

    def mass_until(bound: Array) -> Array:
        chosen = jnp.where(block_bits <= bound[:, None], blocks, 0)
        return jnp.sum(jnp.sum(chosen, axis=-1), axis=-1, keepdims=True)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = mass_until(middle) > most
        return jnp.where(enough, low, jnp.minimum(middle + 1, high)), jnp.where(enough, middle, high)

    high = jnp.max(bits, axis=-1, keepdims=True)
    _, threshold = lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(high), high))
    equal = bits == threshold
    count = jnp.sum(equal, axis=-1, keepdims=True)
    each = lax.bitcast_convert_type(threshold, jnp.float32)
    left_out = jnp.floor((most - mass_until(threshold - 1)) / each)
    last = nth_true(equal, count - jnp.clip(left_out, 0, count - 1).astype(jnp.int32))
    return jnp.where((bits > threshold) | (equal & (token_ids(logits) <= last)), logits, -jnp.inf)


def keep_min_p(logits: Array, min_p: float) -> Array:
    """Keeps the tokens that are at least min_p as likely as the likeliest."""
    probabilities = jax.nn.softmax(logits, axis=-1)
    least = min_p * jnp.max(probabilities, axis=-1, keepdims=True)
    return jnp.where(probabilities >= least, logits, -jnp.inf)


def categorical(keys: Array, logits: Array) -> Array:
    """Draws a token from each row's softmax: a block of the vocabulary first, then a token of the block.

    Args:
      keys: [B] random keys.
      logits: float32 [B, V]; a row has at least one above -inf.

    Returns:
      int32 [B].
    """
    blocks = in_blocks(logits, -jnp.inf)  # [B, V / BLOCK, BLOCK]
    halves = jax.vmap(jax.random.split)(keys)
    draw = jax.vmap(jax.random.categorical)
    block = draw(halves[:, 0], jax.nn.logsumexp(blocks, axis=-1))
    token = draw(halves[:, 1], take_block(blocks, block))
    return (block * BLOCK + token).astype(jnp.int32)


def nth_true(mask: Array, n: Array) -> Array:
    """Where the n-th True of each row is, counted from 1.

    Args:
      mask: bool [B, V].
      n: int32 [B, 1], from 1 to the number of True.

    Returns:
      int32 [B, 1].
    """
    blocks = in_blocks(mask, False)
    until = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)  # [B, V / BLOCK]
    block = jnp.argmax(until >= n, axis=-1)
    inside = take_block(blocks, block)
    before = jnp.take_along_axis(until, block[:, None], axis=1) - jnp.sum(inside, axis=-1, keepdims=True)
    place = jnp.argmax(before + jnp.cumsum(inside, axis=-1) >= n, axis=-1)
    return (block * BLOCK + place)[:, None]


def in_blocks(x: Array, fill: float | bool) -> Array:
    """[B, V] -> [B, V / BLOCK, BLOCK], the last block filled up."""
    filled = jnp.pad(x, ((0, 0), (0, -x.shape[-1] % BLOCK)), constant_values=fill)
    return filled.reshape(x.shape[0], -1, BLOCK)


def take_block(blocks: Array, block: Array) -> Array:
    """[B, N, BLOCK] and int32 [B] -> [B, BLOCK]."""
    return jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]


def token_ids(logits: Array) -> Array:
    """int32 [1, V]: 0, 1, ..., V - 1."""
    return jnp.arange(logits.shape[-1])[None]


def defined(logits: Array) -> Array:
    """Float32 [B, V] without NaN and +inf, and with a possible token in each row."""
    logits = logits.astype(jnp.float32)
    logits = bounded(logits, logits)
    nothing = jnp.max(logits, axis=-1, keepdims=True) == -jnp.inf
    return jnp.where(nothing & (token_ids(logits) == 0), 0, logits)


def bounded(values: Array, logits: Array) -> Array:
    """Values, finite where logits are above -inf, and -inf where they are not, or are NaN."""
    return jnp.where(logits > -jnp.inf, jnp.clip(values, -LARGEST, LARGEST), -jnp.inf)
