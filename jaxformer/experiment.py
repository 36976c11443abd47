"""An experiment's parts, built from its config and checked against each other before any long work starts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from types import NoneType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.interpreters.partial_eval import dce_jaxpr

from jaxformer.analysis.flops import jaxpr_flops
from jaxformer.config import sections as configs
from jaxformer.config.durations import Duration
from jaxformer.config.sections import ExperimentConfig
from jaxformer.data.base import NominalBatches, known_sizes
from jaxformer.errors import ConfigError, UserError
from jaxformer.evaluation.evaluator import evaluate, monitor_problems
from jaxformer.numbers import Numbers, filled, numbers_of, with_numbers
from jaxformer.optim.build import make_optimizer, rule_problems
from jaxformer.optim.masks import regularization, regularizes, trainable_mask
from jaxformer.optim.schedule import make_schedule, schedule_problems
from jaxformer.parallel.compile import Layout, NumberedStep, Shared
from jaxformer.parallel.mesh import make_mesh, undivided_heads, undivided_tokens
from jaxformer.paths import leaves_by_path, with_leaves
from jaxformer.precision import dtypes, in_precision
from jaxformer.state import TrainState, check_state, init_state, init_variables
from jaxformer.step import Average, Teacher, make_eval_step, make_train_step, moving_average
from jaxformer.tasks.base import Evaluation, Task

if TYPE_CHECKING:
    from jaxformer.data.batches import Batches

Tree = Any


class Experiment:
    """An experiment's parts, each built when it is first asked for.

    Args:
      config: the resolved config.
      devices: the devices to use; all there are if None.
      train_data: used in place of the training split's batches, for example where the dataset is not prepared.
      eval_data: used in place of the evaluation split's batches.
      shared: what it shares with other experiments; None: it shares nothing.

    Raises:
      ConfigError, UserError: from `check()` or from the part that is asked for.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        devices: Sequence[jax.Device] | None = None,
        *,
        train_data: "Batches | NominalBatches | None" = None,
        eval_data: "Batches | NominalBatches | None" = None,
        shared: Shared | None = None,
    ):
        self.config, self.devices, self.shared = config, devices, shared or Shared()
        given = {"train_data": train_data, "eval_data": eval_data}  # in the place of cached properties
        vars(self).update({name: batches for name, batches in given.items() if batches is not None})

    @cached_property
    def layout(self) -> Layout:
        """Mesh and mode."""
        parallel = self.config.parallel
        mesh = make_mesh(parallel.mesh, self.devices)
        return Layout(parallel.mode, mesh, parallel.compiler_options)

    @cached_property
    def task(self) -> Task:
        """What is learnt; fields that the config leaves to the data, or to the model, are filled in."""
        return filled(self.config.task, known_sizes(self.train_data) | dict(self.config.model.task_sizes))

    @cached_property
    def bare_model(self) -> Any:
        """The linen module as the config has it; fields that it leaves to the data are filled in."""
        return filled(self.config.model, known_sizes(self.train_data))

    def build_model(self, axis: str | None = None) -> nn.Module:
        """The linen module in the experiment's precision; `axis`: pmap's, over which BatchNorm averages."""
        return in_precision(self.bare_model, self.config.precision, axis)

    @cached_property
    def train_data(self) -> "Batches":
        """The batches of the training split: `train_data[step]`."""
        return self.batches(self.config.data.train_split, train=True)

    @cached_property
    def eval_data(self) -> "Batches":
        """The batches of the evaluation split, in order."""
        return self.batches(self.config.eval.split, train=False)

    def batches(self, split: str, *, train: bool) -> "Batches":
        """A split's batches, each looked at by the task."""
        from jaxformer.data.batches import make_batches  # it takes seconds: Grain, TFDS, OpenCV

        def check(batch: Mapping[str, np.ndarray]) -> None:
            self.task.check(self.bare_model, batch)

        return make_batches(self.config.data, split, self.config.seed, train, check, self.shared.sources)

    @cached_property
    def model(self) -> nn.Module:
        """The linen module, in the experiment's precision."""
        return self.build_model(axis=self.layout.axis)

    @cached_property
    def total_steps(self) -> int:
        """The length of the training."""
        data = self.train_data
        return self.config.train.total.steps(batch_size=data.batch_size, epoch_examples=data.num_examples)

    def steps(self, duration: Duration) -> int:
        """A duration in steps of this experiment."""
        data = self.train_data
        return duration.steps(
            batch_size=data.batch_size, epoch_examples=data.num_examples, total_steps=self.total_steps
        )

    @cached_property
    def schedule(self) -> optax.Schedule:
        """Learning rate by step."""
        config = self.config
        return make_schedule(config.schedule, config.optimizer.learning_rate, self.total_steps, self.steps)

    @cached_property
    def variable_shapes(self) -> dict[str, Tree]:
        """The model's variables as shapes; nothing is computed."""
        return self.once("variable_shapes", lambda: jax.eval_shape(self.init_variables))

    @cached_property
    def parameter_shapes(self) -> Tree:
        """The parameters of a train state as shapes: the model's, and those of an adapter beside them."""
        return jax.eval_shape(self.adapted, self.variable_shapes["params"])

    @cached_property
    def trainable(self) -> Tree | None:
        """A tree like `parameter_shapes` of bools, False for what is frozen; None: nothing is."""
        optimizer = self.config.optimizer
        return trainable_mask(optimizer, self.parameter_shapes) if optimizer.freezes else None

    def adapted(self, params: Tree) -> Tree:
        """The model's parameters and those of an adapter, if there is one; to be traced."""
        adapter = self.config.adapter
        return params if adapter is None else adapter.added(params, jax.random.key(self.config.seed))

    def merged(self, variables: Mapping[str, Tree]) -> dict[str, Tree]:
        """What the model is applied with, from the variables of a train state."""
        adapter = self.config.adapter
        if adapter is None:
            return dict(variables)
        return {**variables, "params": jax.jit(adapter.merged)(variables["params"])}

    def init_variables(self) -> dict[str, Tree]:
        """Fresh variables, from the seed."""
        return init_variables(self.build_model(), self._nominal_inputs(), jax.random.key(self.config.seed))

    def _nominal_inputs(self) -> dict[str, Any]:
        """The model's arguments for one example of zeros."""
        spec = self.train_data.element_spec
        return self.task.inputs({name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in spec.items()})

    @cached_property
    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer with its rules by path."""
        return make_optimizer(self.config.optimizer, self.schedule, self.parameter_shapes, self.steps)

    @property
    def average(self) -> Average | None:
        """How the parameters are averaged."""
        if self.config.optimizer.averages:
            found = self.config.optimizer.eval_params
            return lambda average, opt_state, params, count: found(opt_state, params)
        train = self.config.train
        return None if train.ema_decay is None else moving_average(train.ema_decay, train.ema_warmup)

    def init_state(self) -> TrainState:
        """The state before the first step, on the devices; parameters come from the sources of `pretrained`.

        Raises:
          UserError: its files are missing or damaged, or do not fit the model: a line for each tensor.
        """
        shapes, numbers = self.state_shapes, numbers_of(self.config)
        if not self.config.model.beginnings():
            program = self.once("init_state", lambda: self.layout.init_sharded(self._from_numbers, shapes))
            return program(numbers)
        from jaxformer.optim.lora import of_model
        from jaxformer.weights.beginning import first_variables

        begun = first_variables(self.config.model, {"params": of_model(shapes.params), **shapes.model_state})
        places = [path if path.startswith("params/") else f"model_state/{path}" for path in begun]
        without = dict.fromkeys(places)  # what is there already is not copied through a program

        def rest_of_state(numbers: Numbers, begun: dict[str, jax.Array]) -> TrainState:
            return with_leaves(self.with_numbers(numbers)._fresh_state(begun), without)

        program = self.once(
            "init_state", lambda: self.layout.init_sharded(rest_of_state, with_leaves(shapes, without))
        )
        rest = program(numbers, begun)
        return with_leaves(shapes, {**leaves_by_path(rest), **dict(zip(places, begun.values()))})

    def _from_numbers(self, numbers: Numbers) -> TrainState:
        """The fresh state with other numbers, to be traced."""
        return self.with_numbers(numbers)._fresh_state()

    def _fresh_state(self, begun: Mapping[str, jax.Array] | None = None) -> TrainState:
        """The state before the first step, to be traced.

        Args:
          begun: path -> variable, where it is not random.
        """
        averages, scales = self.average is not None, dtypes(self.config.precision).compute == "float16"
        variables = self.init_variables()
        if begun:
            variables = with_leaves(variables, begun)
        variables["params"] = self.adapted(variables["params"])
        return init_state(variables, self.optimizer, with_average=averages, with_loss_scale=scales)

    @cached_property
    def state_shapes(self) -> TrainState:
        """The train state as shapes with shardings."""
        return self.once("state_shapes", lambda: self.layout.abstract(jax.eval_shape(self._fresh_state)))

    @cached_property
    def batch_shapes(self) -> Tree:
        """A global training batch as shapes with shardings."""
        return self.layout.batch_shapes(self.train_data.element_spec, self.train_data.batch_size)

    def train_step(self, teacher: Teacher | None = None) -> Any:
        """The compiled train step; with a teacher its third argument is the teacher's variables."""

        def program() -> Callable[..., Any]:
            step = self.numbered_step(teacher)
            return self.layout.train_step(step, self.state_shapes, 1 + (teacher is not None))

        compiled = self.once("train_step", program) if teacher is None else program()
        return NumberedStep(compiled, numbers_of(self.config), self.layout.replicated)

    def numbered_step(self, teacher: Teacher | None = None) -> Callable[..., tuple[TrainState, Any]]:
        """The train step to be traced, with the numbers behind the batch: (state, batch, numbers, ...)."""
        from jaxformer.models.placement import gradients_lie
        from jaxformer.parallel.gradients import gradient_shardings

        def train_step(state: TrainState, batch: Tree, numbers: Numbers, *others: Tree) -> Any:
            return self.with_numbers(numbers)._step(teacher)(state, batch, *others)

        return gradients_lie(gradient_shardings(self.state_shapes.params))(train_step)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all experiments that share programs with this one."""
        if name not in self.shared.programs:
            self.shared.programs[name] = make()
        return self.shared.programs[name]

    def with_numbers(self, numbers: Numbers) -> "Experiment":
        """The same experiment with other numbers at some paths of its config: arrays, or what JAX traces."""
        other = Experiment(with_numbers(self.config, numbers), self.devices, train_data=self.train_data)
        unchanged = ("layout", "total_steps", "variable_shapes", "parameter_shapes")
        vars(other).update({name: getattr(self, name) for name in unchanged})
        return other

    def _step(self, teacher: Teacher | None) -> Callable[..., tuple[TrainState, Any]]:
        """The train step, to be traced: (state, batch) or (state, batch, the teacher's variables)."""
        train, optimizer = self.config.train, self.config.optimizer
        return make_train_step(
            self.model,
            self.task,
            self.optimizer,
            seed=self.config.seed,
            accumulate=train.accumulate,
            average=self.average,
            trainable=self.trainable,
            applied=None if self.config.adapter is None else self.config.adapter.merged,
            regularization=partial(regularization, optimizer) if regularizes(optimizer) else None,
            schedule=self.schedule,
            teacher=teacher,
            axis=self.layout.axis,
        )

    @cached_property
    def eval_step(self) -> NumberedStep:
        """The eval step, compiled: (variables, batch) -> (sums, collected)."""
        make = partial(make_eval_step, axis=self.layout.axis)
        return self.compiled("eval_step", make, partial(self.layout.eval_step, others=1), self.layout.axis)

    def compiled(
        self,
        name: str,
        make: Callable[[Any, Task], Callable[..., Any]],
        jit: Callable[..., Any] | None = None,
        axis: str | None = None,
    ) -> NumberedStep:
        """A function of variables and a batch, compiled once for all experiments that share programs with this one.

        Args:
          name, make: its name among the programs; and (model, task) -> (variables, batch) -> arrays.
          jit, axis: compiles it (None: as `Layout.same_everywhere`); and pmap's axis, see `build_model`.
        """

        def step(variables: Tree, batch: Tree, numbers: Numbers) -> Any:
            experiment = self.with_numbers(numbers)
            return make(experiment.build_model(axis), experiment.task)(variables, batch)

        program = self.once(name, lambda: (jit or self.layout.same_everywhere)(step))
        return NumberedStep(program, numbers_of(self.config), self.layout.replicated)

    def train_batches(self, state: TrainState, stop: int | None = None) -> Iterator[dict[str, jax.Array]]:
        """Yields the batches of the steps that come after `state`, on the devices; they are read ahead.

        Args:
          state: a train state.
          stop: the step to end before; None: the end of the training.

        Raises:
          UserError: an argument is something else.
        """
        check_state(state)
        if not isinstance(stop, (int, np.integer, NoneType)):
            raise UserError(f"stop={stop!r}: expected the number of a step, such as 100, or None")
        start, last = int(state.step), self.total_steps if stop is None else stop
        reader = self.train_data.read(start, *self.layout.reader, stop=max(start, last))
        with reader as batches:
            yield from map(self.layout.shard_batch, batches)

    def evaluate(self, state: TrainState, give_up: Callable[[], bool] = lambda: False) -> Evaluation:
        """Evaluates a train state on the evaluation split.

        Args:
          state: a train state.
          give_up: asked before every batch; True ends the evaluation.

        Raises:
          GivenUp: `give_up` said so.
          UserError: `state` is no train state.
        """
        check_state(state)
        variables = self.merged(state.variables())
        return evaluate(self.eval_step, variables, self.task, self.eval_data, self.layout, give_up)

    @cached_property
    def forward_flops(self) -> int:
        """FLOPs of the model's forward pass for one example; with buckets, for one of the average length."""
        return self.once("forward_flops", lambda: jaxpr_flops(self.forward_pass(1)))

    def forward_pass(self, rows: int, kept: Callable[[Any], Any] = lambda outputs: outputs) -> Any:
        """The jaxpr of the model's forward pass for so many examples; with buckets, of the average length.

        Args:
          rows: how many examples.
          kept: outputs -> those that are wanted; what no other needs is left out.
        """
        from jaxformer.models.placement import without_kernels

        batches = self.train_data
        spec = dict(batches.element_spec)
        if batches.typical_length is not None:
            for name, (shape, dtype) in spec.items():
                spec[name] = ((batches.typical_length, *shape[1:]), dtype) if shape else (shape, dtype)
        batch = {name: jax.ShapeDtypeStruct((rows, *shape), dtype) for name, (shape, dtype) in spec.items()}
        model: Any = self.build_model()

        def forward(variables: Tree, batch: Tree) -> Tree:
            return kept(model.apply(variables, **self.task.inputs(batch), deterministic=True))

        with without_kernels():
            jaxpr = jax.make_jaxpr(forward)(self.variable_shapes, batch).jaxpr
        return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]

    def check(self) -> None:
        """Holds the parts against each other.

        Raises:
          ConfigError: one line for each thing that does not fit.
        """
        from jaxformer.models.outputs import unmet  # loads the layers

        config, task, total = self.config, self.task, self.total_steps
        if not 0 < total < 2**31:
            raise ConfigError(f'train.total="{config.train.total}" is {total} steps: expected 1 to 2**31 - 1')
        of_model = list(task.fits(self.bare_model, self.train_data, self.eval_data))
        of_model = of_model or list(unmet(self.build_model(), jax.eval_shape(self._nominal_inputs)))
        self.layout.shares  # noqa: B018 - refuses devices that several processes cannot share so
        errors = [*configs.across_devices(config, self.layout.batch_shards), *of_model]
        errors += undivided_heads(self.bare_model.num_heads, self.layout.mesh)
        errors += undivided_tokens(self.bare_model, self.train_data, config.data, self.layout.mesh.shape)
        errors += [f"schedule.{problem}" for problem in schedule_problems(config.schedule, total, self.steps)]
        if not of_model:
            adapter, params = config.adapter, self.variable_shapes["params"]
            of_adapter = [f"adapter.{line}" for line in (adapter.problems_with(params) if adapter else ())]
            rules = config.optimizer, self.parameter_shapes
            of_rules = () if of_adapter else rule_problems(*rules, total, self.steps)
            errors += [*of_adapter, *(f"optimizer.{problem}" for problem in of_rules)]
        errors += monitor_problems(config.eval, task, self.bare_model, self.eval_data)
        if errors:
            raise ConfigError(*errors)
