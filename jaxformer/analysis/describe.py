"""Describes an experiment: parameters, memory, FLOPs and rules, on devices that need not be here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxformer.analysis.flops import training_flops
from jaxformer.analysis.memory import memory_errors_explained
from jaxformer.analysis.nominal import nominal_batches
from jaxformer.analysis.optimization import describe_rules, describe_schedule
from jaxformer.config import schema
from jaxformer.config.sections import ExperimentConfig
from jaxformer.errors import NotPrepared, counted
from jaxformer.experiment import Experiment
from jaxformer.models import MODELS, fused
from jaxformer.models.presets import preset
from jaxformer.observe import text
from jaxformer.observe.summary import parameter_table
from jaxformer.parallel.compile import bytes_a_device, compiled
from jaxformer.step import trained_part
from jaxformer.teacher import load_teacher

Tree = Any
LAYERS = (
    24  # from so many on, a preset's layers are scanned over here: compiling takes as long as that of one
)
# What a preset is described with, by its model's kind, where that is not a classifier of images: sections of a config.
OPENWEBTEXT = {
    "name": "openwebtext",
    "batch_size": 256,
    "tokenizer": {"name": "bytes", "template": "seq2seq"},
}
TEXT: dict[str, Any] = {
    "data": OPENWEBTEXT,
    "eval": {"split": "validation", "monitor": "loss"},
    "train": {"total": "1 epoch"},
}
USUAL: dict[str, dict[str, Any]] = {
    "decoder": {**TEXT, "task": {"name": "causal_lm"}},
    "encoder": {**TEXT, "task": {"name": "masked_lm"}},
    "encoder-decoder": {**TEXT, "task": {"name": "translation", "beams": 0}},
    "two-towers": {
        "task": {"name": "contrastive"},
        "data": {
            "name": "coco_captions",
            "batch_size": 1024,
            "tokenizer": {"name": "bytes", "template": "gpt"},
        },
        "eval": {"split": "val", "monitor": "loss"},
        "train": {"total": "30 epochs"},
    },
    "detector": {
        "task": {"name": "detection"},
        "data": {"name": "coco/2017", "batch_size": 64},
        "eval": {"split": "validation", "monitor": "ap"},
        "train": {"total": "300 epochs"},
    },
    "segmenter": {
        "task": {"name": "segmentation"},
        "data": {"name": "scene_parse150", "batch_size": 16},
        "eval": {"split": "test", "monitor": "mean_iou"},
        "train": {"total": "127 epochs"},
    },
}


def usual_examples(model: Any) -> dict[str, Any] | None:
    """`data.examples` of a model's usual data; None for images with a class each."""
    match model.kind:
        case "decoder" | "encoder":
            return {"name": "windows", "length": model.context_length}
        case "encoder-decoder":
            return {"name": "pairs", "length": model.context_length}
        case "two-towers":
            return {"name": "captions", "length": model.context_length, "caption_feature": "captions/text"}
        case "detector":
            return {"name": "detection", "size": (800, 1333), "max_objects": 100}
        case "segmenter":
            return {"name": "segmentation", "size": model.window or (512, 512)}
    return None


def for_preset(name: str) -> dict[str, Any]:
    """A config that trains a preset on the usual data of its kind, as nested dicts: classifiers on ImageNet."""
    model = preset(name)
    alike = model.get("first_norm", True)  # else the first block is unlike the others
    if model.get("depth", 0) >= LAYERS and alike:
        model["scan"] = True
    built = schema.build(MODELS, model, "model")
    config: dict[str, Any] = {
        "task": {"name": "classification"},
        "model": model,
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup": "5%"},
        "precision": "bfloat16",
        "data": {"name": "imagenet2012", "batch_size": 1024},
        "eval": {"split": "validation"},
        "train": {"total": "90 epochs"},
    }
    config |= USUAL.get(built.kind, {})
    if (examples := usual_examples(built)) is not None:
        config["data"] = {**config["data"], "examples": examples}
    if built.kind == "encoder":
        config["model"] = {**model, "head": "mlm"}
    return config


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
    """Bytes of everything temporary in the compiled step but the gradients; None if the step was not compiled. Compiled
    for CPU devices this is an estimate for others: there, rematerialisation saves nothing with unrolled layers, and
    does with model.scan. For a topology it is the TPU's compiler's figure."""
    flops: int
    """Forward and backward pass of the whole batch (products and convolutions)."""
    attention: tuple[str, ...] = ()
    """Which kernels of attention the step has, and why no better ones; empty on CPUs, and if it was not compiled."""


