"""Attention on TPUs where a text's keys fit in a core's memory: a Pallas kernel for texts of up to some 1,500 tokens.

It takes heads side by side, [B, T, H Dh], as projections give them: nothing is transposed, and no text is padded to
blocks. Forwards and backwards are one kernel each. Backwards the weights are computed again from queries and keys, so
that nothing but these is kept, as in Dao et al. 2022 (FlashAttention), whose tiling is not needed here.

By the TPU's compiler (bundles in its schedule of the kernels for v5e, both directions, one head of 64 in bfloat16), a
causal text of 1,024 tokens takes 12,200 and JAX's splash kernel 17,000 in its best blocks (`splash.blocks`); 197 tokens
take 1,800 and 2,100. Around splash XLA needs as much again, for transposes, padding and sums.
"""

from dataclasses import dataclass
from functools import partial, reduce
from math import lcm
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxformer.models.masks import Mask, within

LANES = 128  # of a TPU's vector registers
ROWS = 256  # queries at a time
MEMORY = 14 * 2**20  # bytes of a core's memory that a kernel may fill: 16 MiB is the compiler's own limit
FEWEST = 32  # queries; XLA's form suits fewer
NOWHERE = jnp.iinfo(jnp.int32).min  # the segment of keys that no query sees
MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # as in `attention.attention_weights`
BY_ROWS, BY_COLUMNS, OUTER = ((1,), (0,)), ((1,), (1,)), ((0,), (0,))  # x y, x y^T and x^T y
MaybeArray = Array | None


@dataclass(frozen=True)
class Plan:
    """What is known of an attention when it is compiled."""

    head_dim: int
    """Dh."""
    kv_heads: int
    """Key heads of one step of the grid."""
    shared: int
    """Query heads that share a key head."""
    causal: bool
    """As in `Mask`."""
    window: int | None
    """As in `Mask`."""
    scale: float
    """Of the logits."""
    one_bias: bool
    """Whether all texts have the same bias."""
    interpret: bool
    """Whether the kernels are interpreted, on any platform and slowly."""

    def lanes(self, head: int) -> slice:
        """Where a head lies among the lanes of its step."""
        return slice(head * self.head_dim, (head + 1) * self.head_dim)

    def parts(self, queries: int, keys: int) -> list[tuple[slice, slice]]:
        """Slices of queries, and of the keys that they can see."""
        found = []
        for first in range(0, queries, ROWS):
            last = min(first + ROWS, queries)
            behind = 0 if self.window is None else max(0, first - self.window + 1) // LANES * LANES
            found.append((slice(first, last), slice(behind, min(last, keys) if self.causal else keys)))
        return found


def short_problems(query: Array, key: Array, bias: MaybeArray, mask: Mask) -> list[str]:
    """Why the kernel is not taken, as words for the log; see `splash.splash_problems`."""
    (_, heads, queries, _), keys = query.shape, key.shape[2]
    reasons = {
        "the mask of a cache": mask.allowed is not None,
        f"{queries} queries, fewer than {FEWEST}": queries < FEWEST,
        "a window between texts of different lengths": mask.window is not None and queries != keys,
        "a causal or local text in parts": mask.parts > 1 and (mask.causal or mask.window is not None),
        "a bias that heads share": bias is not None and bias.shape[-3:] != (heads, queries, keys),
        f"{queries} queries and {keys} keys do not fit": step_bytes(query, key, bias) > MEMORY,
        f"operands {query.dtype}": query.dtype == "float16",
    }
    return [reason for reason, holds in reasons.items() if holds]


def heads_of_a_step(kv_heads: int, head_dim: int) -> int:
    """The fewest key heads that fill whole registers, or all."""
    fewest = lcm(head_dim, LANES) // head_dim
    return fewest if kv_heads % fewest == 0 else kv_heads


