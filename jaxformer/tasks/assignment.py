"""The linear assignment problem on the device: a batch of problems, each of minimum cost, in one loop.

The method is that of shortest augmenting paths (Jonker and Volgenant 1987; Crouse 2016, which SciPy follows), exact
but for the rounding of float32. Targets are taken one after another. Each grows a tree of the cheapest paths over
columns (queries) that have a target already, until a path ends at a free query; then every target on that path moves
to the next query. The prices of the queries keep the reduced costs of the others at zero or more, so that the next path
found is a shortest one, too.

All of it is one `lax.while_loop` over single moves, so that no problem of the batch waits for a target of another one.
"""

import jax
import jax.numpy as jnp
from flax import struct

NONE = -1
FORBIDDEN = 1e18  # the cost of NaN and infinity: large enough to be avoided, small enough for finite sums


@struct.dataclass
class Search:
    """The state of one problem of N targets and Q queries; every step makes one of two moves."""

    owner: jax.Array
    """The target of each query or NONE, int32 [Q]."""
    price: jax.Array
    """The amount by which each query's costs are lowered, 0 or negative, float32 [Q]."""
    waiting: jax.Array
    """The targets that have no query yet, bool [N]."""
    root: jax.Array
    """The target whose query is searched for, int32 []."""
    target: jax.Array
    """The target whose queries are looked at next, int32 []."""
    via: jax.Array
    """The query that this target owns, NONE at the root, int32 []."""
    length: jax.Array
    """The length of the path that leads to this target, float32 []."""
    distance: jax.Array
    """The length of the shortest path to each query so far, float32 [Q]."""
    previous: jax.Array
    """The query before each query on that path; NONE where the path comes from the root; int32 [Q]."""
    settled: jax.Array
    """Whether no shorter path to each query can be found, bool [Q]."""
    end: jax.Array
    """On the way back to the root, the query that takes its new target next; NONE while searching; int32 []."""


def linear_assignment(costs: jax.Array, valid: jax.Array) -> jax.Array:
    """The query of each target: all queries differ, and the sum of the costs is the least.

    Args:
      costs: [B, Q, N] of each query for each target, N <= Q; they get no gradient. An infinite cost or NaN is avoided
        as long as anything else is left.
      valid: bool [B, N], False for targets that are padding.

    Returns:
      int32 [B, N]; -1 for padding.

    Raises:
      ValueError: more targets than queries, or shapes that do not agree.
    """
    batch, queries, targets = costs.shape
    if targets > queries:
        raise ValueError(f"{targets} targets for {queries} queries: give at least as many queries")
    if valid.shape != (batch, targets):
        raise ValueError(f"valid has shape {valid.shape}; costs {costs.shape} need {(batch, targets)}")
    if targets == 0:
        return jnp.zeros((batch, 0), jnp.int32)
    costs = jax.lax.stop_gradient(costs).astype(jnp.float32).swapaxes(1, 2)
    costs = jnp.clip(jnp.nan_to_num(costs, nan=FORBIDDEN), -FORBIDDEN, FORBIDDEN)
    # Each target takes one query, so all its costs may be lowered alike: large ones then leave more digits to others.
    costs = costs - jnp.min(costs, axis=2, keepdims=True)
    state = jax.vmap(beginning, (0, None))(valid, queries)
    state = jax.lax.while_loop(lambda s: jnp.any(s.waiting), lambda s: jax.vmap(moved)(costs, s), state)
    owns = state.owner[:, None, :] == jnp.arange(targets, dtype=jnp.int32)[None, :, None]  # [B, N, Q]
    return jnp.where(valid, jnp.argmax(owns, axis=2).astype(jnp.int32), NONE)


def beginning(valid: jax.Array, queries: int) -> Search:
    """The state before the first move; `valid` is bool [N]."""
    owner = previous = jnp.full(queries, NONE, jnp.int32)
    root = target = jnp.argmax(valid).astype(jnp.int32)
    via = end = jnp.int32(NONE)
    price, distance = jnp.zeros(queries, jnp.float32), jnp.full(queries, jnp.inf, jnp.float32)
    length, settled = jnp.float32(0), jnp.zeros(queries, bool)
    return Search(owner, price, valid, root, target, via, length, distance, previous, settled, end)


def moved(costs: jax.Array, s: Search) -> Search:
    """The state after one more move; nothing changes when no target waits.

    In a search, the nearest query that is not settled is settled: if it has an owner, the queries of that owner are
    looked at next, otherwise the search is over. After a search, one query on the path takes over the target of the
    query before it. Both moves are computed at every step: under `vmap` a choice costs as much.

    Args:
      costs: float32 [N, Q].
      s: the state.
    """
    queries, targets = jnp.arange(len(s.owner)), jnp.arange(len(s.waiting))
    searching, waits = s.end < 0, jnp.any(s.waiting)

    # The way through `target` may be shorter for every query.
    reduced = jax.lax.dynamic_index_in_dim(costs, s.target, keepdims=False) - s.price
    offset = jnp.where(s.via < 0, 0, reduced[jnp.maximum(s.via, 0)])
    through = s.length + (reduced - offset)
    nearer = (through < s.distance) & ~s.settled & searching
    distance = jnp.where(nearer, through, s.distance)
    previous = jnp.where(nearer, s.via, s.previous)

    # The nearest query; of several the first free one, or else the first.
    open_distance = jnp.where(s.settled, jnp.inf, distance)
    length = jnp.min(open_distance)
    taken = (s.owner >= 0) * len(queries)
    order = jnp.min(jnp.where(open_distance == length, queries + taken, 2 * len(queries)))
    nearest = order % len(queries)
    found = searching & waits & (order < len(queries))
    settled = s.settled | (queries == nearest)
    price = jnp.where(found & s.settled, s.price + (distance - length), s.price)

    # On the way back from the free query.
    end = jnp.where(searching, nearest, s.end)
    before = previous[end]
    takes, at_root = found | ~searching, before < 0
    target = jnp.where(at_root, s.root, s.owner[jnp.maximum(before, 0)])
    owner = jnp.where(takes & (queries == end), target, s.owner)

    done = takes & at_root
    waiting = s.waiting & ~(done & (targets == s.root))
    root = jnp.where(done, jnp.argmax(waiting).astype(jnp.int32), s.root)
    target, via = jnp.where(done, root, s.owner[nearest]), jnp.where(done, NONE, nearest)
    length, distance = jnp.where(done, 0, length), jnp.where(done, jnp.inf, distance)
    settled, end = settled & ~done, jnp.where(takes & ~at_root, before, NONE)
    return Search(owner, price, waiting, root, target, via, length, distance, previous, settled, end)
