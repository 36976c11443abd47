"""Mixtures of experts: who goes where, what comes back, what the router is taught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_params
from helpers.tiny_text import TINY, close, jitted, texts

from jaxformer.models.gpt import GPT
from jaxformer.models.mlp import ExpertMlp, Experts, Mlp, route

COUNT, WIDTH = 3, 8
ROOM = 3.0  # with this capacity an expert has a place for every token


def tokens(batch=2, length=5, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, length, WIDTH)), jnp.float32)


def module(top_k=2, capacity=ROOM, activation="swiglu", **fields):
    return ExpertMlp(Experts(COUNT, top_k, capacity, **fields), 12, activation)


def test_places_are_an_even_share_times_the_capacity():
    assert Experts(4, top_k=1, capacity=1.25).places(8) == 3  # 2.5, rounded up
    assert Experts(4, top_k=2, capacity=1.0).places(8) == 4
    assert Experts(64, top_k=1, capacity=1.0).places(3) == 1
    assert Experts(2, top_k=2, capacity=4.0).places(6) == 6  # never more than there are tokens


ROUTED = np.array([[[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3]]], np.float32)


def test_first_come_first_served_and_first_choices_before_second_ones():
    """One place each. Expert 1 is token 1's first choice, before token 2's, and before token 0's second one."""
    config = Experts(3, top_k=2, capacity=0.5)
    assert config.places(3) == 1
    experts, places, weights = route(ROUTED, np.ones((1, 3), bool), config)
    np.testing.assert_array_equal(experts[0], [[0, 1], [1, 0], [1, 2]])
    np.testing.assert_array_equal(places[0], [[0, 1], [0, 1], [1, 0]])  # 1 is no place
    expected = [[0.6 / 0.9, 0], [0.7 / 0.9, 0], [0, 0.3 / 0.9]]
    np.testing.assert_allclose(weights[0], expected, rtol=1e-6)


def test_padding_takes_no_place():
    valid = np.array([[True, False, True]])
    _, places, weights = route(ROUTED, valid, Experts(3, top_k=2, capacity=0.5))
    np.testing.assert_array_equal(places[0], [[0, 1], [1, 1], [0, 0]])
    np.testing.assert_allclose(weights[0], [[0.6 / 0.9, 0], [0, 0], [0.6 / 0.9, 0.3 / 0.9]], rtol=1e-6)


def test_one_choice_keeps_the_routers_probability():
    experts, places, weights = route(ROUTED, np.ones((1, 3), bool), Experts(3, top_k=1, capacity=1.0))
    np.testing.assert_array_equal(experts[0, :, 0], [0, 1, 1])
    np.testing.assert_array_equal(places[0, :, 0], [0, 0, 1])
    np.testing.assert_allclose(weights[0, :, 0], [0.6, 0.7, 0], rtol=1e-6)


@pytest.mark.parametrize("activation", ["gelu_tanh", "swiglu"])
def test_equal_experts_are_one_mlp(activation):
    x = tokens()
    experts = module(activation=activation)
    params = random_params(experts, x)
    one = {name: value[:1] for name, value in params.items() if name != "router"}
    equal = {name: np.repeat(value, COUNT, axis=0) for name, value in one.items()}
    mlp = {name.removesuffix("_kernel"): {"kernel": value[0]} for name, value in one.items()}
    y, _ = jitted(experts, {**equal, "router": params["router"]})(x)
    expected = jitted(Mlp(12, activation, use_bias=False), mlp)(x)
    close(y, expected)

    switch, _ = jitted(module(1, activation=activation), {**equal, "router": params["router"]})(x)
    likeliest = jax.nn.softmax(x @ params["router"]).max(axis=-1, keepdims=True)
    close(switch, likeliest * expected)


@pytest.mark.parametrize("top_k", [1, 2])
def test_every_token_gets_what_its_own_experts_say(top_k):
    """Expert by expert and token by token, with plain MLPs; those without a place get nothing."""
    x, valid = tokens(2, 6), np.array([[True] * 6, [True] * 4 + [False] * 2])
    model = module(top_k, capacity=0.6)
    params = random_params(model, x, scale=0.5)
    chosen, places, weights = route(jax.nn.softmax(x @ params["router"]), valid, model.config)
    room = model.config.places(6)
    assert room < 4
    assert (np.asarray(places)[valid] == room).any()  # some find no place
    each = [
        jitted(Mlp(12, "swiglu", use_bias=False), {
            name: {"kernel": params[f"{name}_kernel"][e]} for name in ("up", "gate", "down")
        })(x)
        for e in range(COUNT)
    ]  # fmt: skip
    expected = np.zeros_like(x)
    for row, token, choice in np.ndindex(chosen.shape):
        if valid[row, token] and places[row, token, choice] < room:
            expert = int(chosen[row, token, choice])
            expected[row, token] += weights[row, token, choice] * each[expert][row, token]
    y, _ = jitted(model, params)(x, valid)
    close(y, expected)


