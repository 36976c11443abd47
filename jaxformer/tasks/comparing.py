"""Losses that compare the examples of a batch with each other: every image with every text.

Rows are the examples of this device, columns those of the whole batch: under pmap of all devices, gathered over
`PairOutputs.axis`. In chunks, the columns come in pieces that are gathered and compared one after the other, and
compared again backwards, so that no array of rows x columns is ever there (Zhai et al. 2023, section 3.3, pass
pieces on from device to device).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxformer.config.fields import largest_divisor
from jaxformer.models.outputs import PairOutputs
from jaxformer.tasks.base import Batch, example_mask

Same: TypeAlias = Literal["pair", "text"]
Columns = Mapping[str, jax.Array]  # "vector" [C, E], "number" int32 [C], "real" bool [C]
NEVER = -1e30  # a logit that has no part in a softmax; finite, so that gradients are


def softmax_losses(outputs: PairOutputs, batch: Batch, same: Same = "pair", chunks: int = 1) -> jax.Array:
    """CLIP's loss of each example, float32 [B] (Radford et al. 2021, figure 3): the mean of the cross-entropies of its
    image against all texts and of its text against all images.

    Where several are right, the targets are spread over them (Yang et al. 2022, UniCL, equations 3 and 4).

    Args:
      outputs: of the rows; those of padding may be NaN.
      batch: "example_mask", and "caption" for same="text".
      same: which columns are right: the row's own "pair", or all of the same "text".
      chunks: into how many pieces the columns are cut, at most.
    """
    images, texts = columns_of(outputs, batch, same)

    def of_piece(rows: Columns, piece: Columns) -> tuple[jax.Array, jax.Array, jax.Array]:
        scores = scaled(outputs, rows, piece)  # [B, C]
        right = is_right(rows, piece)
        normaliser = jax.nn.logsumexp(jnp.where(piece["real"][None, :], scores, NEVER), axis=1)
        return normaliser, jnp.sum(jnp.where(right, scores, 0), axis=1), jnp.sum(right, axis=1)

    def one_way(rows: Columns, columns: Columns) -> jax.Array:
        normalisers, of_right, count = over_pieces(of_piece, rows, columns, outputs.axis, chunks)
        mean_of_right = jnp.sum(of_right, axis=0) / jnp.maximum(jnp.sum(count, axis=0), 1)
        return jax.nn.logsumexp(normalisers, axis=0) - mean_of_right

    return (one_way(images, texts) + one_way(texts, images)) / 2


def sigmoid_losses(outputs: PairOutputs, batch: Batch, same: Same = "pair", chunks: int = 1) -> jax.Array:
    """SigLIP's loss of each image, float32 [B] (Zhai et al. 2023, section 3.2): the binary cross-entropies of its pairs
    with all texts, added up.

    Args:
      outputs: of the rows; those of padding may be NaN.
      batch: "example_mask", and "caption" for same="text".
      same: which pairs belong together: the row's own "pair", or all of the same "text".
      chunks: into how many pieces the columns are cut, at most.
    """
    images, texts = columns_of(outputs, batch, same)

    def of_piece(rows: Columns, piece: Columns) -> jax.Array:
        scores = scaled(outputs, rows, piece)
        losses = -jax.nn.log_sigmoid(jnp.where(is_right(rows, piece), scores, -scores))
        return jnp.sum(jnp.where(piece["real"][None, :], losses, 0), axis=1)

    return jnp.sum(over_pieces(of_piece, images, texts, outputs.axis, chunks), axis=0)


def found(outputs: PairOutputs, batch: Batch, same: Same = "pair", chunks: int = 1) -> jax.Array:
    """Whether of all texts one that is right is the nearest to each image, bool [B]; NaN is never right."""
    images, texts = columns_of(outputs, batch, same)

    def of_piece(rows: Columns, piece: Columns) -> tuple[jax.Array, jax.Array]:
        scores, right = scaled(outputs, rows, piece), is_right(rows, piece)
        wrong = piece["real"][None, :] & ~right
        return jnp.max(jnp.where(right, scores, NEVER), axis=1), jnp.max(
            jnp.where(wrong, scores, NEVER), axis=1
        )

    of_right, of_wrong = over_pieces(of_piece, images, texts, outputs.axis, chunks)
    return jnp.max(of_right, axis=0) > jnp.max(of_wrong, axis=0)


def columns_of(outputs: PairOutputs, batch: Batch, same: Same) -> tuple[Columns, Columns]:
    """This device's images and texts: their vectors, 0 on padding, numbers that are equal where they belong together,
    and whether they are real."""
    real = example_mask(batch)
    number = jnp.arange(len(real), dtype=jnp.int32)
    if same == "text":
        number = jnp.asarray(batch["caption"], jnp.int32)
    elif outputs.axis is not None:
        number = number + len(real) * jax.lax.axis_index(outputs.axis)
    vectors = (jnp.where(real[:, None], x.astype(jnp.float32), 0) for x in (outputs.image, outputs.text))
    images, texts = ({"vector": vector, "number": number, "real": real} for vector in vectors)
    return images, texts


def scaled(outputs: PairOutputs, rows: Columns, piece: Columns) -> jax.Array:
    """The scores float32 [B, C] of rows with a piece of the columns."""
    # Of full precision on every device: what is rounded is multiplied by up to 100.
    products = jnp.matmul(rows["vector"], piece["vector"].T, precision="highest")
    return outputs.scale[:, None] * products + outputs.bias[:, None]


def is_right(rows: Columns, piece: Columns) -> jax.Array:
    """Which columns belong to which rows, bool [B, C]."""
    return (rows["number"][:, None] == piece["number"][None, :]) & piece["real"][None, :]


def over_pieces(
    of_piece: Callable[[Columns, Columns], Any],
    rows: Columns,
    columns: Columns,
    axis: str | None,
    chunks: int,
) -> Any:
    """What `of_piece` gives for the rows and each piece of all devices' columns, stacked: [K, ...].

    Args:
      of_piece: (rows, piece) -> a tree of arrays.
      rows: of this device.
      columns: of this device; the others' are gathered, piece by piece.
      axis: pmap's.
      chunks: the number of pieces, at most; the largest that divides this device's rows is taken.
    """
    count = len(columns["real"])
    chunks = largest_divisor(count, min(chunks, count))

    def gathered(rows: Columns, piece: Columns) -> Any:
        whole = piece if axis is None else jax.lax.all_gather(piece, axis, tiled=True)
        return of_piece(rows, whole)

    if chunks == 1:
        return jax.tree.map(lambda x: x[None], gathered(rows, columns))
    # A piece takes every so many-th row, so that under jit each device has a part of it.
    pieces = jax.tree.map(
        lambda x: x.reshape(count // chunks, chunks, *x.shape[1:]).swapaxes(0, 1), dict(columns)
    )
    once_more = jax.checkpoint(gathered)
    return jax.lax.scan(lambda _, piece: (None, once_more(rows, piece)), None, pieces)[1]
