"""Describes an experiment: parameters, memory, FLOPs and rules, on devices that need not be here."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxformer.analysis.flops import training_flops
from jaxformer.analysis.optimization import describe_rules, describe_schedule
from jaxformer.config import schema
from jaxformer.config.sections import ExperimentConfig
from jaxformer.data.base import NominalBatches
from jaxformer.data.kinds.pairs import Pairs
from jaxformer.errors import NotPrepared
from jaxformer.experiment import Experiment
from jaxformer.models import MODELS
from jaxformer.models.presets import preset
from jaxformer.observe import text
from jaxformer.observe.summary import parameter_table
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.teacher import load_teacher

Tree = Any
IMAGENET = {"train": 1_281_167, "validation": 50_000}  # Russakovsky et al. 2015, table 2
KNOWN_SIZES = {"imagenet2012": IMAGENET, "cifar10": {"train": 50_000, "test": 10_000}}
SOURCES = {"imagenet2012": "Russakovsky et al. 2015, table 2", "cifar10": "Krizhevsky 2009, chapter 3"}
# Tokens of GPT-2's tokenizer, by karpathy/nanoGPT (data/openwebtext/readme.md).
OPENWEBTEXT = {"train": 9_035_582_198, "validation": 4_434_897}
# The task and the kind of examples that a model of text is described with.
TEXT_TASKS = {
    "gpt": ("causal_lm", "windows"),
    "bert": ("masked_lm", "windows"),
    "seq2seq": ("translation", "pairs"),
}
PIXELS = {"imagenet2012": 224, "cifar10": 32}  # an image's side, where neither model nor transforms say it


def for_preset(name: str) -> dict[str, Any]:
    """A config that trains a preset, as nested dicts: on ImageNet at 224 pixels, or on OpenWebText."""
    model = preset(name)
    learning: dict[str, Any] = {
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup": "5%"},
        "precision": "bfloat16",
    }
    if model["name"] not in TEXT_TASKS:
        return learning | {
            "task": {"name": "classification"},
            "model": model,
            "data": {"name": "imagenet2012", "batch_size": 1024},
            "eval": {"split": "validation"},
            "train": {"total": "90 epochs"},
        }
    task, kind = TEXT_TASKS[model["name"]]
    length = schema.build(MODELS, model, "model").context_length
    return learning | {
        "task": {"name": task} | ({"beams": 0} if kind == "pairs" else {}),
        "model": model | ({"head": "mlm"} if model["name"] == "bert" else {}),
        "data": {
            "name": "openwebtext",
            "batch_size": 256,
            "tokenizer": {"name": "bytes", "template": "seq2seq"},
            "examples": {"name": kind, "length": length},
        },
        "eval": {"split": "validation", "monitor": "loss", "mode": "min"},
        "train": {"total": "1 epoch"},
    }


@dataclass(frozen=True)
class Footprint:
    """Bytes on one device, and FLOPs of one step over all devices."""

    parameters: int
    """Bytes of the parameters."""
    gradients: int
    """Bytes of their gradients."""
    optimizer: int
    """Bytes of all of the optimizer's state."""
    average: int
    """Bytes of the moving average of the parameters."""
    activations: int | None
    """Bytes of everything temporary in the compiled step but the gradients; None if the step was not compiled. It
    is compiled for CPU devices, so this is an estimate for others: there, rematerialisation saves nothing with
    unrolled layers, and does with model.scan."""
    flops: int
    """Forward and backward pass of the whole batch (products and convolutions)."""


def assemble(config: ExperimentConfig) -> Experiment:
    """An Experiment; its dataset may be missing if its size is known."""
    experiment = Experiment(config)
    try:
        experiment.train_data, experiment.eval_data  # noqa: B018 - builds them
    except NotPrepared:
        nominal = nominal_batches(config)
        if nominal is None:
            raise
        return Experiment(config, train_data=nominal, eval_data=nominal)
    return experiment


def nominal_batches(config: ExperimentConfig) -> NominalBatches | None:
    """Batches of a dataset of known size, or None; "train[:99%]" is 99% of "train"."""
    data = config.data
    if data.examples.modality == "text":
        return nominal_text(data)
    split = re.fullmatch(r"(\w+)(?:\[:(\d+)%\])?", data.train_split)
    sizes = KNOWN_SIZES.get(data.name, {})
    if split is None or split[1] not in sizes:
        return None
    made = [
        transform.size for transform in data.transforms if isinstance(getattr(transform, "size", None), int)
    ]
    size = config.model.image_size or [PIXELS[data.name], *made][-1]
    spec: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        "image": ((size, size, 3), np.dtype(np.uint8)),
        "labels": ((), np.dtype(np.int32)),
    }
    count = round(sizes[split[1]] * int(split[2] or 100) / 100)
    fact = f"{data.name} is not here; its {count:,} examples ({data.train_split}) are by {SOURCES[data.name]}"
    return NominalBatches(count, data.batch_size, spec, (fact,))


