"""The schema of an experiment: frozen dataclasses, every field documented.

`files.py` reads a config file into plain dicts; `resolve` here turns them into an `ExperimentConfig` and says
everything that is wrong at once, a line each. From there on nothing reads a dict.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from jaxformer.config import fields, schema
from jaxformer.config.checkpoints import CheckpointConfig
from jaxformer.config.durations import Duration
from jaxformer.data.config import DataConfig
from jaxformer.data.folds import FOLD
from jaxformer.data.kinds import KINDS
from jaxformer.errors import ConfigError, counted
from jaxformer.models import CONTRACT, MODELS
from jaxformer.optim import ADAPTERS, OPTIMIZERS, SCHEDULES
from jaxformer.parallel.mesh import ParallelConfig, mesh_shape
from jaxformer.precision import Dtypes
from jaxformer.tasks import TASKS


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation beside training."""

    split: str = "test"
    """The TFDS split to evaluate on."""
    every: fields.PositiveDuration = Duration.parse("1 epoch")
    """How often; it is also evaluated after the last step."""
    monitor: str = "accuracy"
    """The metric that decides which checkpoint is best."""
    mode: Literal["max", "min"] | None = None
    """Whether more of it is better ("max") or less ("min"). The task knows, and None leaves it to the task; a value
    that contradicts the task is refused."""
    patience: (
        Annotated[int, fields.at_least(1, "at least 1 evaluation, or None to never stop early")] | None
    ) = None
    """Stop after this many evaluations in a row without an improvement; None never stops early."""
    min_delta: fields.NonNegativeFloat = 0.0
    """How much better counts as an improvement."""
    restore_best: bool = False
    """End with the best checkpoint's parameters instead of the last step's."""


LENGTH = fields.Constraint(
    'a length in steps, epochs or examples, as in "90 epochs"',
    lambda value: value.unit != "%" and value.amount > 0,
)
DECAY = fields.strictly_between(0, 1, "a decay between 0 and 1, such as 0.999, or None")


@dataclass(frozen=True)
class TrainConfig:
    """The length and the manner of training."""

    total: Annotated[Duration, LENGTH]
    """How long, in steps, epochs or examples."""
    accumulate: Annotated[int, fields.at_least(1, "1 (no accumulation) or more microbatches")] = 1
    """Microbatches a step; the gradient is that of the whole batch, in less memory."""
    ema_decay: Annotated[float, DECAY, fields.KEPT] | None = None
    """Decay a step of a moving average of the parameters, which is then what is evaluated."""
    ema_warmup: bool = True
    """Whether the average begins quickly: update t, counted from 0, keeps at most (1 + t) / (10 + t) of it."""
    cached_images: bool = False
    """Whether what the frozen image tower of two towers gives ("LiT") is computed once for each picture, and kept on
    disk; of several processes each runs it nevertheless."""
    log_every: fields.PositiveDuration = Duration.parse("50 steps")
    """How often metrics are read from the device and written; short trainings write at least 20 times."""
    stop_after_skipped: fields.PositiveInt = 20
    """The run stops after this many updates in a row whose loss, gradient or statistics were not finite."""


