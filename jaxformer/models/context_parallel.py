"""Attention over texts whose tokens are split over the mesh's axis "sequence": context parallelism.

Every device has the queries of its part of a text, and gathers the keys and values of the whole text, of one layer at a
time; backwards it gathers them again, so that none are kept. Ring attention (Liu et al. 2023, arXiv 2310.01889) passes
parts of them round instead, and merges partial results. Gathering was chosen, as for Llama 3 (Grattafiori et al. 2024,
arXiv 2407.21783, section 3.3.2):

- the kernels are those of texts that are not split, with all of their masks; a ring needs kernels that return the
  logarithms of sums, and a backward pass of its own for each;
- XLA's form, with biases and dropout, is split by XLA itself, and falls out of the same layout;
- one layer's keys and values are small beside the activations of all layers, less with grouped-query heads: a ring
  saves memory only where one text's keys and values of one layer alone do not fit.

Under a causal mask the last queries see the most. With a kernel that skips what is hidden, devices swap halves of their
queries for the time of the attention, so that all do the same work: of 2 N halves, device i attends with the halves i
and 2 N - 1 - i (as Llama 3 and zig-zag rings have it, which keep texts in that order; here they stay as they are).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxformer.models.masks import Mask
from jaxformer.models.placement import SEQUENCE_AXIS


def all_but_gathers(primitive: Any, *shapes: Any, **parameters: Any) -> bool:
    """The policy of `jax.checkpoint` that keeps all that the backward pass needs, but gathers again."""
    return primitive.name != "all_gather"


def attend_to_whole_texts(
    attend: Callable[[Array, Array, Array, Any, Mask], Array], devices: int, parts: int, split_keys: bool
) -> Callable[..., Array]:
    """The attention of one device's queries, for `jax.shard_map` over the axis "sequence".

    Args:
      attend: (query, key, value, bias, mask) -> result, of some queries and of the keys of whole texts.
      devices: on the axis.
      parts: of a text: as many as devices, or twice as many, which are swapped; then there is no bias.
      split_keys: whether keys and values are this device's part; otherwise they are those of whole texts.

    Returns:
      (query [B, H, T / devices, Dh], key and value [B, Hkv, S / devices, Dh] or [B, Hkv, S, Dh], bias [., ., T /
      devices, S] or None, mask of whole texts) -> [B, H, T / devices, Dh].
    """

    def whole(x: Array) -> Array:
        return lax.all_gather(x, SEQUENCE_AXIS, axis=2, tiled=True) if split_keys else x

    @partial(jax.checkpoint, policy=all_but_gathers)
    def attended(query: Array, key: Array, value: Array, bias: Array | None, mask: Mask) -> Array:
        key, value, device = whole(key), whole(value), lax.axis_index(SEQUENCE_AXIS)
        if parts == devices:
            return attend(query, key, value, bias, replace(mask, part=device, parts=parts))
        numbers = [jnp.where(device % 2 == odd, device, parts - 1 - device) for odd in (0, 1)]
        results = [
            attend(half, key, value, bias, replace(mask, part=number, parts=parts))
            for half, number in zip(swapped(jnp.split(query, 2, axis=2), devices), numbers)
        ]
        return jnp.concatenate(swapped(results, devices, back=True), axis=2)

    return attended


def swapped(pair: list[Array], devices: int, back: bool = False) -> list[Array]:
    """The halves that this device attends with, from those that it holds; or `back`.

    Device i holds the halves 2 i and 2 i + 1 of a text's 2 N. Half h goes to device h or 2 N - 1 - h: an even half to
    an even device below N, and to an odd one from there on, so that each device gets one of either kind.
    """

    def moves(odd: int) -> list[tuple[int, int]]:
        for_halves = [2 * i + odd for i in range(devices)]
        there = [(i, min(h, 2 * devices - 1 - h)) for i, h in enumerate(for_halves)]
        return [(j, i) for i, j in there] if back else there

    return [lax.ppermute(x, SEQUENCE_AXIS, moves(odd)) for odd, x in enumerate(pair)]
