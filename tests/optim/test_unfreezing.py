"""Gradual unfreezing: what waits stands still, bit for bit, and begins as a training does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.trees import flat, optimizer, quadratic, vit_params

from jaxformer.config.durations import Duration
from jaxformer.optim.build import make_optimizer, optimizer_problems
from jaxformer.optim.unfreezing import unfreezing_problems

RULES = [["encoder/block_1", "2 steps"], ["(encoder|patch_embedding)", "4 steps"]]


def to_steps(duration: Duration) -> int:
    return duration.steps(batch_size=1, epoch_examples=3)


def history(config, params, steps, rate=None):
    """The parameters before each of some steps, and after the last."""
    tx = make_optimizer(config, rate or optax.constant_schedule(0.1), params, to_steps)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(quadratic)(params), state, params, obj_fn=quadratic)
        return optax.apply_updates(params, updates), state

    found, state = [flat(params)], jax.jit(tx.init)(params)
    for _ in range(steps):
        params, state = step(params, state)
        found.append(flat(params))
    return found


@pytest.mark.parametrize("name", ["adamw", "muon", "sophia"])
def test_groups_begin_when_the_config_says(name):
    found = history(optimizer(name, unfreeze=RULES, weight_decay=0.1, clip_norm=1.0), vit_params(), 5)
    first = {
        path: next((i for i in range(5) if (found[i + 1][path] != found[i][path]).any()), None)
        for path in found[0]
    }
    for path, step in first.items():
        wanted = (
            2 if path.startswith("encoder/block_1/") else 4 if path.startswith(("encoder", "patch")) else 0
        )
        assert step == wanted, path


def test_a_group_begins_as_a_training_does_but_for_its_rate():
    params = {"head": {"kernel": jnp.array([3.0])}, "encoder": {"kernel": jnp.array([2.0, -1.0])}}
    rate = optax.linear_schedule(0.1, 0.0, 10)
    late = history(optimizer("adamw", unfreeze=[["encoder", "1 epoch"]]), params, 6, rate)
    alone = history(optimizer("adamw"), {"encoder": params["encoder"]}, 3, lambda count: rate(count + 3))
    whole = history(optimizer("adamw"), {"head": params["head"]}, 6, rate)
    for i in range(4):
        np.testing.assert_allclose(late[3 + i]["encoder/kernel"], alone[i]["encoder/kernel"], rtol=1e-6)
    np.testing.assert_allclose(late[6]["head/kernel"], whole[6]["head/kernel"], rtol=1e-6)


def test_what_waits_does_not_count_in_the_norm():
    params = {"head": {"kernel": jnp.array([3.0, 4.0])}, "encoder": {"kernel": jnp.array([1e6])}}
    config = optimizer("sgd", learning_rate=1.0, clip_norm=1.0, unfreeze=[["encoder", "1 step"]])
    found = history(config, params, 1, optax.constant_schedule(1.0))
    np.testing.assert_allclose(found[0]["head/kernel"] - found[1]["head/kernel"], [0.6, 0.8], rtol=1e-6)


def test_what_does_not_fit_is_told():
    params = vit_params()

    def told(*rules, name="adamw"):
        config = optimizer(name, unfreeze=rules)
        return [*optimizer_problems(config, params), *unfreezing_problems(config, params, 6, to_steps)]

    assert not told(["encoder", "1 epoch"])
    assert "takes no parameter" in told(["encodr", "1 step"])[0]
    assert "never moves" in told(["encoder", "2 epochs"])[0]
    assert "nothing would move before step 3" in told([".*", "1 epoch"])[0]
    with pytest.raises(AssertionError, match="unfreeze: this optimizer averages all parameters"):
        optimizer("schedule_free", unfreeze=[["encoder", "1 step"]])
