"""Losses that compare the examples of a batch with each other: every image with every text.

Rows are the examples of this device, columns those of the whole batch: under pmap of all devices, gathered over
`PairOutputs.axis`. With several chunks the columns come in pieces: each is gathered, compared, and its gradient made
before the next one's turn, so that no array of rows x columns is ever there (Zhai et al. 2023, section 3.3, pass pieces
from device to device).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxformer.config.fields import largest_divisor
from jaxformer.models.outputs import PairOutputs
from jaxformer.tasks.base import Batch, example_mask

Same: TypeAlias = Literal["pair", "text"]
Rows: TypeAlias = dict[str, jax.Array]  # "image", "text" [B, E], "scale", "bias" [B]: what has a gradient
About: TypeAlias = dict[
    str, jax.Array
]  # "number" int32 [B], equal where rows belong together, "real" bool [B]
OfPiece: TypeAlias = Callable[[Rows, int], jax.Array]
Both: TypeAlias = Callable[[Rows, About], tuple[jax.Array, Rows]]
WAYS = (("image", "text"), ("text", "image"))
NEVER = -1e30  # a logit that has no part in a softmax; finite, so that gradients are


def softmax_total(outputs: PairOutputs, batch: Batch, same: Same = "pair", chunks: int = 1) -> jax.Array:
    """CLIP's loss of this device's examples, added up, float32 [] (Radford et al. 2021, figure 3): the mean of the
    cross-entropies of an image against all texts and of its text against all images.

    Where several are right, the targets are spread over them (Yang et al. 2022, UniCL, equations 3 and 4). The totals
    of all devices are to be added up and multiplied by one number: then the gradient is right.

    Args:
      outputs: of the rows; those of padding may be NaN.
      batch: "example_mask", and "caption" for same="text".
      same: which columns are right: the row's own "pair", or all of the same "text".
      chunks: into how many pieces the columns are cut, at most.
    """
    given, about = rows_of(outputs, batch, same)
    chunks = pieces_in(about, chunks)

    def both(given: Rows, about: About) -> tuple[jax.Array, Rows]:
        def seen(way: tuple[str, str], given: Rows, k: int) -> tuple[jax.Array, jax.Array, jax.Array]:
            scores, right, real = compared(way, given, about, k, chunks, outputs.axis)
            normaliser = jax.nn.logsumexp(jnp.where(real, scores, NEVER), axis=1)
            return normaliser, jnp.sum(jnp.where(right, scores, 0), axis=1), jnp.sum(right, axis=1)

        def of_way(way: tuple[str, str], given: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
            """The normaliser of each row, its mean score where it is right, and the number of these, [B]."""
            first, parts = given, []
            for k in range(chunks):
                parts.append(seen(way, given, k))
                given = after(first, parts[-1][0])
            normalisers, of_right, counts = (jnp.stack(part) for part in zip(*parts))
            count = jnp.maximum(jnp.sum(counts, axis=0), 1)
            return jax.nn.logsumexp(normalisers, axis=0), jnp.sum(of_right, axis=0) / count, count

        ways = {WAYS[0]: of_way(WAYS[0], given)}
        ways[WAYS[1]] = of_way(WAYS[1], after(given, ways[WAYS[0]][0]))

        def of_piece(given: Rows, k: int) -> jax.Array:
            """A sum whose gradient is the loss's, for these normalisers."""
            total = jnp.float32(0)
            for way, (normaliser, _, count) in ways.items():
                scores, right, real = compared(way, given, about, k, chunks, outputs.axis)
                shares = jnp.exp(jnp.where(real, scores - normaliser[:, None], NEVER))
                summed = jnp.sum(shares - jnp.where(right, scores / count[:, None], 0), axis=1)
                total += jnp.sum(jnp.where(about["real"], summed, 0)) / 2
            return total

        losses = sum(normaliser - of_right for normaliser, of_right, _ in ways.values()) / 2
        total = jnp.sum(jnp.where(about["real"], losses, 0))
        return total, summed(of_piece, given, chunks)[1]

    return with_gradient(both, given, about)


def sigmoid_total(outputs: PairOutputs, batch: Batch, same: Same = "pair", chunks: int = 1) -> jax.Array:
    """SigLIP's loss of this device's examples, added up, float32 [] (Zhai et al. 2023, section 3.2): the binary
    cross-entropies of the pairs of each image with all texts. Devices' totals are added up as in `softmax_total`.

    Args:
      outputs: of the rows; those of padding may be NaN.
      batch: "example_mask", and "caption" for same="text".
      same: which pairs belong together: the row's own "pair", or all of the same "text".
      chunks: into how many pieces the columns are cut, at most.
    """
    given, about = rows_of(outputs, batch, same)
    chunks = pieces_in(about, chunks)

    def both(given: Rows, about: About) -> tuple[jax.Array, Rows]:
        def of_piece(given: Rows, k: int) -> jax.Array:
            scores, right, real = compared(WAYS[0], given, about, k, chunks, outputs.axis)
            losses = -jax.nn.log_sigmoid(jnp.where(right, scores, -scores))
            return jnp.sum(jnp.where(real & about["real"][:, None], losses, 0))

        return summed(of_piece, given, chunks)

    return with_gradient(both, given, about)