def assemble(config: ExperimentConfig, devices: Sequence[Any] | None = None) -> Experiment:
    """An Experiment on `devices`, or all there are; where its dataset is missing, its batches are nominal.

    Raises:
      UserError: the dataset is missing, and neither the config nor what is known of it says how large its arrays are.
    """
    experiment = Experiment(config, devices)
    try:
        experiment.train_data, experiment.eval_data  # noqa: B018 - builds them
    except NotPrepared as missing:
        nominal = nominal_batches(config, missing)
        return Experiment(config, devices, train_data=nominal, eval_data=nominal)
    return experiment


def footprint(experiment: Experiment, *, compile_step: bool = True) -> Footprint:
    """The bytes that one device holds and the FLOPs of a step, without allocating anything."""
    shapes = experiment.state_shapes
    gradients = bytes_a_device(trained_part(shapes.params, experiment.trainable))
    activations = None
    attention: set[str] = set()
    if compile_step:
        jitted, config, teacher = experiment, experiment.config, load_teacher(experiment)
        if config.parallel.mode != "jit":  # pmap's compiled step does not report its memory
            jit = replace(config, parallel=replace(config.parallel, mode="jit"))
            jitted = Experiment(jit, experiment.devices, train_data=experiment.train_data)
        fixed = () if teacher is None else (teacher.variables,)
        with fused.choices() as attention:
            lowered = jitted.train_step(teacher).lower(jitted.state_shapes, jitted.batch_shapes, *fixed)
        with memory_errors_explained(experiment):
            memory = compiled(lowered, jitted.layout.mesh).memory_analysis()
        activations = max(0, memory.temp_size_in_bytes - gradients)
    return Footprint(
        parameters=bytes_a_device(shapes.params),
        gradients=gradients,
        optimizer=bytes_a_device(shapes.opt_state),
        average=bytes_a_device(shapes.average),
        activations=activations,
        flops=training_flops(experiment.forward_flops) * experiment.train_data.batch_size,
        attention=tuple(sorted(attention)),
    )


def describe(experiment: Experiment, *, compile_step: bool = True) -> str:
    """The whole description, as text."""
    mesh = ", ".join(f"{name}={size}" for name, size in experiment.layout.mesh.shape.items())
    batches, total = experiment.train_data, experiment.total_steps
    count = batches.num_examples
    shown = total * batches.batch_size
    held = footprint(experiment, compile_step=compile_step)
    rows: dict[str, int | None] = {"parameters": held.parameters, "gradients": held.gradients}
    rows |= {"optimizer": held.optimizer, "average of the parameters": held.average}
    rows["activations"] = held.activations
    lines = [
        model_line(experiment.bare_model),
        "",
        parameter_table(experiment.parameter_shapes),
        "",
        f"On {devices_in_words(experiment)} ({mesh}; {experiment.layout.mode}), batch {batches.batch_size}:",
        *(
            f"  {name:<26}{'not compiled' if size is None else text.data_size(size):>14} a device"
            for name, size in rows.items()
        ),
        f"  {'in all':<26}{text.data_size(sum(size or 0 for size in rows.values())):>14} a device",
        f"  {'FLOPs a step':<26}{text.engineering(held.flops, 'FLOP'):>14} forward and backward, all devices",
        *(f"  {'attention':<26}{line}" for line in held.attention),
        "",
        f"Training: {counted(total, 'step')} of {batches.batch_size} = {counted(shown, 'example')}"
        + (f" ({counted(shown / count, 'epoch')} of {count:,})" if count else ""),
        *batches.facts,
        "",
        describe_schedule(experiment.schedule, total),
        "",
        describe_rules(experiment.config.optimizer, experiment.parameter_shapes),
    ]
    return "\n".join(lines)


def devices_in_words(experiment: Experiment) -> str:
    """How many devices an experiment has, and which: "16 devices of TPU v5 lite"."""
    mesh = experiment.layout.mesh
    first = mesh.devices.flat[0]
    return counted(mesh.size, "device") + ("" if first.platform == "cpu" else f" of {first.device_kind}")


def model_line(model: Any) -> str:
    """The model and the head that the table of parameters counts."""
    name = type(model).__name__
    if model.kind == "encoder":
        head = f'the head "{model.head}" (model.head)'
    elif model.num_classes is not None:
        head = f"a head of {counted(model.num_classes, 'output')} (model.num_classes)"
    else:
        return name
    return f"{name} with {head}, which is counted here, too"
