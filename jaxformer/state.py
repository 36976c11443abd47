"""The train state: everything that a step reads and writes, as one value."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxformer.errors import UserError
from jaxformer.precision import LossScale

Tree = Any


@struct.dataclass
class TrainState:
    """The input and output of a train step. No random key is in it: keys derive from (seed, step)."""

    step: jax.Array
    """Int32 [], train steps taken, skipped ones included."""
    params: Tree
    """The parameters, a tree of arrays."""
    model_state: Tree
    """The model's other collections, such as {"batch_stats": ...}; {} for most Transformers."""
    opt_state: Tree
    """The optimizer's state."""
    average: Tree
    """The averaged parameters, which are evaluated if there are any (an exponential moving average, or that of a
    schedule-free optimizer), or None."""
    loss_scale: LossScale | None
    """The dynamic loss scale (float16), or None."""
    skipped: jax.Array
    """Int32 [], updates that were skipped because a gradient was not finite."""
    skipped_in_a_row: jax.Array
    """Int32 [], how many of the latest updates were skipped without a good one between."""

    def variables(self) -> dict[str, Tree]:
        """The variables to evaluate with: the averaged parameters where there are any."""
        return eval_variables(to_items(self))


def check_state(state: Any) -> None:
    """Raises UserError for what is no train state."""
    if not isinstance(state, TrainState):
        expected = "expected a train state, as experiment.init_state() and a train step give"
        raise UserError(f"state={state!r}: {expected}")


def init_variables(model: nn.Module, inputs: Mapping[str, Any], key: jax.Array) -> dict[str, Tree]:
    """The model's fresh variables.

    Args:
      model: a linen module.
      inputs: the model's keyword arguments; only shapes and dtypes matter.
      key: a random key.
    """
    return dict(model.init({"params": key, "dropout": key}, **inputs, deterministic=True))


def init_state(
    variables: Mapping[str, Tree],
    optimizer: optax.GradientTransformation,
    *,
    with_average: bool = False,
    with_loss_scale: bool = False,
) -> TrainState:
    """The state before the first step."""
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        model_state={name: tree for name, tree in variables.items() if name != "params"},
        opt_state=optimizer.init(params),
        average=jax.tree.map(jnp.copy, params) if with_average else None,
        loss_scale=LossScale.create() if with_loss_scale else None,
        skipped=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
    )


@jax.jit
def all_finite(tree: Tree) -> jax.Array:
    """Bool []: whether every number in a tree of arrays is finite."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def to_items(state: TrainState) -> dict[str, Tree]:
    """The state as a checkpoint's items: "params" is all that evaluation reads, "optimizer" the rest."""
    rest = ("step", "opt_state", "loss_scale", "skipped", "skipped_in_a_row")
    return {
        "params": {name: getattr(state, name) for name in ("params", "model_state", "average")},
        "optimizer": {name: getattr(state, name) for name in rest},
    }


def from_items(items: Mapping[str, Tree]) -> TrainState:
    """The state that `to_items` took apart."""
    return TrainState(**items["params"], **items["optimizer"])


def eval_variables(items: Mapping[str, Tree]) -> dict[str, Tree]:
    """The variables to evaluate with, from a state's items; "params" alone is enough."""
    held = items["params"]
    params = held["params"] if held["average"] is None else held["average"]
    return {"params": params, **held["model_state"]}