def test_a_router_that_sees_no_difference_loses_1():
    """Fedus et al. 2022, after equation 4; the z-loss is then the square of log E."""
    x = tokens()
    model = module(balance=0.3, z=0.2)
    params = {**random_params(model, x), "router": np.zeros((WIDTH, COUNT), np.float32)}
    _, losses = jitted(model, params)(x)
    np.testing.assert_allclose(losses.balance, [0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(losses.z, [0.2 * np.log(COUNT) ** 2] * 2, rtol=1e-6)


def test_losses_are_the_papers():
    """Fedus et al. 2022, equations 4 to 6, and Zoph et al. 2022, equation 5, with loops; padding does not count."""
    x, valid = tokens(2, 6), np.array([[True] * 6, [True] * 4 + [False] * 2])
    model = module(1, balance=0.3, z=0.2)
    params = random_params(model, x)
    _, losses = jitted(model, params)(x, valid)
    for row in range(2):
        real = [np.asarray(x[row, t], np.float64) @ params["router"] for t in range(6) if valid[row, t]]
        softmax = [np.exp(logits) / np.exp(logits).sum() for logits in real]
        balance = 0.0
        for expert in range(COUNT):
            sent = np.mean([p.argmax() == expert for p in softmax])
            balance += COUNT * sent * np.mean([p[expert] for p in softmax])
        z = np.mean([np.log(np.exp(logits).sum()) ** 2 for logits in real])
        np.testing.assert_allclose([losses.balance[row], losses.z[row]], [0.3 * balance, 0.2 * z], rtol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_batch_in_parts_gives_the_same(top_k):
    """Places and losses are each sequence's own, so that microbatches and devices add up."""
    x = tokens(3)
    model = module(top_k, capacity=0.7)
    apply = jitted(model, random_params(model, x))
    y, losses = apply(x)
    for row in range(3):
        alone, of_row = apply(x[np.array([row] * 3)])
        close(alone[0], y[row])
        close(of_row.balance[0], losses.balance[row])
        close(of_row.z[0], losses.z[row])


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_task_and_the_losses_teach_the_router_and_idle_experts_learn_nothing(top_k):
    x = tokens().at[..., 0].set(5.0)
    model = module(top_k, balance=1.0, z=1.0)
    params = random_params(model, x)
    params["router"][0] = [0.0, 0.2, -2.0]  # nobody goes to expert 2

    def gradients(of):
        return jax.jit(jax.grad(lambda p: jnp.sum(of(*model.apply({"params": p}, x)))))(params)

    by_task = gradients(lambda y, losses: jnp.sin(y))
    for name in ("up_kernel", "gate_kernel", "down_kernel"):
        assert np.abs(by_task[name][:2]).max(axis=(1, 2)).min() > 1e-4
        assert not by_task[name][2].any()
    assert np.abs(by_task["router"]).max() > 1e-4
    for loss in (lambda y, losses: losses.balance, lambda y, losses: losses.z):
        found = gradients(loss)
        assert np.abs(found["router"]).max() > 1e-6
        assert not any(found[name].any() for name in found if name != "router")


def test_packed_rows_do_not_route_their_padding():
    """Padding is where no token mask says so, but the segment is 0."""
    model = GPT(**TINY, experts=Experts(3, top_k=1, capacity=1.0, balance=1.0))
    segments = np.array([[1, 1, 1, 2, 2, 0, 0, 0]], np.int32)
    positions = np.array([[0, 1, 2, 0, 1, 0, 0, 0]], np.int32)
    row, other = texts(1, 8), texts(1, 8)
    other[0, 5:] = (other[0, 5:] + 3) % 13
    apply = jitted(model, random_params(model, row))
    one, same, masked = (
        apply(row, segment_ids=segments, positions=positions),
        apply(other, segment_ids=segments, positions=positions),
        apply(row, token_mask=segments > 0, segment_ids=segments, positions=positions),
    )
    for outputs in (same, masked):
        close(outputs.logits[:, :5], one.logits[:, :5])
        close(outputs.router.balance, one.router.balance)
        close(outputs.router.z, one.router.z)
    assert one.router.balance.shape == (1,)
    assert GPT(**TINY).apply({"params": random_params(GPT(**TINY), row)}, row).router is None
