"""The linear assignment problem on the device: a batch of problems, each of minimum cost, in one loop.

The method is that of shortest augmenting paths (Jonker and Volgenant 1987; Crouse 2016, which SciPy follows), exact
but for the rounding of float32. Targets come in one after another; each grows a tree of cheapest detours over columns
(queries) that are taken already, until it ends at a free one, and then every target on the path moves on by one. The
prices of columns keep the reduced costs of what is left at zero or more, which makes the next path a shortest one too.

All of it is one `lax.while_loop` over single moves, so that no problem of the batch waits for another one's target.
"""

import jax
import jax.numpy as jnp
from flax import struct

NONE = -1
# For what is no number or infinite: so large that it is avoided, so small that sums of it are finite.
FORBIDDEN = 1e18


@struct.dataclass
class Search:
    """One problem of N targets and Q queries on its way; every step makes one of two moves."""

    owner: jax.Array
    """The target of each query or NONE, int32 [Q]."""
    price: jax.Array
    """What each query's costs are lowered by, at most 0, float32 [Q]."""
    waiting: jax.Array
    """The targets that have no query yet, bool [N]."""
    root: jax.Array
    """The target that is searched for, int32 []."""
    target: jax.Array
    """The one whose queries are looked at next, int32 []."""
    via: jax.Array
    """The query that it owns, NONE at the root, int32 []."""
    length: jax.Array
    """Of the path that leads to it, float32 []."""
    distance: jax.Array
    """Of the shortest path to each query so far, float32 [Q]."""
    previous: jax.Array
    """The query before each on that path; NONE: it comes from the root; int32 [Q]."""
    settled: jax.Array
    """Whether that path is the shortest of all, bool [Q]."""
    end: jax.Array
    """The query that takes its new target next, on the way back to the root; NONE while searching; int32
    []."""


def linear_assignment(costs: jax.Array, valid: jax.Array) -> jax.Array:
    """The query of each target, so that all differ and the sum of costs is the least.

    Args:
      costs: [B, Q, N] of each query for each target, N <= Q; has no gradient. Infinite ones and NaN are as good as
        forbidden: taken if nothing else is left.
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
    # Every target takes one: its costs may be lowered alike, so that large ones leave more digits to the others.
    costs = costs - jnp.min(costs, axis=2, keepdims=True)
    state = jax.vmap(beginning, (0, None))(valid, queries)
    step = jax.vmap(moved)
    state = jax.lax.while_loop(lambda s: jnp.any(s.waiting), lambda s: step(costs, s), state)
    owns = state.owner[:, None, :] == jnp.arange(targets, dtype=jnp.int32)[None, :, None]  # [B, N, Q]
    return jnp.where(valid, jnp.argmax(owns, axis=2).astype(jnp.int32), NONE)


def beginning(valid: jax.Array, queries: int) -> Search:
    """The state before the first move; `valid` is bool [N]."""
    nobody = jnp.full(queries, NONE, jnp.int32)
    root = jnp.argmax(valid).astype(jnp.int32)
    none = jnp.int32(NONE)
    return Search(
        owner=nobody,
        price=jnp.zeros(queries, jnp.float32),
        waiting=valid,
        root=root,
        target=root,
        via=none,
        length=jnp.float32(0),
        distance=jnp.full(queries, jnp.inf, jnp.float32),
        previous=nobody,
        settled=jnp.zeros(queries, bool),
        end=none,
    )


def moved(costs: jax.Array, s: Search) -> Search:
    """The state after one more move; nothing changes when no target waits.

    Either the nearest query that is not settled is settled: if it has an owner, that one's queries come next, else
    the search is over. Or, then, one query on the path takes over the target of the query before it. Both are
    computed at every step: under `vmap` a choice costs as much.

    Args:
      costs: float32 [N, Q].
      s: the state.
    """
    queries, targets = jnp.arange(len(s.owner)), jnp.arange(len(s.waiting))
    searching, waits = s.end < 0, jnp.any(s.waiting)

    # Through `target` every query may be nearer than it was.
    reduced = jax.lax.dynamic_index_in_dim(costs, s.target, keepdims=False) - s.price
    offset = jnp.where(s.via < 0, 0, reduced[jnp.maximum(s.via, 0)])
    through = s.length + (reduced - offset)
    nearer = (through < s.distance) & ~s.settled & searching
    distance = jnp.where(nearer, through, s.distance)
    previous = jnp.where(nearer, s.via, s.previous)

    # The nearest; of several a free one, then the first.
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
    return Search(
        owner=owner,
        price=price,
        waiting=waiting,
        root=root,
        target=jnp.where(done, root, s.owner[nearest]),
        via=jnp.where(done, NONE, nearest),
        length=jnp.where(done, 0, length),
        distance=jnp.where(done, jnp.inf, distance),
        previous=previous,
        settled=settled & ~done,
        end=jnp.where(takes & ~at_root, before, NONE),
    )
