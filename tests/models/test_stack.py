"""Rematerialisation changes memory and nothing else; stochastic depth keeps its expectation."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_params
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from jaxformer.models.block import Block
from jaxformer.models.dropout import drop_path
from jaxformer.models.remat import REMAT_POLICIES
from jaxformer.models.stack import Stack

BLOCK = {"num_heads": 2, "mlp_dim": 24}


def tokens(batch=2):
    return np.random.default_rng(0).normal(size=(batch, 5, 16)).astype(np.float32)


def loss_of(stack):
    def loss(params, x):
        return jnp.sum(jnp.sin(stack.apply({"params": params}, x, True)[0]))

    return jax.value_and_grad(loss)


def names(jaxpr):
    """How often a jaxpr, and all jaxprs inside it, have each primitive."""
    found = Counter(equation.primitive.name for equation in jaxpr.eqns)
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            found += names(inner)
    return found


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


# How many of a block's eight products each policy computes again: query, key, value, attention's two, out, up and down.
# Nothing reads the last one backwards.
AGAIN = {"none": 0, "dots": 0, "offload": 0, "dots_without_batch": 2, "attention": 5, "full": 7}


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_each_policy_computes_the_products_again_that_it_does_not_keep(policy, scan):
    stack = Stack(Block, BLOCK, depth=2, remat=policy, scan=scan)
    without = Stack(Block, BLOCK, depth=2)
    extra = products(stack) - products(without) // (2 if scan else 1)
    assert extra == AGAIN[policy] * (1 if scan else 2)


def products(stack):
    """How many products the loss and its gradients have; in a scan those of one layer."""
    params = random_params(stack, tokens(), True)
    return names(jax.make_jaxpr(loss_of(stack))(params, tokens()).jaxpr)["dot_general"]


def test_on_tpus_a_scanned_layer_keeps_no_norm_and_no_activation():
    """Beside the tokens that go in, what five dense layers and attention give; nothing reads the last one's."""
    stack = Stack(Block, BLOCK, depth=3, scan=True)
    params = random_params(stack, tokens(), True)
    device = AbstractDevice("TPU v5 lite", None, "tpu")
    tpu = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(tpu):
        jaxpr = jax.make_jaxpr(loss_of(stack))(params, tokens()).jaxpr
    forward = next(equation for equation in jaxpr.eqns if equation.primitive.name == "scan")
    shapes = [out.aval.shape for out in forward.outvars if out.aval.size >= 3 * tokens().size]
    narrow, wide, heads = (3, 2, 5, 16), (3, 2, 5, 24), (3, 2, 2, 5, 8)
    assert sorted(shapes) == sorted([narrow] * 5 + [wide, heads])


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