@dataclass(frozen=True)
class WatchdogConfig:
    """How long the parts of a training may take. One that takes longer hangs: the stacks of all threads are written to
    RUN/stacks.txt, and the process ends with exit code 124, so that a supervisor starts it again."""

    compile_minutes: fields.PositiveFloat | None = 30.0
    """Compiling a train step, a train step before five are known, and each batch of an evaluation; None: any time."""
    save_minutes: fields.PositiveFloat | None = 15.0
    """Restoring a checkpoint, and what the training waits for while one is saved; None: any time."""
    data_minutes: fields.PositiveFloat | None = 15.0
    """Waiting for a batch; None: any time."""
    step_seconds: fields.PositiveFloat | None = 60.0
    """A train step, or step_medians if that is more; None: any time."""
    step_medians: Annotated[float, fields.at_least(2)] = 20.0
    """A train step, in medians of the latest steps."""

    def seconds(self, phase: str, median: float | None) -> float | None:
        """The limit of a phase; None if it may take any time, as preparing data and writing the report may.

        Args:
          phase: as the clock calls it.
          median: seconds of a train step, if it is known.
        """
        if phase == "train" and median is not None:
            return None if self.step_seconds is None else max(self.step_seconds, self.step_medians * median)
        limits = {"restore": self.save_minutes, "checkpoint": self.save_minutes, "data": self.data_minutes}
        limits |= dict.fromkeys(("compile", "train", "evaluate"), self.compile_minutes)
        minutes = limits.get(phase)
        return None if minutes is None else 60 * minutes


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides what a run computes."""

    data: DataConfig
    """The dataset, its batches and transforms."""
    train: TrainConfig
    """Length, accumulation, averaging, logging."""
    task: Any = schema.choice(TASKS, "jaxformer.tasks.base:Task")
    """What is learnt; tasks/ lists the names."""
    model: Any = schema.choice(MODELS, CONTRACT)
    """A model's name and its fields; models/ lists the names, models/presets.py ready tables."""
    optimizer: Any = schema.choice(OPTIMIZERS, "jaxformer.optim.base:Optimizer")
    """The optimizer's name, its hyperparameters, and rules by parameter path."""
    schedule: Any = schema.choice(SCHEDULES, "jaxformer.optim.schedule:Schedule")
    """The learning rate over time, as a share of optimizer.learning_rate."""
    adapter: Any | None = schema.choice(ADAPTERS, "jaxformer.optim.adapters:Adapter", default=None)
    """What is trained besides the heads, all else is frozen: low-rank changes of some kernels ("lora", "dora"), layers
    behind each branch ("bottleneck"), keys and values of no token ("prefix"), or
    vectors in front of the tokens ("prompt")."""
    eval: EvalConfig = EvalConfig()
    """Evaluation beside training."""
    precision: Literal["float32", "bfloat16", "float16"] | Dtypes = "float32"
    """ "float32", "bfloat16" or "float16" computation with float32 parameters; or dtypes one by one."""
    parallel: ParallelConfig = ParallelConfig()
    """Jit over a mesh, or pmap."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How often checkpoints are saved and how many are kept."""
    watchdog: WatchdogConfig = WatchdogConfig()
    """How long the parts of a training may take before it counts as hanging."""
    seed: Annotated[int, fields.between(0, 2**32 - 1, "0 to 2**32 - 1"), fields.SEED] = 0
    """Decides initialisation, data order, augmentation and dropout."""


def resolve(config: Mapping[str, Any]) -> ExperimentConfig:
    """The ExperimentConfig that nested dicts describe.

    Raises:
      ConfigError: one line for everything that is wrong.
    """
    errors: list[str] = []
    given = with_what_source_says(config)
    sections = schema.converted_fields(ExperimentConfig, given, "", errors, "a config")
    errors.extend(across_sections(sections))
    if errors:
        raise ConfigError(*errors)
    if (adapter := sections.get("adapter")) is not None:
        if adapter.of_model:
            from jaxformer.models.base import replaced

            sections["model"] = replaced(sections["model"], **adapter.of_model)
        trained = adapter.trained(sections["optimizer"], sections["model"].heads)
        sections["optimizer"] = replace(sections["optimizer"], train_only=trained)
    return ExperimentConfig(**sections)


