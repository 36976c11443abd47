"""An optimizer and a schedule of a user's own, in one file that the config names; no table knows them."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.trees import quadratic, train

from jaxformer.analysis.optimization import describe_rules
from jaxformer.config import files, schema, sections
from jaxformer.config.fields import Rate
from jaxformer.errors import ConfigError
from jaxformer.optim.base import Optimizer
from jaxformer.optim.schedule import Schedule, make_schedule


@dataclass(frozen=True)
class SignDescent(Optimizer):
    """The direction is the sign of the gradient, times a share."""

    share: Rate = 0.5
    """The share."""

    def direction(self):
        return optax.stateless(lambda g, params: jax.tree.map(lambda x: self.share * jnp.sign(x), g))


@dataclass(frozen=True)
class Halves(Schedule):
    """The whole rate, then half of it."""

    def curve(self, spans, to_steps):
        return lambda step: jnp.where(step < spans.curve // 2, 1.0, 0.5)


@dataclass(frozen=True)
class NoOptimizer:
    """It lacks what an optimizer has."""

    learning_rate: float = 0.1
    no_decay: tuple = field(default=())


def resolved(**changes):
    config = files.read("vit_digits", [])
    own = {"name": f"{__name__}:SignDescent", "learning_rate": 0.1, "freeze": ["head"]}
    return sections.resolve({**config, "optimizer": own, "schedule": f"{__name__}:Halves", **changes})


def test_a_config_names_them_and_they_train():
    config = resolved()
    assert schema.to_dict(config)["optimizer"]["name"] == f"{__name__}:SignDescent"
    rate = make_schedule(config.schedule, 0.1, 10, lambda duration: 0)
    np.testing.assert_allclose([rate(0), rate(9)], [0.1, 0.05])
    params = {"up": {"kernel": jnp.full((2, 2), 3.0)}, "head": {"kernel": jnp.full((2, 2), 3.0)}}
    moved, _ = train(config.optimizer, params, quadratic, steps=2)
    np.testing.assert_allclose(moved["up"]["kernel"], np.full((2, 2), 3.0 - 2 * 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(moved["head"]["kernel"], params["head"]["kernel"])
    assert "frozen" in describe_rules(config.optimizer, params)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            {"name": f"{__name__}:SignDescent", "learning_rate": 0.1, "share": 1.0},
            "optimizer.share=1.0: expected",
        ),
        (
            {"name": f"{__name__}:SignDescent", "agc": 0.0, "learning_rate": 0.1},
            "optimizer.agc=0.0: expected",
        ),
        ({"name": f"{__name__}:NoOptimizer"}, "jaxformer/optim/base.py describes the contract"),
        ({"name": f"{__name__}:Halves"}, "lacks learning_rate"),
    ],
)
def test_what_does_not_fit_is_named(optimizer, message):
    with pytest.raises(ConfigError) as caught:
        resolved(optimizer=optimizer)
    assert message in str(caught.value)
