"""Takes train steps on any layout, and compares trees of gradients."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxformer.models.base import replaced
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.state import init_state
from jaxformer.step import make_train_step


class State(NamedTuple):
    """What `train_step` asks of a train state."""

    params: Any


def take_steps(
    batch,
    *,
    model,
    task,
    variables,
    mode="jit",
    mesh=None,
    devices=8,
    optimizer=None,
    count=1,
    losses=None,
    **kwargs,
):
    """The state before and after `count` steps, and the last metrics; a list takes the losses of all steps."""
    layout = Layout(mode, make_mesh(mesh or {"data": -1}, jax.devices()[:devices]))
    optimizer = optax.with_extra_args_support(optimizer or optax.sgd(1.0))
    state_kwargs = {"with_average": "average" in kwargs, "with_loss_scale": kwargs.pop("loss_scale", False)}
    before = jax.device_get(init_state(variables, optimizer, **state_kwargs))
    state = jax.device_put(before, layout.shardings(before))
    model = replaced(model, axis_name=layout.axis)
    step = layout.train_step(
        make_train_step(model, task, optimizer, seed=0, axis=layout.axis, **kwargs), state
    )
    for _ in range(count):
        state, metrics = step(state, layout.shard_batch(batch))
        if losses is not None:
            losses.append(float(metrics["loss"]))
    return before, state, jax.device_get(metrics)


def gradient_of(before, state):
    """One SGD step with a learning rate of 1 moves the parameters by their gradient."""
    return jax.tree.map(lambda old, new: old - np.asarray(new), before.params, state.params)


def assert_close(found, expected, relative):
    """Leaf by leaf, the difference's norm against the leaf's, or against a hundredth of the whole tree's.

    (A key's bias has no gradient, because softmax does not see it: what is computed for it is rounding.)
    """
    floor = 1e-2 * float(optax.tree.norm(expected))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected)):
        error = np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), floor)
        assert error < relative, f"{jax.tree_util.keystr(path)}: {error:.2e}"
