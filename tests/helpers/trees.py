"""Small parameter trees with the names that models give, and shorthands for one step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxformer.config import schema
from jaxformer.config.durations import Duration
from jaxformer.optim import OPTIMIZERS, SCHEDULES
from jaxformer.optim.build import make_optimizer

LAYERS, WIDTH, HEADS, HIDDEN, CLASSES = 3, 8, 2, 12, 5


def config(table, **fields):
    """A config through the schema, as a config file gives it."""
    errors = []
    value = schema.convert_choice(schema.Choices(table), fields, "x", errors)
    assert not errors, errors
    return value


def optimizer(name, learning_rate=0.1, **fields):
    return config(OPTIMIZERS, name=name, learning_rate=learning_rate, **fields)


def schedule(name, **fields):
    return config(SCHEDULES, name=name, **fields)


def to_steps(total):
    """100 examples an epoch, in batches of 10."""
    return lambda duration: duration.steps(batch_size=10, epoch_examples=100, total_steps=total)


def duration(text):
    return Duration.parse(text)


def vit_params(seed=0, layers=LAYERS):
    """Most of the parameters that a ViT has, unrolled."""
    rng = np.random.default_rng(seed)
    head = WIDTH // HEADS

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def affine(*shape, bias):
        return {"kernel": normal(*shape), "bias": normal(*bias)}

    def block():
        return {
            "norm_1": {"scale": normal(WIDTH)},
            "attention": {
                "query": affine(WIDTH, HEADS, head, bias=(HEADS, head)),
                "out": affine(HEADS, head, WIDTH, bias=(WIDTH,)),
            },
            "mlp": {"up": affine(WIDTH, HIDDEN, bias=(HIDDEN,))},
        }

    return {
        "patch_embedding": affine(2, 2, 3, WIDTH, bias=(WIDTH,)),
        "class_token": normal(1, 1, WIDTH),
        "position_embedding": normal(1, 5, WIDTH),
        "encoder": {f"block_{i}": block() for i in range(layers)},
        "norm": {"scale": normal(WIDTH)},
        "head": affine(WIDTH, CLASSES, bias=(CLASSES,)),
    }


def stack(params):
    """The same parameters with the blocks in one stack."""
    blocks = [params["encoder"][f"block_{i}"] for i in range(len(params["encoder"]))]
    return {**params, "encoder": {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *blocks)}}


def flat(tree):
    """Path -> NumPy array."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(k.key for k in path): np.asarray(leaf) for path, leaf in leaves}


def train(config, params, loss, steps=1, rate=None):
    """Parameters and state after some steps, jitted; `rate`: learning rate by step, else constant."""
    tx = make_optimizer(config, rate or optax.constant_schedule(config.learning_rate), params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
        return optax.apply_updates(params, updates), state

    state = jax.jit(tx.init)(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def update(config, params, gradients, rate=None):
    """The updates of one step for given gradients."""
    tx = make_optimizer(config, rate or optax.constant_schedule(config.learning_rate), params)
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(gradients, params)


def quadratic(params):
    """Half the squared length of all parameters, whose gradient is the parameters."""
    return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(params)) / 2