def with_what_source_says(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config with what the sources of `model.pretrained`, and of models within the model, say where the config does
    not: the fields of a model that has no name; of text the tokenizer, too, and the length of rows; of images the mean,
    the deviation and the view.

    Raises:
      UserError: a source is not there, or no model of ours does the same.
    """
    model = config.get("model")
    if not isinstance(model, Mapping):
        return config
    model, sources = with_fields(model, "model")
    config = {**config, "model": model}
    for source, side in sources:
        config = with_its_data(config, source, side)
    return config


def with_fields(model: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[tuple[Any, int | None]]]:
    """The dict of a model with the fields of those in it that begin as others and have no name.

    Args:
      where: its place in the config.

    Returns:
      The dict, and each `Pretrained` with the size of the images that the model takes.
    """
    filled, sources = dict(model), []
    for key, part in model.items():
        if isinstance(part, Mapping):
            filled[key], found = with_fields(part, f"{where}.{key}")
            sources += found
    if "pretrained" not in model or "name" in model:
        return filled, sources
    if not model["pretrained"]:
        raise ConfigError(f'{where}.pretrained: missing; name a folder with config.json, or "hf:OWNER/NAME"')
    from jaxformer.weights.pretrained import load_pretrained

    source = load_pretrained(model["pretrained"])
    name, fields = source.described
    classes = None if where == "model" else 0  # the dataset's, or no head
    by_data = {"num_classes": classes} if "num_classes" in fields else {}
    filled = {"name": name, **fields, **by_data, **filled}
    return filled, [(source, filled.get("image_size")), *sources]


def with_its_data(config: Mapping[str, Any], source: Any, side: int | None) -> Mapping[str, Any]:
    """A config with the tokenizer and the view of a `Pretrained`, where the config does not say it."""
    data: Any = config.get("data")
    examples = data.get("examples", {"name": "images"}) if isinstance(data, Mapping) else None
    named = str(examples.get("name")) if isinstance(examples, Mapping) else ""
    kind: Any = schema.load(KINDS[named]) if named in KINDS else None
    if kind is None or not isinstance(data, Mapping) or not isinstance(examples, Mapping):
        return config
    if kind.modality == "image" and source.preprocessing:
        config = with_its_view(config, source, side, whole=not kind.letterboxed)
        data = config["data"]
    if not kind.tokenized:
        return config
    length = {} if source.longest is None else {"length": source.longest}
    tokenizer = data.get("tokenizer") or source.tokenizer_fields
    return {**config, "data": {**data, "tokenizer": tokenizer, "examples": {**length, **examples}}}


def with_its_view(config: Mapping[str, Any], source: Any, side: int | None, whole: bool) -> Mapping[str, Any]:
    """A config with what the source does to images, where the config does not say it.

    Args:
      source: a `Pretrained` of images.
      side: height and width of the images that the model takes; None: any.
      whole: whether the model is shown images as the source's was, so that its view of them fits, too.
    """
    view, task = source.view(side), config.get("task")
    given = str(task.get("name")) if isinstance(task, Mapping) else ""
    if (
        isinstance(task, Mapping)
        and given in TASKS
        and "mean" in schema.config_fields(schema.load(TASKS[given]))
    ):
        config = {**config, "task": {**view.task, **task}}
    if not whole:
        return config
    views = {"transforms": view.transforms, "eval_transforms": view.transforms}
    return {**config, "data": {**views, **config["data"]}}


def across_sections(sections: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for every combination of sections that cannot be; sections that are wrong are left out."""
    data, train, parallel = (sections.get(key) for key in ("data", "train", "parallel"))
    if data and train and data.batch_size % train.accumulate:
        fitting = fields.largest_divisor(data.batch_size, train.accumulate)
        problem = f"train.accumulate={train.accumulate} does not divide data.batch_size={data.batch_size}"
        yield f"{problem}: use one that does, such as {fitting}"
    evaluation, checkpoint = sections.get("eval"), sections.get("checkpoint")
    if evaluation and evaluation.restore_best and checkpoint and not checkpoint.keep_best:
        yield "eval.restore_best: the best checkpoint has to be kept for it; set checkpoint.keep_best=1"
    if evaluation and data and data.fold is not None and evaluation.split != FOLD:
        held = f"data.fold={data.fold!r} holds out examples of data.train_split={data.train_split!r}"
        yield f"eval.split={evaluation.split!r}: {held}; set eval.split={FOLD!r}, or leave data.fold out"
    optimizer = sections.get("optimizer")
    if optimizer and optimizer.averages and train and train.ema_decay is not None:
        yield "train.ema_decay: this optimizer averages the parameters by itself; set train.ema_decay=None"
    if optimizer and optimizer.needs_whole_batch and parallel and parallel.mode == "pmap":
        yield 'optimizer.name: this optimizer looks at the whole batch at once; use parallel.mode="jit"'


def check_devices(config: ExperimentConfig, count: int) -> None:
    """Holds a config against devices that are not here yet.

    Raises:
      UserError: its mesh does not make up so many, or they cannot share a batch evenly.
    """
    sizes = mesh_shape(config.parallel.mesh, count)
    if problems := list(across_devices(config, sizes["data"] * sizes["fsdp"])):
        raise ConfigError(*problems)


def across_devices(config: ExperimentConfig, batch_shards: int) -> Iterator[str]:
    """Yields a line for every batch size that the devices cannot share evenly.

    Args:
      batch_shards: into how many parts the mesh splits a batch.
    """
    data, accumulate = config.data, config.train.accumulate
    microbatches = f" x {accumulate} microbatches" if accumulate > 1 else ""
    for field, size, parts, of_steps in (
        ("batch_size", data.batch_size, batch_shards * accumulate, microbatches),
        ("eval_batch_size", data.eval_batch_size or data.batch_size, batch_shards, ""),
    ):
        if size % parts:
            fitting = max(1, round(size / parts)) * parts
            yield f"data.{field}={size} is not a multiple of {counted(batch_shards, 'device')}{of_steps}: use {fitting}"
