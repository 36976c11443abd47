"""One batch, learnt by heart: what a model, a loss and an optimizer that fit together can do in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.sections import ExperimentConfig
from jaxformer.debugging.interpreter import QUICK
from jaxformer.experiment import Experiment
from jaxformer.models.base import replaced
from jaxformer.optim.build import make_optimizer
from jaxformer.optim.masks import multipliers, trainable_mask
from jaxformer.parallel.mesh import ParallelConfig
from jaxformer.paths import leaves_by_path
from jaxformer.state import TrainState
from jaxformer.step import make_train_step

Tree = Any
Batch = Mapping[str, Any]

ENOUGH = 0.05  # of the first loss
STEPS, AT_ONCE = 400, 50
# Of the learning rate: tiny models, and models from scratch, need more than large ones.
FACTORS = (1.0, 10.0, 100.0)
STILL = 1e-4  # of its size, that a parameter moves in all steps
OFF: dict[str, Any] = dict.fromkeys(
    ("dropout", "attention_dropout", "drop_path", "mlp_dropout", "denoising"), 0
)
OFF |= dict.fromkeys(("weight_decay", "l1", "l2", "label_smoothing", "mixup", "cutmix"), 0)
OFF |= {"distillation": None, "distillation_token": False}


@dataclass(frozen=True)
class Overfit:
    """How far one batch was learnt."""

    first: float
    """Loss before the first step."""
    least: float
    """The least loss of all steps."""
    steps: int
    """Steps until it was below ENOUGH, or all."""
    rate: float
    """The learning rate, constant."""
    finite: bool
    """Whether the first loss and its gradient are finite."""
    moved: Mapping[str, float]
    """Path of a parameter -> the norm of its change, as a share of its own."""

    @property
    def done(self) -> bool:
        """Whether the loss went below ENOUGH of the first one."""
        return self.least < ENOUGH * self.first


def without_noise(config: ExperimentConfig) -> ExperimentConfig:
    """A config without what keeps a model from learning a batch by heart, and on the devices that are there.

    Dropout, weight decay, penalties, smoothed and mixed labels and the teacher are off; what transforms did to the
    batch, they did once.
    """
    changed: dict[str, Any] = {"model": replaced(config.model, **OFF)}
    for name in ("task", "optimizer"):
        part = getattr(config, name)
        known = {field.name for field in fields(part)}
        changed[name] = replace(part, **{key: value for key, value in OFF.items() if key in known})
    train = replace(config.train, accumulate=1, ema_decay=None)
    return replace(config, train=train, parallel=ParallelConfig(), **changed)


def overfit(experiment: Experiment, batch: Batch) -> Overfit:
    """Learns one batch by heart, at the config's learning rate, and at higher ones where that is too slow."""
    config, params = experiment.config, experiment.parameter_shapes

    @partial(jax.jit, compiler_options=QUICK)
    def several(state: TrainState, rate: jax.Array) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
        optimizer = make_optimizer(config.optimizer, lambda count: rate, params)
        step = make_train_step(
            experiment.model,
            experiment.task,
            optimizer,
            seed=config.seed,
            trainable=experiment.trainable,
            applied=None if config.adapter is None else config.adapter.merged,
        )

        def one(state: TrainState, _: None) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
            state, metrics = step(state, batch)
            return state, (metrics["loss"], metrics["skipped"])

        return jax.lax.scan(one, state, None, length=AT_ONCE)

    best = None
    for factor in FACTORS:
        state = before = experiment.init_state()
        rate = config.optimizer.learning_rate * factor
        losses, skipped = list[float](), list[float]()
        while len(losses) < STEPS and not (losses and min(losses) < ENOUGH * losses[0]):
            state, (more, lost) = several(state, jnp.float32(rate))
            losses, skipped = losses + more.tolist(), skipped + lost.tolist()
        steps = next((i for i, loss in enumerate(losses) if loss < ENOUGH * losses[0]), len(losses))
        moved = jax.tree.map(share, state.params, before.params)
        found = Overfit(
            losses[0], float(reduce(np.fmin, losses)), steps, rate, not skipped[0], leaves_by_path(moved)
        )
        if best is None or found.least < best.least:
            best = found
        if found.done or not found.finite:
            break
    assert best is not None
    return best


def share(after: jax.Array, before: jax.Array) -> float:
    """The norm of a change, as a share of the norm before, or of 1 for what was zero."""
    new, old = np.asarray(after, np.float64), np.asarray(before, np.float64)
    return float(np.linalg.norm(new - old) / (np.linalg.norm(old) or 1.0))


def standing_still(
    experiment: Experiment, moved: Mapping[str, float], no_gradient: set[str]
) -> dict[str, list[str]]:
    """Why -> the paths of the parameters that did not move for that reason.

    Args:
      experiment: what was trained.
      moved: as of `Overfit`.
      no_gradient: the paths whose gradient is exactly zero.
    """
    config, params = experiment.config.optimizer, experiment.parameter_shapes
    trained = leaves_by_path(trainable_mask(config, params))
    factors = multipliers(config, params)
    found: dict[str, list[str]] = {}
    for path, change in moved.items():
        if not trained[path]:
            why = f"frozen by optimizer.{'train_only' if config.train_only else 'freeze'}"
        elif not np.any(factors[path]):
            why = "their learning rate is 0 by optimizer.learning_rate_multipliers or layer_decay"
        elif path in no_gradient:
            unused = "their output is not used, or behind a stop_gradient, or an attention has one token only"
            why = f"no gradient reaches them: {unused}"
        elif change < STILL:
            why = f"they moved by less than {STILL:g} of their size in all steps"
        else:
            continue
        found.setdefault(why, []).append(path)
    return found
