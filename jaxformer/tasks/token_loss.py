"""The last product of a language model and the cross-entropy of its tokens in one pass, a part of each text at a time.

Logits [B, T, V] are the largest array of a language model's step: 3.1 GiB a chip for 16 texts of 1,024 of GPT-2's
tokens. Here those of a part of the tokens are made, their gradient is taken at once, since that of a sum is known up to
a factor, and both are dropped: the products are as many as they were, and neither pass holds all the logits. (So does
Liger Kernel on GPUs, Hsu et al. 2024, arXiv 2410.10989, section 3.2.)

The softmax subtracts the target's own logit rather than the largest one. That is known before the product, so that
XLA fuses the exponentials and their sums into it: the logits themselves are never in memory on TPUs. Where a logit is
so far above the target's that this overflows, the whole is computed once more with the largest logit of each token.

The texts are cut along T. A mesh's rows and tokens stay where they are: every device goes over its own, and the table's
gradient is added over devices once, not at every part. Where "fsdp" splits the table, each device gets its part of it;
over more than 8 TPUs in several rows their compiler still adds up the whole (`parallel/gradients.py`).
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from jaxformer.config.fields import left_out
from jaxformer.models.dense import accumulated, over_rows
from jaxformer.models.outputs import TextOutputs
from jaxformer.models.placement import BATCH_AXES, HEAD_AXIS, automatic_mesh, platform, rows_and_tokens
from jaxformer.tasks.losses import token_cross_entropy

MaybeArray: TypeAlias = Array | None
Extras: TypeAlias = Mapping[str, Any]  # those of "label_smoothing" and "z_loss" that are not left out
# Bytes of a part's logits on one device, in float32. The table's gradient is read and written once a part, so that they
# are many where memory is slow beside the products; TPUs keep them in half the bytes.
PART_BYTES = {"cpu": 2**24, "tpu": 2**30}
PART_BYTES_ELSEWHERE = 2**29
# Exponentials are those of logit - target's logit - BEHIND, at most of MOST: nothing overflows in float32 and bfloat16
# then, and what underflows is e^37 times smaller than the target's own. Sums of HIGH or more may have reached MOST: a
# token whose target has a probability under e^-110.
BEHIND, MOST = 50.0, 60.0
HIGH = 0.99 * math.exp(MOST)


def summed_losses(
    outputs: TextOutputs, targets: Array, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[Array, Array]:
    """The sums over all targets of cross-entropy and z-loss together, and of z-loss alone; float32 [].

    The second sum has no gradient, as it is a part of the first.

    Args:
      outputs: a model's, with a `head`, which spares the logits, or else with the logits [B, T, V].
      targets: int [B, T], negative where there is none.
      label_smoothing: the share of a target that is spread over all V tokens.
      z_loss: the weight of the square of the logits' logarithm of sums.
    """
    head = outputs.head
    if head is not None:
        given = {"label_smoothing": label_smoothing, "z_loss": z_loss}
        extras = {name: weight for name, weight in given.items() if not left_out(weight)}
        total, of_z = summed(head.seen, head.table, head.bias, targets, extras)
        return total, lax.stop_gradient(of_z)
    total, of_z = jnp.sum(token_cross_entropy(outputs.logits, targets, label_smoothing)), jnp.float32(0)
    if not left_out(z_loss):
        squares = jnp.square(jax.nn.logsumexp(outputs.logits.astype(jnp.float32), axis=-1))
        of_z = z_loss * jnp.sum(jnp.where(targets >= 0, squares, 0))
    return total + of_z, lax.stop_gradient(of_z)


@jax.custom_vjp
def summed(
    seen: Array, table: Array, bias: MaybeArray, targets: Array, extras: Extras
) -> tuple[Array, Array]:
    """Both sums; only the first one has a gradient, and the extras have none."""
    return summed_forward(seen, table, bias, targets, extras)[0]


def summed_forward(
    seen: Array, table: Array, bias: MaybeArray, targets: Array, extras: Extras
) -> tuple[tuple[Array, Array], Any]:
    """Both sums, and the first one's gradients."""
    mesh = automatic_mesh()
    own = PartitionSpec() if mesh is None else rows_and_tokens(mesh, targets.shape)
    axes = (*BATCH_AXES, *own[1:])
    if mesh is None or BATCH_AXES not in own:
        return over_parts(seen, table, bias, targets, extras)

    fsdp = BATCH_AXES[1]
    count = mesh.shape[fsdp]
    # Along the width, as `parallel/rules.py` splits it. Where "tensor" splits its rows, XLA would gather these first.
    scatter = count > 1 and mesh.shape[HEAD_AXIS] == 1 and table.shape[1] % count == 0

    def on_a_device(*own: Any) -> Any:
        sums, (of_seen, of_table, of_bias) = over_parts(*own)
        sums, of_bias = lax.psum((sums, of_bias), axes)
        if scatter:
            of_table = lax.psum_scatter(of_table, fsdp, scatter_dimension=1, tiled=True)
        of_table = lax.psum(of_table, tuple(axis for axis in axes if not (scatter and axis == fsdp)))
        return sums, (of_seen, of_table, of_bias)

    whole = PartitionSpec()
    of_table = PartitionSpec(None, fsdp) if scatter else whole
    split = jax.shard_map(
        on_a_device,
        mesh=mesh,
        in_specs=(own, whole, whole, own, whole),
        out_specs=(whole, (own, of_table, whole)),
        axis_names=set(axes),
        check_vma=False,
    )
    return split(seen, table, bias, targets, extras)


