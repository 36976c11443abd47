"""Rematerialisation changes memory and nothing else; stochastic depth keeps its expectation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_params
from jax.extend.core import jaxprs_in_params

from jaxformer.models.block import Block
from jaxformer.models.dropout import drop_path
from jaxformer.models.stack import REMAT_POLICIES, Stack

BLOCK = {"num_heads": 2, "mlp_dim": 24}


def tokens(batch=2):
    return np.random.default_rng(0).normal(size=(batch, 5, 16)).astype(np.float32)


def loss_of(stack):
    def loss(params, x):
        return jnp.sum(jnp.sin(stack.apply({"params": params}, x, True)[0]))

    return jax.value_and_grad(loss)


def primitives(jaxpr):
    """Names of the primitives in a jaxpr and in all jaxprs inside it."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for inner in jaxprs_in_params(equation.params):
            names |= primitives(inner)
    return names


@pytest.fixture(scope="module", params=[False, True], ids=["unrolled", "scanned"])
def plain(request):
    """scan, parameters, and the loss and gradients without rematerialisation."""
    stack = Stack(Block, BLOCK, depth=2, scan=request.param)
    params = random_params(stack, tokens(), True)
    return request.param, params, jax.jit(loss_of(stack))(params, tokens())


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_remat_changes_no_value_and_no_gradient(plain, policy):
    scan, params, (expected, gradients) = plain
    stack = Stack(Block, BLOCK, depth=2, remat=policy, scan=scan)
    loss, ours = jax.jit(loss_of(stack))(params, tokens())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, gradients)


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_remat_is_on_exactly_when_asked_for(scan):
    found = {}
    for policy in ("none", *REMAT_POLICIES):
        stack = Stack(Block, BLOCK, depth=2, remat=policy, scan=scan)
        params = random_params(stack, tokens(), True)
        jaxpr = jax.make_jaxpr(loss_of(stack))(params, tokens()).jaxpr
        found[policy] = any("dot_general" in primitives(inner) for inner in recomputed_parts(jaxpr))
    assert [policy for policy, recomputes in found.items() if recomputes] == [*REMAT_POLICIES]


def recomputed_parts(jaxpr):
    """The jaxprs that the backward pass computes again: blocks with `remat`, norms and activations always."""
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            if equation.primitive.name in {"remat", "remat2", "checkpoint"}:
                yield inner
            else:
                yield from recomputed_parts(inner)


def test_drop_path_keeps_the_expectation():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 2, 3)), jnp.float32)
    y = jax.jit(drop_path)(x, 0.3, jax.random.key(0))
    dropped = jnp.all(y == 0, axis=(1, 2))
    kept = np.asarray(~dropped)
    np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-5)  # a whole example, or nothing of it
    assert abs(float(jnp.mean(dropped)) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    ones = jax.jit(drop_path)(jnp.ones((4000, 1)), 0.3, jax.random.key(1))
    assert abs(float(jnp.mean(ones)) - 1.0) < 4 * np.sqrt(0.3 / 0.7 / 4000)


def test_drop_path_of_rate_zero_is_the_identity():
    x = jnp.asarray(tokens())
    np.testing.assert_array_equal(jax.jit(drop_path)(x, 0.0, jax.random.key(0)), x)


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_drop_path_in_a_stack(scan):
    """Off when deterministic, on otherwise; the rate is 0 in the first block and the field's in the last."""
    x = tokens(batch=64)
    without = Stack(Block, BLOCK, depth=2, scan=scan)
    params = random_params(without, x, True)
    expected = jax.jit(without.apply, static_argnums=2)({"params": params}, x, True)[0]
    stack = Stack(Block, BLOCK, depth=2, drop_path=0.999, scan=scan)
    still = jax.jit(stack.apply, static_argnums=2)({"params": params}, x, True)[0]
    np.testing.assert_allclose(still, expected, rtol=1e-5, atol=1e-5)

    rngs = {"dropout": jax.random.key(3)}
    dropped = jax.jit(lambda p, x: stack.apply({"params": p}, x, False, rngs=rngs)[0])(params, x)
    block = jax.tree.map(lambda leaf: leaf[0], params["blocks"]) if scan else params["block_0"]
    first = Stack(Block, BLOCK, depth=1)
    after_first = jax.jit(first.apply, static_argnums=2)({"params": {"block_0": block}}, x, True)[0]
    # Nearly every example has lost both branches of the last block, and none of the first.
    assert np.isclose(dropped, after_first, rtol=1e-4, atol=1e-4).all(axis=(1, 2)).mean() > 0.9
    assert not np.isclose(expected, after_first, rtol=1e-4, atol=1e-4).all(axis=(1, 2)).any()
