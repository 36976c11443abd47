"""Running out of the devices' memory, as a message that says what to change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.observe import text
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.precision import dtypes

# A size as XLA writes it: "123 bytes", "1.51GiB", "6.48G".
SIZE = re.compile(r"\b(\d+(?:\.\d+)?) ?(bytes|[KMGT])(?:i?B)?\b")
UNITS = {"bytes": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@contextmanager
def memory_errors_explained(experiment: Experiment) -> Iterator[None]:
    """Turns XLA's RESOURCE_EXHAUSTED into a UserError with the config's remedies; other errors pass."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        asked, held = size_asked(str(error)), bytes_a_device(experiment.state_shapes)
        wanted = "what is needed" if asked is None else text.data_size(asked)
        raise UserError(
            f"out of memory: {wanted} did not fit beside what else a device holds; "
            f"the train state alone takes {text.data_size(held)} a device",
            f"any of these takes less: {', '.join(remedies(experiment))}, or a smaller model",
        ) from error


def size_asked(message: str) -> float | None:
    """The bytes that an error of XLA's says could not be had; None if it does not say."""
    found = SIZE.search(message)
    return None if found is None else float(found[1]) * UNITS[found[2]]


def remedies(experiment: Experiment) -> Iterator[str]:
    """Changes of the config that need less memory, the simplest first."""
    config, model = experiment.config, experiment.bare_model
    data, mesh = config.data, experiment.layout.mesh
    yield f"a smaller data.batch_size than {data.batch_size}"
    yield f"a smaller data.eval_batch_size than {data.eval_batch_size or data.batch_size} (in evaluations)"
    yield f"a larger train.accumulate than {config.train.accumulate} (microbatches)"
    if model.remat == "none":
        yield 'model.remat="full"'
    if dtypes(config.precision).compute == "float32":
        yield 'precision="bfloat16"'
    if config.parallel.mode == "jit" and mesh.size > mesh.shape["fsdp"]:
        yield f"a larger parallel.mesh.fsdp than {mesh.shape['fsdp']} (it divides the train state)"
