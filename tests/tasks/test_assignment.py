"""The assignment has SciPy's least cost, on the device, and ends whatever it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxformer.tasks.assignment import linear_assignment

assigned = jax.jit(linear_assignment)


def least(costs):
    """SciPy's least cost of [Q, N], in float64."""
    costs = costs.astype(np.float64)
    return costs[linear_sum_assignment(costs)].sum()


def check(costs, valid, rtol=1e-6):
    """All targets that are no padding have a query of their own, at SciPy's cost."""
    queries = np.asarray(assigned(costs, valid))
    assert queries.dtype == np.int32
    for problem, mask, found in zip(costs, valid, queries):
        (targets,) = np.nonzero(mask)
        assert (found[~mask] == -1).all()
        taken = found[mask]
        assert len(np.unique(taken)) == len(targets)
        assert ((taken >= 0) & (taken < problem.shape[0])).all()
        cost = problem.astype(np.float64)[taken, targets].sum()
        scale = np.abs(problem[taken, targets]).sum()
        np.testing.assert_allclose(cost, least(problem[:, mask]), rtol=0, atol=rtol * scale + 1e-30)


def uniform(generator, shape):
    return generator.uniform(size=shape)


def negative(generator, shape):
    return -5 * generator.gamma(1.0, size=shape)


def tied(generator, shape):
    return generator.integers(0, 4, size=shape)


def equal(generator, shape):
    return np.full(shape, generator.normal())


def alike(generator, shape):
    """Every target likes the same queries: the longest searches."""
    batch, queries, targets = shape
    noise = 0.01 * generator.uniform(size=shape)
    return generator.uniform(size=(batch, queries, 1)) * generator.uniform(size=(batch, 1, targets)) + noise


def forbidden(generator, shape):
    """Most pairs cost so much that a mistake shows, and one assignment without them exists."""
    _, queries, targets = shape
    costs = np.where(generator.uniform(size=shape) < 0.9, 1e9, generator.uniform(size=shape))
    for problem in costs:
        chosen = generator.permutation(queries)[:targets]
        problem[chosen, np.arange(targets)] = generator.uniform(size=targets)
    return costs


KINDS = [uniform, negative, tied, equal, alike, forbidden]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("queries", "targets"), [(7, 7), (20, 12), (9, 1)])
def test_costs_are_those_of_scipy(kind, queries, targets):
    """60 problems of each kind and shape: 1,080 in all."""
    generator = np.random.default_rng(queries)
    costs = kind(generator, (60, queries, targets)).astype(np.float32)
    valid = generator.uniform(size=(60, targets)) < 0.7
    valid[0], valid[1] = True, False
    check(costs, valid)


def test_the_size_of_detr():
    generator = np.random.default_rng(0)
    boxes, targets = generator.uniform(size=(8, 100, 1, 4)), generator.uniform(size=(8, 1, 64, 4))
    check(np.abs(boxes - targets).sum(-1).astype(np.float32), np.ones((8, 64), bool))


def test_targets_without_any_good_query_spoil_no_others():
    """Searches for them are a million long; what remains of float32 then would not tell the others' costs apart."""
    small = np.random.default_rng(1).uniform(size=(6, 12, 12)).astype(np.float32)
    costs = small.copy()
    costs[:, :, 6:10] += 1e6
    queries = np.asarray(assigned(costs, np.ones((6, 12), bool)))
    small[:, :, 6:10] = costs[:, :, 6:10] - np.float32(1e6)
    for problem, found in zip(small, queries):
        np.testing.assert_allclose(problem[found, np.arange(12)].sum(), least(problem), rtol=1e-5)


def test_costs_that_are_no_numbers_are_avoided():
    costs = np.random.default_rng(2).uniform(size=(3, 8, 5)).astype(np.float32)
    expected = np.asarray(assigned(costs, np.ones((3, 5), bool)))
    spoilt = costs.copy()
    spoilt[0, 0], spoilt[1, :, 1], spoilt[2] = np.nan, np.inf, np.nan
    queries = np.asarray(assigned(spoilt, np.ones((3, 5), bool)))
    for found in queries:
        assert len(set(found.tolist())) == 5
        assert found.min() >= 0
    assert 0 not in queries[0]
    if 0 not in expected[0]:
        np.testing.assert_array_equal(queries[0], expected[0])


def test_no_targets():
    assert assigned(np.zeros((2, 5, 0), np.float32), np.zeros((2, 0), bool)).shape == (2, 0)
    costs = np.random.default_rng(3).normal(size=(2, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(assigned(costs, np.zeros((2, 3), bool)), np.full((2, 3), -1))


def test_more_targets_than_queries_are_refused():
    with pytest.raises(ValueError, match="4 targets for 3 queries"):
        linear_assignment(jnp.zeros((1, 3, 4)), jnp.ones((1, 4), bool))
    with pytest.raises(ValueError, match="valid has shape"):
        linear_assignment(jnp.zeros((1, 4, 3)), jnp.ones((1, 4), bool))


def test_within_a_gradient_and_without_a_host():
    costs = np.random.default_rng(4).uniform(size=(2, 6, 4)).astype(np.float32)
    valid = np.ones((2, 4), bool)

    def loss(costs):
        queries = linear_assignment(costs, valid)
        return jnp.sum(jnp.take_along_axis(costs, queries[:, None], axis=1))

    gradient = np.asarray(jax.jit(jax.grad(loss))(costs))
    queries = np.asarray(assigned(costs, valid))
    expected = np.zeros_like(costs)
    for b in range(2):
        expected[b, queries[b], np.arange(4)] = 1
    np.testing.assert_array_equal(gradient, expected)
    assert "callback" not in str(jax.make_jaxpr(linear_assignment)(costs, valid))


def test_a_batch_over_devices_is_assigned_as_on_one():
    costs = np.random.default_rng(5).uniform(size=(16, 9, 6)).astype(np.float32)
    valid = np.random.default_rng(6).uniform(size=(16, 6)) < 0.8
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    queries = jax.jit(linear_assignment)(jax.device_put(costs, sharding), jax.device_put(valid, sharding))
    np.testing.assert_array_equal(queries, assigned(costs, valid))