def step_bytes(query: Array, key: Array, bias: MaybeArray) -> int:
    """Bytes of memory of one step of the backward kernel: arrays twice, one being moved while one is used."""
    (_, heads, queries, head_dim), (_, kv_heads, keys, _) = query.shape, key.shape
    count = heads_of_a_step(kv_heads, head_dim)
    lanes, shared, columns = (-(-n // LANES) * LANES for n in (count * head_dim, head_dim, keys))
    moved = lanes * query.dtype.itemsize * (3 * queries * heads // kv_heads + 4 * keys)
    biases = 0 if bias is None else 2 * 4 * count * heads // kv_heads * queries * columns
    return 2 * (moved + biases) + 4 * (2 * keys * shared + 4 * min(ROWS, queries) * columns)


def short_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: MaybeArray,
    mask: Mask,
    scale: float,
    interpret: bool = False,
) -> Array:
    """Attention; see `attention.attention`.

    Args:
      query: [B, H, T, Dh].
      key: [B, Hkv, S, Dh]; keys are not repeated for the query heads that share them.
      value: [B, Hkv, S, Dh].
      bias: [1, H, T, S] or [B, H, T, S].
      mask: causal, windowed, with segments or with padded keys.
      scale: of the logits.
      interpret: whether the kernels are interpreted, on any platform and slowly.

    Returns:
      [B, H, T, Dh] in the dtype of `value`.
    """
    (batch, heads, queries, head_dim), kv_heads = query.shape, key.shape[1]
    at_once = heads_of_a_step(kv_heads, head_dim)
    own = theirs = None
    if mask.segments is not None:
        own, theirs = mask.own_segments(queries).astype(jnp.int32), mask.segments.astype(jnp.int32)
    if mask.keys is not None:
        seen = jnp.zeros(mask.keys.shape, jnp.int32) if theirs is None else theirs
        theirs = jnp.where(mask.keys, seen, NOWHERE)
    if bias is not None:
        bias = jnp.expand_dims(bias, tuple(range(4 - bias.ndim))).astype(jnp.float32)
    one_bias = bias is not None and bias.shape[0] == 1
    plan = Plan(head_dim, at_once, heads // kv_heads, mask.causal, mask.window, scale, one_bias, interpret)
    ids = (own if own is None else own[:, :, None], theirs if theirs is None else theirs[:, None])
    result = attended(plan, *(side_by_side(x) for x in (query, key, value)), bias, *ids)
    return result.reshape(batch, queries, heads, head_dim).swapaxes(1, 2).astype(value.dtype)


def side_by_side(x: Array) -> Array:
    """[B, H, T, Dh] as [B, T, H Dh]."""
    batch, heads, tokens, head_dim = x.shape
    return x.swapaxes(1, 2).reshape(batch, tokens, heads * head_dim)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attended(
    plan: Plan,
    query: Array,
    key: Array,
    value: Array,
    bias: MaybeArray,
    own: MaybeArray,
    theirs: MaybeArray,
) -> Array:
    """[B, T, H Dh] of query [B, T, H Dh], key and value [B, S, Hkv Dh], bias [1 or B, H, T, S], and the segments of
    queries, int32 [B, T, 1], and keys, int32 [B, 1, S]."""
    return run(plan, forward, (query, key, value, bias, own, theirs), (), (0,))[0]


def attended_forward(plan: Plan, *arrays: Any) -> tuple[Array, Any]:
    """The result, and what the backward pass needs."""
    return run(plan, forward, arrays, (), (0,))[
        0
    ], arrays  # the kernel itself, which `remat.keeping` looks for


def attended_backward(plan: Plan, arrays: Any, gradient: Array) -> tuple[MaybeArray, ...]:
    """The gradients of query, key, value and bias; segments have none."""
    sums = [(arrays[1].shape[1], plan.head_dim)] * 2  # of the keys' and the values' gradients, over queries
    return *run(plan, backward, arrays, (gradient,), (0, 1, 2, 3), sums), None, None


attended.defvjp(attended_forward, attended_backward)


def run(plan: Plan, kernel: Any, arrays: Any, more: tuple[Array, ...], like: Any, scratch: Any = ()) -> Any:
    """Runs a kernel over all texts and steps of heads.

    Args:
      plan: what is known of the attention.
      kernel: takes the plan and references to its arrays.
      arrays: those of `attended`.
      more: arrays that lie as the queries do.
      like: for each result, which of `arrays` it is like.
      scratch: shapes of what the kernel adds up in float32.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    query, key, *_ = arrays
    batch, queries, keys = query.shape[0], query.shape[1], key.shape[1]
    lanes, heads = plan.kv_heads * plan.head_dim, plan.kv_heads * plan.shared
    of_query = pl.BlockSpec((None, queries, lanes * plan.shared), lambda h, b: (b, 0, h))
    of_key = pl.BlockSpec((None, keys, lanes), lambda h, b: (b, 0, h))
    of_bias = pl.BlockSpec((None, heads, queries, keys), lambda h, b: (0 if plan.one_bias else b, h, 0, 0))
    of_ids = [pl.BlockSpec((None, *shape), lambda h, b: (b, 0, 0)) for shape in ((queries, 1), (1, keys))]
    specs = [of_query, of_key, of_key, of_bias, *of_ids]
    given = [None if x is None else spec for x, spec in zip(arrays, specs)]
    shapes = [None if x is None else jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]
    return pl.pallas_call(
        partial(kernel, plan),
        grid=(key.shape[2] // lanes, batch),
        in_specs=[*given, *[of_query] * len(more)],
        out_specs=[given[i] for i in like],
        out_shape=[shapes[i] for i in like],
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        name=f"short_attention_{kernel.__name__}",
        interpret=plan.interpret,
    )(*arrays, *more)


def weights_before_division(
    plan: Plan, rows: slice, columns: slice, query: Array, key: Array, bias: Any, own: Any, theirs: Any
) -> tuple[Array, Array]:
    """exp(logits - their largest), float32, of some queries and keys of a head, and their sums [., 1].

    Args:
      plan: what is known of the attention.
      rows: which queries.
      columns: which keys.
      query: these queries, scaled.
      key: these keys.
      bias: the head's, a reference to float32 [T, S], or None.
      own: a reference to the segments of queries [T, 1], or None.
      theirs: a reference to those of keys [1, S], or None.
    """
    logits = product(query, key, BY_COLUMNS)
    if bias is not None:
        logits += bias[rows, columns]
    seen = []
    if plan.causal or plan.window is not None:
        at = [jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis) for axis in (0, 1)]
        distance = at[0] - at[1] + (rows.start - columns.start)
        seen.append(within(distance if plan.causal else jnp.abs(distance), plan.window))
    if own is not None:
        seen.append(own[rows, :] == theirs[:, columns])
    elif theirs is not None:
        seen.append(jnp.broadcast_to(theirs[:, columns] != NOWHERE, logits.shape))
    if seen:
        logits = jnp.where(reduce(jnp.logical_and, seen), logits, MASKED)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return weights, jnp.sum(weights, axis=-1, keepdims=True)


def forward(
    plan: Plan, query: Any, key: Any, value: Any, bias: Any, own: Any, theirs: Any, result: Any
) -> None:
    """The kernel that writes the result: of one text and some heads."""
    for head in range(plan.kv_heads * plan.shared):
        mine, its = plan.lanes(head), plan.lanes(head // plan.shared)
        of_head = None if bias is None else bias.at[head]
        for rows, columns in plan.parts(query.shape[0], key.shape[0]):
            scaled = query[rows, mine] * jnp.asarray(plan.scale, query.dtype)
            given = (scaled, key[columns, its], of_head, own, theirs)
            weights, total = weights_before_division(plan, rows, columns, *given)
            sums = product(weights.astype(value.dtype), value[columns, its], BY_ROWS)
            result[rows, mine] = (sums / total).astype(result.dtype)


def backward(
    plan: Plan,
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    own: Any,
    theirs: Any,
    gradient: Any,
    of_query: Any,
    of_key: Any,
    of_value: Any,
    of_bias: Any,
    key_sum: Any,
    value_sum: Any,
) -> None:
    """The kernel that writes the gradients: of one text and some heads. A bias's adds up over texts that share it."""
    from jax.experimental import pallas as pl

    dtype = query.dtype
    if of_bias is not None:

        @pl.when((pl.program_id(1) == 0) | (not plan.one_bias))
        def clear() -> None:
            of_bias[...] = jnp.zeros_like(of_bias)

    for head in range(plan.kv_heads * plan.shared):
        mine, its = plan.lanes(head), plan.lanes(head // plan.shared)
        of_head = None if bias is None else bias.at[head]
        if head % plan.shared == 0:
            key_sum[...], value_sum[...] = jnp.zeros_like(key_sum), jnp.zeros_like(value_sum)
        for rows, columns in plan.parts(query.shape[0], key.shape[0]):
            scaled = query[rows, mine] * jnp.asarray(plan.scale, dtype)
            given = (scaled, key[columns, its], of_head, own, theirs)
            weights, total = weights_before_division(plan, rows, columns, *given)
            divided = (gradient[rows, mine].astype(jnp.float32) / total).astype(dtype)
            of_weights = product(divided, value[columns, its], BY_COLUMNS)
            shared = jnp.sum(weights * of_weights, axis=-1, keepdims=True) / total
            of_logits = weights * (of_weights - shared)
            if of_bias is not None:
                of_bias[head, rows, columns] += of_logits
            rounded = of_logits.astype(dtype)
            of_query[rows, mine] = (product(rounded, key[columns, its], BY_ROWS) * plan.scale).astype(dtype)
            key_sum[columns, :] += product(rounded, scaled, OUTER)
            value_sum[columns, :] += product(weights.astype(dtype), divided, OUTER)
        if head % plan.shared == plan.shared - 1:
            of_key[:, its], of_value[:, its] = key_sum[...].astype(dtype), value_sum[...].astype(dtype)


def product(x: Array, y: Array, axes: Any) -> Array:
    """The product that sums over an axis of each matrix, in float32."""
    return jax.lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=jnp.float32)