def summed_backward(
    gradients: Any, of_sums: tuple[Array, Array]
) -> tuple[Array, Array, MaybeArray, None, None]:
    """The gradients times that of the first sum."""
    of_seen, of_table, of_bias = jax.tree.map(lambda g: (g * of_sums[0]).astype(g.dtype), gradients)
    return of_seen, of_table, of_bias, None, None


summed.defvjp(summed_forward, summed_backward)


def over_parts(
    seen: Array, table: Array, bias: MaybeArray, targets: Array, extras: Extras
) -> tuple[tuple[Array, Array], tuple[Array, Array, MaybeArray]]:
    """Both sums, and the gradients of seen, table and bias, of one device's texts."""
    arrays = seen, table, bias, targets, extras
    found, overflows = totals_of_parts(*arrays, below_largest=False)
    return lax.cond(overflows, lambda: totals_of_parts(*arrays, below_largest=True)[0], lambda: found)


def totals_of_parts(
    seen: Array, table: Array, bias: MaybeArray, targets: Array, extras: Extras, *, below_largest: bool
) -> tuple[tuple[tuple[Array, Array], tuple[Array, Array, MaybeArray]], Array]:
    """What `over_parts` gives; and bool [], whether that is wrong, because an exponential overflows.

    Args:
      below_largest: whether the softmax subtracts the largest logit, which is always right, not the target's.
    """
    batch, length, width = seen.shape
    count = number_of_parts(batch, length, len(table))
    padding = -length % count
    seen_parts = jnp.pad(seen, ((0, 0), (0, padding), (0, 0))).reshape(batch, count, -1, width)
    target_parts = jnp.pad(targets, ((0, 0), (0, padding)), constant_values=-1).reshape(batch, count, -1)
    rows = table.astype(seen.dtype)

    def add_part(totals: Any, part: tuple[Array, Array]) -> tuple[Any, Array]:
        *found, of_seen, high = of_part(part[0], rows, bias, part[1], extras, below_largest)
        *before, was_high = totals
        return (*jax.tree.map(jnp.add, before, found), was_high | high), of_seen

    zero = jnp.float32(0)
    of_bias = None if bias is None else jnp.zeros(bias.shape, jnp.float32)
    start = ((zero, zero), jnp.zeros(table.shape, jnp.float32), of_bias, jnp.bool_(False))
    parts = (seen_parts.swapaxes(0, 1), target_parts.swapaxes(0, 1))
    (sums, of_table, of_bias, overflows), of_seen = lax.scan(add_part, start, parts)
    of_seen = of_seen.swapaxes(0, 1).reshape(batch, -1, width)[:, :length]
    if bias is not None and of_bias is not None:
        of_bias = of_bias.astype(bias.dtype)
    return (sums, (of_seen, of_table.astype(table.dtype), of_bias)), overflows


