"""What every optimizer of the table keeps to: optax's steps, a state laid out as the parameters, its traits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.trees import flat, optimizer, quadratic, train, vit_params
from jax.sharding import PartitionSpec
from optax import contrib

from jaxformer.config.schema import problems
from jaxformer.optim import OPTIMIZERS
from jaxformer.optim.build import make_optimizer
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.paths import leaves_by_path
from jaxformer.state import init_state

RATE = 0.01
OPTAX = {
    "sgd": lambda: optax.sgd(RATE),
    "momentum": lambda: optax.sgd(RATE, momentum=0.9),
    "adam": lambda: optax.adam(RATE),
    "adamw": lambda: optax.adamw(RATE, weight_decay=0.0),
    "adafactor": lambda: optax.adafactor(RATE),
    "lion": lambda: optax.lion(RATE, weight_decay=0.0),
    "lamb": lambda: optax.lamb(RATE),
    "muon": lambda: optax.partition(  # optax's own Adam beside it is NAdam
        {"kernel": contrib.muon(RATE, consistent_rms=0.2), "bias": optax.adam(RATE, b2=0.95)},
        {"mlp": {"up": {"kernel": "kernel", "bias": "bias"}}},
    ),
    "schedule_free": lambda: contrib.schedule_free_adamw(RATE, b1=0.9, weight_decay=0.0),
    "prodigy": lambda: contrib.prodigy(RATE),
    "sophia": lambda: contrib.sophia(RATE, weight_decay=0.0),
}


def small():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (6, 4), "bias": (4,)}
    return {"mlp": {"up": {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}}}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_optaxs(name):
    ours, _ = train(optimizer(name, learning_rate=RATE), small(), quadratic, steps=4)
    params, tx = small(), OPTAX[name]()
    their_state = tx.init(params)
    for _ in range(4):
        updates, their_state = tx.update(jax.grad(quadratic)(params), their_state, params, obj_fn=quadratic)
        params = optax.apply_updates(params, updates)
    for path, value in flat(params).items():
        np.testing.assert_allclose(flat(ours)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_lies_as_the_parameters_do(name):
    params = vit_params()
    tx = make_optimizer(optimizer(name), optax.constant_schedule(RATE), params)
    state = jax.eval_shape(lambda: init_state({"params": params}, tx))
    layout = Layout("jit", make_mesh({"fsdp": 4, "tensor": 2}))
    shardings, shapes = layout.shardings(state), leaves_by_path(state.opt_state)
    where = {path: sharding.spec for path, sharding in leaves_by_path(shardings.params).items()}
    found = 0
    for path, sharding in leaves_by_path(shardings.opt_state).items():
        of = max((p for p in where if path.endswith(f"/{p}")), key=len, default=None)
        if of is not None and shapes[path].shape == leaves_by_path(params)[of].shape:
            found += 1
            assert sharding.spec == where[of], path
    assert any(spec != PartitionSpec() for spec in where.values())
    assert found > 0 or name == "sgd"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_evaluated_is_trained_unless_it_averages(name):
    config = optimizer(name, learning_rate=RATE)
    params, state = train(config, small(), quadratic, steps=3)
    evaluated = config.eval_params(state, params)
    same = all(np.array_equal(flat(params)[path], value) for path, value in flat(evaluated).items())
    assert same == (not config.averages)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_optimizers_name_the_same_problems(name):
    config = type(optimizer(name))
    found = problems(config(learning_rate=-1.0, clip_norm=0.0, freeze=("(",), layer_decay=2.0, l1=-1.0))
    assert [line.split("=")[0] for line in found] == [
        "learning_rate", "clip_norm", "freeze[0]", "layer_decay", "l1"
    ]  # fmt: skip
    assert not list(problems(optimizer(name)))