def nominal_text(data: Any) -> NominalBatches | None:
    """Batches of text from OpenWebText, or None."""
    if data.name != "openwebtext" or data.train_split not in OPENWEBTEXT:
        return None
    length = data.examples.length
    names = ["tokens", "targets"]
    if isinstance(data.examples, Pairs):
        names += ["token_mask", "decoder_tokens"]
    dtypes = {"token_mask": np.dtype(bool)}
    spec = {name: ((length,), dtypes.get(name, np.dtype(np.int32))) for name in names}
    tokens = OPENWEBTEXT[data.train_split]
    fact = (
        f"{data.name} is not here; its {tokens:,} tokens, {length} an example, are nanoGPT's count with GPT-2's "
        "tokenizer (data/openwebtext/readme.md)"
    )
    return NominalBatches(-(-tokens // length), data.batch_size, spec, (fact,))


def under_jit(experiment: Experiment) -> Experiment:
    """The same experiment in jit's mode: its compiled step reports its memory, and pmap's does not."""
    config = experiment.config
    if config.parallel.mode == "jit":
        return experiment
    jit = replace(config, parallel=replace(config.parallel, mode="jit"))
    return Experiment(jit, experiment.devices, train_data=experiment.train_data)


def footprint(experiment: Experiment, *, compile_step: bool = True) -> Footprint:
    """The bytes that one device holds and the FLOPs of a step, without allocating anything."""
    shapes = experiment.state_shapes
    parameters = bytes_a_device(shapes.params)
    activations = None
    if compile_step:
        jitted, teacher = under_jit(experiment), load_teacher(experiment)
        fixed = () if teacher is None else (teacher.variables,)
        lowered = jitted.train_step(teacher).lower(jitted.state_shapes, jitted.batch_shapes, *fixed)
        compiled = lowered.compile()
        activations = max(0, compiled.memory_analysis().temp_size_in_bytes - parameters)
    return Footprint(
        parameters=parameters,
        gradients=parameters,
        optimizer=bytes_a_device(shapes.opt_state),
        average=bytes_a_device(shapes.average),
        activations=activations,
        flops=training_flops(experiment.forward_flops) * experiment.train_data.batch_size,
    )


def describe(experiment: Experiment, *, compile_step: bool = True) -> str:
    """The whole description, as text."""
    mesh = ", ".join(f"{name}={size}" for name, size in experiment.layout.mesh.shape.items())
    batches, total = experiment.train_data, experiment.total_steps
    shown, devices = total * batches.batch_size, text.counted(experiment.layout.mesh.size, "device")
    held = footprint(experiment, compile_step=compile_step)
    rows = [
        ("parameters", held.parameters),
        ("gradients", held.gradients),
        ("optimizer", held.optimizer),
        ("average of the parameters", held.average),
        ("activations", held.activations),
    ]
    lines = [
        model_line(experiment.bare_model),
        "",
        parameter_table(experiment.variable_shapes["params"]),
        "",
        f"On {devices} ({mesh}; {experiment.layout.mode}), batch {batches.batch_size}:",
        *(
            f"  {name:<26}{'not compiled' if size is None else text.data_size(size):>14} a device"
            for name, size in rows
        ),
        f"  {'in all':<26}{text.data_size(sum(size or 0 for _, size in rows)):>14} a device",
        f"  {'FLOPs a step':<26}{text.engineering(held.flops, 'FLOP'):>14} forward and backward, all devices",
        "",
        f"Training: {text.counted(total, 'step')} of {batches.batch_size} = {text.counted(shown, 'example')} "
        f"({text.counted(shown / batches.num_examples, 'epoch')} of {batches.num_examples:,})",
        *batches.facts,
        "",
        describe_schedule(experiment.schedule, total),
        "",
        describe_rules(experiment.config.optimizer, experiment.variable_shapes["params"]),
    ]
    return "\n".join(lines)


def model_line(model: Any) -> str:
    """The model and the head that the table of parameters counts."""
    name, head = type(model).__name__, None
    if model.kind == "encoder":
        head = f'the head "{model.head}" (model.head)'
    elif model.num_classes is not None:
        head = f"a head of {text.counted(model.num_classes, 'output')} (model.num_classes)"
    return name if head is None else f"{name} with {head}, which is counted here, too"