def number_of_parts(batch: int, length: int, rows: int) -> int:
    """How many parts texts are cut into, a power of two, so that a usual length needs no padding."""
    most = PART_BYTES.get(platform(), PART_BYTES_ELSEWHERE)
    count = 1
    while count < length and 4 * batch * length * rows > count * most:
        count *= 2
    return count


def of_part(
    seen: Array, table: Array, bias: MaybeArray, targets: Array, extras: Extras, below_largest: bool
) -> tuple[tuple[Array, Array], Array, MaybeArray, Array, Array]:
    """Both sums, the gradients of table, bias (float32) and seen, and whether an exponential overflows, of one part.

    The gradients are products of operands in the dtype of `seen`, added up in float32, as in `dense.unembed`.
    """
    x, targets = seen.reshape(-1, seen.shape[-1]), targets.reshape(-1)
    x = jnp.where((targets >= 0)[:, None], x, 0)  # what stands where nothing is to be predicted may be NaN
    own = jnp.sum(x.astype(jnp.float32) * jnp.take(table, targets, 0, mode="clip").astype(jnp.float32), -1)
    if bias is not None:
        own = own + jnp.take(bias, targets, mode="clip").astype(jnp.float32)
    logits, shift = logits_of(x, table, bias), own + BEHIND
    if below_largest:  # of a product of its own: one that both read would be written to memory
        shift = jnp.max(logits_of(lax.optimization_barrier(x), table, bias), axis=-1)
    weights = jnp.exp(jnp.minimum(logits - shift[:, None], MOST))
    sums = jnp.sum(weights, axis=-1)
    overflows = jnp.any(sums >= HIGH)
    log_sums = shift + jnp.log(sums)
    weights = weights.astype(jnp.promote_types(x.dtype, jnp.bfloat16))  # which float16 does not hold
    there = (targets >= 0).astype(jnp.float32)
    is_target = jnp.arange(len(table))[None, :] == targets[:, None]
    label_smoothing, z_loss = (extras.get(name, 0.0) for name in ("label_smoothing", "z_loss"))
    own = (1 - label_smoothing) * own
    if "label_smoothing" in extras:
        own = own + label_smoothing * jnp.mean(logits, axis=-1)
    of_z = z_loss * jnp.sum(there * jnp.square(log_sums))
    total = jnp.sum(there * (log_sums - own)) + of_z

    factor = there * (1 + 2 * z_loss * log_sums) / sums
    of_logits = factor[:, None] * weights.astype(jnp.float32)
    of_logits = of_logits - jnp.where(is_target, 1 - label_smoothing, 0)
    if "label_smoothing" in extras:
        of_logits = of_logits - label_smoothing / len(table) * there[:, None]
    of_bias = None if bias is None else jnp.sum(of_logits, axis=0)
    of_logits = of_logits.astype(x.dtype)
    of_seen = accumulated(of_logits, table, 1, 0).astype(x.dtype).reshape(seen.shape)
    return (total, of_z), over_rows(of_logits, x), of_bias, of_seen, overflows


def logits_of(x: Array, table: Array, bias: MaybeArray) -> Array:
    """Logits [N, V] of x [N, D], in float32."""
    logits = accumulated(x, table, 1, 1)
    return logits if bias is None else logits + jnp.broadcast_to(bias.astype(jnp.float32), logits.shape)
