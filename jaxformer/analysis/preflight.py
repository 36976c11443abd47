"""What the compiler of a target says of a config before the launch: whether it fits, and how long a step takes.

Whether it fits, the bytes and the collectives are the compiler's. Times are estimates, and the report says so.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from jaxformer.analysis.collectives import Collective
from jaxformer.analysis.flops import kernel_flops, largest_arrays, training_flops
from jaxformer.analysis.hlo import Module
from jaxformer.analysis.memory import check_options, remedies, size_asked
from jaxformer.analysis.traffic import memory_bytes
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.models import fused
from jaxformer.observe import text
from jaxformer.observe.device import peak_flops
from jaxformer.parallel.compile import bytes_a_device, compiled
from jaxformer.parallel.topologies import VERSIONS, chips, topology
from jaxformer.precision import dtypes
from jaxformer.teacher import load_teacher

Report = dict[str, Any]
KERNEL_SHARE = 0.4  # of the peak, that kernels of which the compiler says nothing are assumed to reach
CHECKPOINT_RATE = 0.5e9  # bytes a second that a host is assumed to write
LARGEST = 5  # arrays that are listed
# An allocation in the compiler's message: its size, its place in the model, its shape.
ALLOCATION = re.compile(r'Size: (\S+)\s+(?:Operator: op_name="([^"]*)"\s+)?(?:\S.*\n\s+)*?Shape: (\S+?)[{\s]')


@dataclass(frozen=True)
class Target:
    """A slice of TPUs, with the figures of one of its devices."""

    version: str
    """The version of its TPUs: "v5e"."""
    shape: str
    """Its shape in chips: "4x4"."""

    @classmethod
    def named(cls, name: str) -> "Target":
        """The slice of a name, as `parallel.topologies.topology` takes it."""
        return cls(*topology(name))

    @property
    def chips(self) -> int:
        """How many chips there are."""
        return chips(self.shape)

    @property
    def dimensions(self) -> int:
        """How many dimensions its links go along: 2 or 3."""
        return len(self.shape.split("x"))


def preflight(experiment: Experiment, name: str, price: float | None = None) -> Report:
    """Compiles an experiment's train step for a slice, and says what its compiler tells.

    Args:
      experiment: on the slice's devices (`parallel.topologies.topology_devices`).
      name: the slice's.
      price: of a chip for an hour, in dollars.

    Returns:
      Numbers by name, as JSON has them: bytes, seconds, FLOPs; a pair is the lowest and the highest estimate.

    Raises:
      UserError: the experiment's mode is pmap.
    """
    check_mode(experiment)
    target, mesh = Target.named(name), experiment.layout.mesh
    report = heading(experiment, target) | {"compiler": f"libtpu {version('libtpu')}, jax {version('jax')}"}
    teacher, start = load_teacher(experiment), time.perf_counter()
    fixed = () if teacher is None else (teacher.variables,)
    with fused.choices() as attention:
        traced = experiment.train_step(teacher).trace(
            experiment.state_shapes, experiment.batch_shapes, *fixed
        )
    report["attention"] = sorted(attention)
    try:
        program = compiled(traced.lower(), mesh)
    except jax.errors.JaxRuntimeError as error:
        check_options(str(error))
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return report | refusal(experiment, target, str(error), traced.jaxpr.jaxpr)
    report |= {"compile_seconds": time.perf_counter() - start, "fits": True}
    module = Module.read(program.as_text())
    report |= memory(experiment, target, program.memory_analysis(), module)
    report |= exchanged(experiment, module.collectives(mesh.shape))
    report |= estimate(experiment, target, module, kernel_flops(traced.jaxpr.jaxpr), report["sent"])
    return report | training(experiment, target, report["step"]["seconds"], price) | checkpoint(experiment)


def heading(experiment: Experiment, target: Target) -> Report:
    """What is compiled, and for what."""
    mesh = experiment.layout.mesh
    return {
        "topology": f"{target.version}:{target.shape}",
        "chips": target.chips,
        "devices": mesh.size,
        "device": mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "batch_size": experiment.train_data.batch_size,
        "data": list(experiment.train_data.facts),
    }


def check_mode(experiment: Experiment) -> None:
    """Raises UserError under pmap, whose programs say nothing of their memory."""
    if experiment.config.parallel.mode != "jit":
        raise UserError(
            'parallel.mode="pmap": its programs do not tell their memory; use mode="jit", which computes the same'
        )


def refusal(experiment: Experiment, target: Target, message: str, jaxpr: Any) -> Report:
    """What the compiler says of a program that does not fit, and the largest arrays, whole, if it lists none."""
    used, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # such as no logits, where the loss makes none
    listed = [
        {"bytes": size_asked(size) or 0.0, "shape": shape, "where": where}
        for size, where, shape in ALLOCATION.findall(message)
    ]
    whole = largest_arrays(used, LARGEST)
    return {
        "fits": False,
        "reason": message.partition("RESOURCE_EXHAUSTED: ")[2].partition("\n")[0],
        "needs": size_asked(message),
        "bytes": {"state": bytes_a_device(experiment.state_shapes)},
        "largest": listed[:LARGEST],
        "largest_whole": [{"bytes": size, "shape": shape, "where": where} for size, shape, where in whole],
        "remedies": list(larger(experiment, target) or remedies(experiment, evaluates=False)),
    }


def larger(experiment: Experiment, target: Target) -> list[str]:
    """What helps where train state and gradients alone do not fit; empty where they do."""
    shapes, mesh = experiment.state_shapes, experiment.layout.mesh
    device = VERSIONS[target.version].figures.memory
    held, whole = (size(shapes) + size(shapes.params) for size in (bytes_a_device, whole_bytes))
    if held <= device:
        return []
    least = math.ceil(whole / device)
    if least <= mesh.size > mesh.shape["fsdp"]:
        return [f"a larger parallel.mesh.fsdp than {mesh.shape['fsdp']} (it divides the train state)"]
    needs = f"state and gradients take {text.data_size(whole)} in all"
    return [
        f"a larger slice, with fsdp over all of it: {needs}, the memory of {least:,} devices at least",
        "a smaller model",
    ]


def memory(experiment: Experiment, target: Target, found: Any, module: Module) -> Report:
    """Bytes on one device by kind, each counted once: what is donated is of the state, not of the outputs."""
    batch = bytes_a_device(experiment.batch_shapes)
    held = {
        "state": found.argument_size_in_bytes - batch,
        "batch": batch,
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
    }
    total = {"total": sum(held.values()), "at_once": found.peak_memory_in_bytes}
    total |= {"memory": VERSIONS[target.version].figures.memory, "host": found.host_temp_size_in_bytes}
    largest = [
        {"bytes": size, "shape": shape, "where": where} for size, shape, where in module.largest(LARGEST)
    ]
    return {"bytes": held | total, "largest": largest}


def exchanged(experiment: Experiment, collectives: list[Collective]) -> Report:
    """Bytes that a device sends in a step, by axis and kind, and the largest array that it gathers."""
    rows: dict[tuple[str, str], dict[str, float]] = defaultdict(
        lambda: {"times": 0, "sent": 0.0, "largest": 0.0}
    )
    for one in collectives:
        row = rows[one.axes, one.kind]
        row["times"] += one.times
        row["sent"] += one.times * one.sent
        row["largest"] = max(row["largest"], one.size)
    ranked = sorted(rows.items(), key=lambda item: -item[1]["sent"])
    gathered = max((o for o in collectives if o.kind == "all-gather"), key=lambda o: o.size, default=None)
    return {
        "collectives": [{"axes": axes, "kind": kind, **row} for (axes, kind), row in ranked],
        "sent": sum(row["sent"] for row in rows.values()),
        "largest_gather": gathered.size if gathered else 0.0,
        "gathered": gathered.where if gathered else "",
        "parameters": whole_bytes(experiment.state_shapes.params),
    }


def estimate(experiment: Experiment, target: Target, module: Module, kernels: int, sent: float) -> Report:
    """The roofline by the data sheet, the compiler's estimate in cycles, and what both make of a step's time.

    The lowest time has everything at once: what is computed, and what is sent over all links. The highest has one
    after the other, and sends over the links of one dimension of the slice alone.
    """
    figures, config = VERSIONS[target.version].figures, experiment.config
    mesh, data = experiment.layout.mesh, experiment.train_data
    flops = training_flops(experiment.forward_flops) * data.batch_size / mesh.size
    peak = peak_flops(mesh.devices.flat[0].device_kind, dtypes(config.precision).compute)
    assert peak is not None, "every TPU has a peak"
    moved, cycles = memory_bytes(module), module.cycles()
    roofline = {"flops": flops, "memory_bytes": moved, "sent_bytes": sent}
    roofline |= {"flops_seconds": flops / peak, "memory_seconds": moved / figures.bandwidth}
    roofline |= {"links_seconds": sent / figures.links}
    counted = {"cycles": cycles, "clock": figures.clock, "seconds": cycles / figures.clock}
    counted |= {"kernels": module.kernels(), "kernel_flops": kernels, "kernel_share": KERNEL_SHARE}
    counted |= {"kernel_seconds": kernels / (KERNEL_SHARE * peak)}
    computed = counted["seconds"] + counted["kernel_seconds"]
    seconds = [
        max(computed, roofline["links_seconds"]),
        computed + roofline["links_seconds"] * target.dimensions,
    ]
    return {
        "peak": peak,
        "roofline": roofline,
        "compiler_estimate": counted,
        "step": {
            "seconds": seconds,
            "examples_per_second": [data.batch_size / s for s in reversed(seconds)],
            "mfu": [flops / (peak * s) for s in reversed(seconds)],
        },
    }


def training(experiment: Experiment, target: Target, seconds: list[float], price: float | None) -> Report:
    """Days and money to the end, without evaluations, checkpoints, and restarts."""
    hours = [experiment.total_steps * s / 3600 for s in seconds]
    made: Report = {"steps": experiment.total_steps, "days": [h / 24 for h in hours]}
    made["chip_hours"] = [h * target.chips for h in hours]
    if price is not None:
        made |= {"price": price, "dollars": [price * h for h in made["chip_hours"]]}
    return {"training": made}


def checkpoint(experiment: Experiment) -> Report:
    """The size of a checkpoint, and the time that all hosts together take to write it."""
    hosts = len({device.process_index for device in experiment.layout.mesh.devices.flat})
    size = whole_bytes(experiment.state_shapes)
    made = {"bytes": size, "hosts": hosts, "host_rate": CHECKPOINT_RATE}
    return {"checkpoint": made | {"seconds": size / (hosts * CHECKPOINT_RATE)}}


def whole_bytes(tree: Any) -> int:
    """Bytes of a tree of shapes, over all devices, each array once."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def mesh_words(mesh: Mapping[str, int]) -> str:
    """A mesh as the flag takes it: "data=2,fsdp=8"; axes of size 1 are left out."""
    return ",".join(f"{axis}={size}" for axis, size in mesh.items() if size > 1) or "data=1"
