"""Numbers of a config as inputs of a program: one for all of them, which gives what constants would give."""

from dataclasses import dataclass, fields, replace
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.numbered import assert_inputs, numbered
from helpers.tiny_models import inputs_of, tiny_model
from helpers.tiny_tasks import EVERY, outputs_of, params_of
from helpers.trees import optimizer, quadratic, schedule, to_steps

from jaxformer.config.fields import Input, Rate, left_out
from jaxformer.models import MODELS
from jaxformer.numbers import Kept, numbers_of
from jaxformer.optim import OPTIMIZERS, SCHEDULES
from jaxformer.optim.build import make_optimizer
from jaxformer.optim.optimizers import AdamW
from jaxformer.optim.schedule import make_schedule

RULES = {"weight_decay": 0.1, "clip_norm": 1.0, "clip_value": 0.5, "agc": 0.05, "layer_decay": 0.8}


def three_steps(config, params):
    """Parameters and state after three steps with all rules."""
    tx = make_optimizer(config, optax.constant_schedule(config.learning_rate), params)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(quadratic)(params), state, params, obj_fn=quadratic)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=3)
    return params, config.eval_params(state, params)


def parameters():
    """Two layers in a stack, and a head."""
    normal = np.random.default_rng(0).normal
    up = {"kernel": normal(size=(2, 6, 4)), "bias": normal(size=(2, 4))}
    tree = {"encoder": {"blocks": {"mlp": {"up": up}}}, "head": {"kernel": normal(size=(4, 5))}}
    return jax.tree.map(jnp.float32, tree)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_numbers_are_inputs(name):
    rules = {key: value for key, value in RULES.items() if (name, key) != ("adam", "weight_decay")}
    assert_inputs(optimizer(name, learning_rate=0.01, **rules), three_steps, parameters(), rtol=1e-6)


SETTINGS = {
    "constant": {},
    "step": {"drops": ("30 steps", "60 steps")},
    "inverse_sqrt": {"timescale": "20 steps"},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_numbers_are_inputs(name):
    def rates(config):
        rate = make_schedule(config, 0.3, 100, to_steps(100))
        return jnp.stack([rate(step) for step in range(0, 104, 4)])

    config = schedule(name, warmup="10 steps", cooldown="20 steps", final=0.1, **SETTINGS.get(name, {}))
    assert_inputs(config, rates, rtol=1e-6)


ON = {"label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0, "z_loss": 0.01, "dice": 0.5, "lovasz": 2.0}
WITHOUT = {"compared", "numbers", "spans", "pairs", "pairs, sigmoid"}  # tasks without such a number


def with_all(part, numbers):
    """The part with these numbers in the fields that it has."""
    return replace(part, **{f.name: numbers[f.name] for f in fields(part) if f.name in numbers})


@pytest.mark.parametrize("name", EVERY)
def test_a_tasks_numbers_are_inputs(name):
    case, task = EVERY[name], with_all(EVERY[name].task, ON)
    if name in WITHOUT:
        assert not numbers_of(task)
        return

    def losses(task, params, batch, key):
        batch = task.augment(key, batch)
        return task.loss(outputs_of(replace(case, task=task), params, batch), batch), task.counts(batch)

    assert_inputs(task, losses, params_of(name), case.batch(4), jax.random.key(0), rtol=1e-6)


RATES = ("dropout", "attention_dropout", "mlp_dropout", "drop_path", "box_noise", "label_noise")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_models_rates_may_be_traced(name):
    bare = tiny_model(name)
    model = tiny_model(name, **{f.name: 0.1 for f in fields(bare) if f.name in RATES})

    def trained(model, inputs):
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        return model.init_with_output(keys, **inputs, deterministic=False)

    jax.eval_shape(numbered(model, trained), numbers_of(model), inputs_of(model))
    assert len(numbers_of(model)) >= sum(f.name in RATES for f in fields(bare))


def test_what_is_kept_and_its_rest_are_each_rounded_once():
    numbers = numbers_of(optimizer("adamw", b2=0.999))
    kept = jax.tree.map(jnp.asarray, numbers["b2"])
    assert isinstance(kept, Kept)
    assert np.float32(1 - kept) == np.float32(0.001) != np.float32(1) - np.float32(0.999)
    step = jnp.int32(3)
    for ours, plain in ((kept * step, 0.999 * step), (kept**step, 0.999**step), (step / kept, step / 0.999)):
        assert ours == plain
        assert ours.weak_type == plain.weak_type


def test_zero_and_none_are_constants_where_they_leave_something_out():
    numbers = numbers_of(optimizer("adamw", weight_decay=0.0, clip_norm=None, l2=0.0))
    assert numbers.keys() == {"learning_rate", "b1", "b2", "eps"}
    assert numbers_of(schedule("cosine"))["final"] == 0.0
    assert left_out(0.0)
    assert left_out(None)
    assert not left_out(0.1)
    assert not jax.jit(lambda x: jnp.float32(left_out(x)))(0.0)


@dataclass(frozen=True)
class Own(AdamW):
    """An optimizer of a user's own, which asks Python about a number that it inherits."""

    half_life: Annotated[float, "steps"] = 10.0
    shrink: Input[Rate] = 0.5

    def direction(self):
        return optax.scale(self.shrink) if self.b1 > 0.5 else optax.identity()


def test_a_class_of_a_users_own_has_the_inputs_that_it_marks():
    own = Own(learning_rate=0.1, weight_decay=0.1)
    assert numbers_of(own) == {"shrink": 0.5}
    assert_inputs(own, three_steps, parameters(), rtol=1e-6)
