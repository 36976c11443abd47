"""An experiment's parts, built from its config and checked against each other before any long work starts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn

from jaxformer.analysis.flops import count_flops
from jaxformer.config import sections as configs
from jaxformer.config.durations import Duration
from jaxformer.config.schema import did_you_mean
from jaxformer.config.sections import Experiment
from jaxformer.data import Batches, make_batches
from jaxformer.errors import ConfigError
from jaxformer.optim import (
    make_optimizer,
    make_schedule,
    optimizer_problems,
    regularization,
    schedule_problems,
    trainable_mask,
)
from jaxformer.optim.optimizers import ScheduleFree, eval_params
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.precision import dtypes, in_precision
from jaxformer.state import TrainState, init_state, init_variables
from jaxformer.step import Average, Teacher, make_eval_step, make_train_step, moving_average

Tree = Any


class Assembly:
    """The parts, each built when it is first asked for.

    Args:
      experiment: the resolved config.
      devices: the devices to use; all there are if None.

    Raises:
      ConfigError, UserError: from `check()` or from the part that is asked for.
    """

    def __init__(self, experiment: Experiment, devices: Sequence[jax.Device] | None = None):
        self.experiment = experiment
        self.devices = devices

    @cached_property
    def layout(self) -> Layout:
        """Mesh and mode."""
        parallel = self.experiment.parallel
        return Layout(parallel.mode, make_mesh(parallel.mesh, self.devices))

    @cached_property
    def task(self) -> Any:
        """What is learnt; fields that the config leaves to the data, or to the model, are filled in."""
        of_model = self.experiment.model.task_sizes
        return filled(self.experiment.task, known_sizes(self.train_batches) | of_model)

    @cached_property
    def bare_model(self) -> Any:
        """The linen module as the config has it; fields that it leaves to the data are filled in."""
        return filled(self.experiment.model, known_sizes(self.train_batches))

    def build_model(self, axis: str | None = None) -> Any:
        """The linen module in the experiment's precision; `axis`: pmap's, over which BatchNorm averages."""
        return in_precision(self.bare_model, self.experiment.precision, axis)

    @cached_property
    def train_batches(self) -> Batches:
        """`train_batches[step]`."""
        return self.batches(self.experiment.data.train_split, train=True)

    @cached_property
    def eval_batches(self) -> Batches:
        """The evaluation split, in order."""
        return self.batches(self.experiment.eval.split, train=False)

    def batches(self, split: str, *, train: bool) -> Batches:
        """A split's batches, each looked at by the task."""

        def check(batch: Mapping[str, np.ndarray]) -> None:
            self.task.check(self.bare_model, batch)

        return make_batches(self.experiment.data, split, self.experiment.seed, train, check)

    @cached_property
    def model(self) -> Any:
        """The linen module, in the experiment's precision."""
        return self.build_model(axis=self.layout.axis)

    @cached_property
    def total_steps(self) -> int:
        """The length of the training."""
        return self.steps(self.experiment.train.total, total_steps=None)

    def steps(self, duration: Duration, total_steps: int | None = -1) -> int:
        """A duration in steps of this experiment."""
        return duration.steps(
            batch_size=self.train_batches.batch_size,
            epoch_examples=self.train_batches.num_examples,
            total_steps=self.total_steps if total_steps == -1 else total_steps,
        )

    @cached_property
    def schedule(self) -> optax.Schedule:
        """Learning rate by step."""
        peak = self.experiment.optimizer.learning_rate
        return make_schedule(self.experiment.schedule, peak, self.total_steps, self.steps)

    @cached_property
    def variable_shapes(self) -> dict[str, Tree]:
        """The model's variables as shapes; nothing is computed."""
        return jax.eval_shape(self.init_variables)

    def init_variables(self) -> dict[str, Tree]:
        """Fresh variables, from the seed."""
        spec = self.train_batches.element_spec
        batch = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in spec.items()}
        model = self.build_model(axis=None)
        return init_variables(model, self.task.inputs(batch), jax.random.key(self.experiment.seed))

    @cached_property
    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer with its rules by path."""
        return make_optimizer(self.experiment.optimizer, self.schedule, self.variable_shapes["params"])

    @property
    def average(self) -> Average | None:
        """How the parameters are averaged."""
        if isinstance(self.experiment.optimizer, ScheduleFree):
            return lambda average, opt_state, params: eval_params(opt_state, params)
        decay = self.experiment.train.ema_decay
        return None if decay is None else moving_average(decay)

    def init_state(self) -> TrainState:
        """The state before the first step (trace it: `layout.born(assembly.init_state)`)."""
        return init_state(
            self.init_variables(),
            self.optimizer,
            with_average=self.average is not None,
            with_loss_scale=dtypes(self.experiment.precision).compute == "float16",
        )

    @cached_property
    def state_shapes(self) -> TrainState:
        """The train state as shapes with shardings."""
        return self.layout.abstract(jax.eval_shape(self.init_state))

    @cached_property
    def batch_shapes(self) -> Tree:
        """A global training batch as shapes with shardings."""
        return self.layout.batch_shapes(self.train_batches.element_spec, self.train_batches.batch_size)

    def train_step(self, teacher: Teacher | None = None) -> Any:
        """The compiled train step; with a teacher its third argument is the teacher's variables."""
        train, params = self.experiment.train, self.variable_shapes["params"]
        optimizer = self.experiment.optimizer
        step = make_train_step(
            self.model,
            self.task,
            self.optimizer,
            seed=self.experiment.seed,
            accumulate=train.accumulate,
            average=self.average,
            trainable=trainable_mask(optimizer, params) if optimizer.freeze else None,
            regularization=partial(regularization, optimizer) if optimizer.l1 or optimizer.l2 else None,
            schedule=self.schedule,
            teacher=teacher,
            axis=self.layout.axis,
        )
        return self.layout.train_step(step, self.state_shapes, taught=teacher is not None)

    def eval_step(self) -> Any:
        """The compiled eval step."""
        return self.layout.eval_step(make_eval_step(self.model, self.task, axis=self.layout.axis))

    @cached_property
    def forward_flops(self) -> int:
        """FLOPs of the model's forward pass for one example; with buckets, for one of the average length."""
        batches = self.train_batches
        spec = dict(batches.element_spec)
        if batches.typical_length is not None:
            for name, (shape, dtype) in spec.items():
                spec[name] = ((batches.typical_length, *shape[1:]), dtype) if shape else (shape, dtype)
        batch = {name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in spec.items()}
        model = self.build_model(axis=None)
        return count_flops(
            lambda variables, batch: model.apply(variables, **self.task.inputs(batch), deterministic=True),
            self.variable_shapes,
            batch,
        )

    def check(self) -> None:
        """Holds the parts against each other.

        Raises:
          ConfigError: a line for everything that does not fit.
        """
        total = self.experiment.train.total
        if not 0 < self.total_steps < 2**31:
            raise ConfigError(f'train.total="{total}" is {self.total_steps} steps: expected 1 to 2**31 - 1')
        errors = list(configs.across_devices(self.experiment, self.layout.batch_shards))
        model_problems = list(self.task.fits(self.bare_model, self.train_batches, self.eval_batches))
        errors += model_problems
        errors += [
            f"schedule.{p}" for p in schedule_problems(self.experiment.schedule, self.total_steps, self.steps)
        ]
        if not model_problems:
            errors += [
                f"optimizer.{p}"
                for p in optimizer_problems(self.experiment.optimizer, self.variable_shapes["params"])
            ]
        watched = self.experiment.eval.monitor
        absent = absent_metrics(self.task, self.bare_model, self.eval_batches)
        if watched not in self.task.metric_names:
            errors.append(
                f"eval.monitor={watched!r}: not a metric; {did_you_mean(watched, self.task.metric_names)}"
            )
        elif watched in absent:
            given = ", ".join(name for name in self.task.metric_names if name not in absent)
            errors.append(f"eval.monitor={watched!r}: {absent[watched]}; choose one of: {given}")
        if errors:
            raise ConfigError(*errors)


def known_sizes(batches: Batches) -> dict[str, int]:
    """What batches say of a model's and a task's fields, by the fields' names."""
    eos_id = getattr(batches.tokenizer, "eos_id", None)
    return dict(batches.sizes) | ({} if eos_id is None else {"eos_id": eos_id})


def spare_classes(model: Any, batches: Batches) -> Iterator[str]:
    """Yields a line if the model has more classes than the dataset: legal, and seldom meant."""
    classes, given = known_sizes(batches).get("num_classes"), model.num_classes
    if classes is not None and given is not None and given > classes:
        yield f"model.num_classes={given}: the dataset has {classes} classes; the model's others have no example"


def absent_metrics(task: Any, model: Any, data: Batches) -> Mapping[str, str]:
    """Metrics of the task that this data will not give -> why."""
    return task.absent_metrics(model, data) if hasattr(task, "absent_metrics") else {}


def filled(part: Any, known: Mapping[str, int]) -> Any:
    """A dataclass whose fields that are None are as the data have it, where they say."""
    names = {field.name for field in fields(part)}
    missing = {name: value for name, value in known.items() if name in names and getattr(part, name) is None}
    if not missing:
        return part
    return part.clone(**missing) if isinstance(part, nn.Module) else replace(part, **missing)