def found(outputs: PairOutputs, batch: Batch, chunks: int = 1, same: Same = "text") -> jax.Array:
    """Whether a text that is right (see `softmax_total`) is nearer to each image than all others, bool [B]; NaN never
    is."""
    given, about = rows_of(outputs, batch, same)
    chunks, fixed = pieces_in(about, chunks), jax.lax.stop_gradient(given)
    of_right: list[jax.Array] = []
    of_wrong: list[jax.Array] = []
    for k in range(chunks):
        rows = after(fixed, of_wrong[-1]) if of_wrong else fixed
        scores, right, real = compared(WAYS[0], rows, about, k, chunks, outputs.axis)
        of_right.append(jnp.max(jnp.where(right, scores, NEVER), axis=1))
        of_wrong.append(jnp.max(jnp.where(real & ~right, scores, NEVER), axis=1))
    return jnp.max(jnp.stack(of_right), axis=0) > jnp.max(jnp.stack(of_wrong), axis=0)


def rows_of(outputs: PairOutputs, batch: Batch, same: Same) -> tuple[Rows, About]:
    """This device's rows, those of padding as 0, and what is known of them."""
    real = example_mask(batch)
    number = jnp.arange(len(real), dtype=jnp.int32)
    if same == "text":
        number = jnp.asarray(batch["caption"], jnp.int32)
    elif outputs.axis is not None:
        number = number + len(real) * jax.lax.axis_index(outputs.axis)
    given = {name: getattr(outputs, name).astype(jnp.float32) for name in ("image", "text", "scale", "bias")}
    rows = {name: jnp.where(real[:, None] if x.ndim == 2 else real, x, 0) for name, x in given.items()}
    return rows, {"number": number, "real": real}


def pieces_in(about: About, chunks: int) -> int:
    """The number of pieces: the largest up to `chunks` that divides this device's rows."""
    count = len(about["real"])
    return largest_divisor(count, min(chunks, count))


def compared(
    way: tuple[str, str], given: Rows, about: About, k: int, chunks: int, axis: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """This device's rows and piece k of all devices' columns: scores float32 [B, C], which columns are right, bool
    [B, C], and which are no padding, bool [1, C].

    Args:
      way: which vectors are the rows, and which the columns.
      given: the rows.
      about: what is known of them.
      k: the number of the piece, which takes every so many-th row; so under jit each device has a part of it.
      chunks: how many pieces there are.
      axis: pmap's.
    """
    vector, number, real = (
        x.reshape(len(x) // chunks, chunks, *x.shape[1:])[:, k]
        for x in (given[way[1]], about["number"], about["real"])
    )
    if axis is not None:
        vector, number, real = (jax.lax.all_gather(x, axis, tiled=True) for x in (vector, number, real))
    # Of full precision on every device: what is rounded is multiplied by up to 100.
    products = jnp.matmul(given[way[0]], vector.T, precision="highest")
    scores = given["scale"][:, None] * products + given["bias"][:, None]
    return scores, (about["number"][:, None] == number[None, :]) & real[None, :], real[None, :]


def summed(of_piece: OfPiece, given: Rows, chunks: int) -> tuple[jax.Array, Rows]:
    """The sum of `of_piece` over all pieces, and its gradient by `given`, made piece by piece."""
    # Not scanned over: several CPU devices hang now and then where collectives in a loop and others are independent.
    total, gradient = jax.value_and_grad(of_piece)(given, 0)
    for k in range(1, chunks):
        done = jnp.sum(gradient["image"] + gradient["text"], axis=1)
        total, gradient = jax.tree.map(
            jnp.add, (total, gradient), jax.value_and_grad(of_piece)(after(given, done), k)
        )
    return total, gradient


def after(given: Rows, done: jax.Array) -> Rows:
    """The rows, of which nothing can be made before `done` [B], which is finite, is made: one piece is done
    before the next one's turn. (XLA takes them in any order, and drops an `optimization_barrier` too early.)"""
    ready = done[:, None] < jnp.inf
    return {**given, **{name: jnp.where(ready, given[name], 0) for name in WAYS[0]}}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_gradient(both: Both, given: Rows, about: About) -> jax.Array:
    """The sum that `both` gives, whose gradient by `given` it gives, too."""
    return both(given, about)[0]


with_gradient.defvjp(
    lambda both, given, about: both(given, about),
    lambda both, gradient, factor: (jax.tree.map(lambda g: factor * g, gradient), None),
)
