"""Running out of the devices' memory, as a message that says what to change."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jaxformer.analysis.flops import largest_product
from jaxformer.config.schema import config_fields
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.observe import text
from jaxformer.observe.device import memory_limit
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.precision import dtypes
from jaxformer.step import trained_part

# XLA's messages on its options.
OPTION = re.compile(
    r"No such compile option: '.*?'|(While setting option|Failed to parse '.*?' into flag) .*\w"
)
# A size as XLA writes it: "123 bytes", "1.51GiB", "6.48G".
SIZE = re.compile(r"\b(\d+(?:\.\d+)?) ?(bytes|[KMGT])(?:i?B)?\b")
UNITS = {"bytes": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def check_memory(experiment: Experiment) -> None:
    """Holds what a training certainly needs against the memory of a device, by shapes, before anything is made.

    Counted are the train state, the gradients, and of a batch its arrays and the largest product. A training needs
    more than that, so what is refused here cannot fit; what passes may still be too large.

    Raises:
      UserError: it does not fit; names the fields that make it large.
    """
    limit = memory_limit()
    if limit is None:
        return
    config, shapes = experiment.config, experiment.state_shapes
    gradients = bytes_a_device(trained_part(shapes.params, experiment.trainable))
    state = bytes_a_device(shapes) + gradients
    has = f"a device has {text.data_size(limit)}"
    if state > limit:
        needs = f"needs at least {text.data_size(state)} a device for parameters, gradients and optimizer"
        remedy = f"make it smaller ({', '.join(largest_numbers(config.model))})"
        raise UserError(f"model: {needs}, and {has}; {remedy}")
    plain = experiment.layout.mesh.devices.flat[0].platform == "cpu"  # elsewhere attention may be fused
    train = ("batch_size", experiment.train_data, config.train.accumulate, state, without_logits)
    evaluation = (
        "eval_batch_size",
        experiment.eval_data,
        1,
        bytes_a_device(shapes.params),
        lambda outputs: outputs,
    )
    for field, batches, parts, held, kept in (train, evaluation):
        rows, example = batches.batch_size / experiment.layout.batch_shards, batches.element_spec.values()
        row: float = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in example)
        if rows * max(row, 1000) * 1000 > limit:  # else the trace is not worth its time
            one, two = (largest_product(experiment.forward_pass(n, kept), plain) for n in (1, 2))
            row += (two - one) * np.dtype(dtypes(config.precision).compute).itemsize / parts
        if held + rows * row > limit:
            fitting = max(0, int((limit - held) / row)) * experiment.layout.batch_shards
            needs = f"needs at least {text.data_size(held + rows * row)} a device"
            each = f"{text.data_size(row)} for each example, and {has}; use one far below {fitting:,}"
            raise UserError(f"data.{field}={batches.batch_size}: {needs}, {each}")


def without_logits(outputs: Any) -> Any:
    """A model's outputs; of those of a language model all but the logits, which its loss does not hold at once."""
    from jaxformer.models.outputs import TextOutputs  # loads the layers

    spared = isinstance(outputs, TextOutputs) and outputs.head is not None
    return outputs.replace(logits=None, head=None) if spared else outputs


def largest_numbers(part: Any) -> list[str]:
    """The three largest whole numbers among the fields of a model: "model.width=768"."""
    sizes = {f"model.{name}": getattr(part, name) for name in config_fields(type(part))}
    numbers = {name: size for name, size in sizes.items() if type(size) is int}
    return [f"{name}={numbers[name]}" for name in sorted(numbers, key=numbers.__getitem__, reverse=True)[:3]]


@contextmanager
def memory_errors_explained(experiment: Experiment) -> Iterator[None]:
    """Turns XLA's RESOURCE_EXHAUSTED into a UserError with the config's remedies; other errors pass, but those of
    `check_options`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        check_options(str(error))
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        asked, held = size_asked(str(error)), bytes_a_device(experiment.state_shapes)
        wanted = "what is needed" if asked is None else text.data_size(asked)
        raise UserError(
            f"out of memory: {wanted} did not fit beside what else a device holds; "
            f"the train state alone takes {text.data_size(held)} a device",
            f"any of these takes less: {', '.join(remedies(experiment))}, or a smaller model",
        ) from error


def check_options(message: str) -> None:
    """Raises UserError where an error of XLA's is that of an option that the config gives."""
    if found := OPTION.search(message):
        known = "XLA's options differ by platform and version"
        raise UserError(f"parallel.compiler_options: {found[0]}; {known}: correct it, or leave it out")


def size_asked(message: str) -> float | None:
    """The bytes that an error of XLA's says could not be had; None if it does not say."""
    found = SIZE.search(message)
    return None if found is None else float(found[1]) * UNITS[found[2]]


def remedies(experiment: Experiment, evaluates: bool = True) -> Iterator[str]:
    """Changes of the config that need less memory, the simplest first; of the train step alone if nothing evaluates."""
    config, model = experiment.config, experiment.bare_model
    data, mesh = config.data, experiment.layout.mesh
    yield f"a smaller data.batch_size than {data.batch_size}"
    if evaluates:
        yield f"a smaller data.eval_batch_size than {data.eval_batch_size or data.batch_size} (in evaluations)"
    yield f"a larger train.accumulate than {config.train.accumulate} (microbatches)"
    if model.remat == "none":
        yield 'model.remat="full"'
    if dtypes(config.precision).compute == "float32":
        yield 'precision="bfloat16"'
    if config.parallel.mode == "jit" and mesh.size > mesh.shape["fsdp"]:
        yield f"a larger parallel.mesh.fsdp than {mesh.shape['fsdp']} (it divides the train state)"
