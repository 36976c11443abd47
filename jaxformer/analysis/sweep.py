"""Preflights of one config on every sensible mesh of a slice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from jaxformer.analysis.describe import assemble
from jaxformer.analysis.preflight import Report, Target, check_mode, heading, larger, mesh_words, preflight
from jaxformer.config.sections import ExperimentConfig
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.observe import text
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.parallel.topologies import VERSIONS

MOST_MESHES = 12  # that are compiled: each takes from seconds to minutes
MOST_TENSOR = 16
LONG = 2048  # tokens of a text that a device has at least where "sequence" splits it


def sweep(
    config: ExperimentConfig,
    name: str,
    devices: Sequence[Any],
    price: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Report]:
    """Preflights on the meshes of a slice, the quickest first by the highest time, then those that do not fit.

    What by the shapes of state and gradients alone cannot fit is not compiled.

    Args:
      config: the resolved config; its own mesh does not count.
      name: the slice's.
      devices: the slice's.
      price: of a chip for an hour, in dollars.
      say: is told what is being compiled.

    Raises:
      UserError: no mesh suits the config, or the config is wrong on any mesh.
    """
    target, reports = Target.named(name), []
    memory = VERSIONS[target.version].figures.memory
    first = on_mesh(config, devices[:1], {"data": 1})
    check_mode(first)
    first.check()
    left = list(meshes(len(devices), first))
    if not left:
        raise UserError(
            f"data.batch_size={first.train_data.batch_size}: no mesh of {len(devices)} devices divides it; "
            "use a multiple of it"
        )
    compiled_ones = 0
    for number, mesh in enumerate(left, 1):
        experiment = on_mesh(config, devices, mesh, first)
        state, gradients = (
            bytes_a_device(part) for part in (experiment.state_shapes, experiment.state_shapes.params)
        )
        if state + gradients > memory:
            about = heading(experiment, target) | {"fits": False, "needs": float(state + gradients)}
            reports.append(about | {"remedies": larger(experiment, target)})
            continue
        if compiled_ones == MOST_MESHES:
            say(f"{len(left) - number + 1} more meshes are left out: {mesh_words(mesh)} and those behind it")
            break
        compiled_ones += 1
        report = preflight(experiment, name, price)
        reports.append(report)
        takes = f"{text.duration(report['step']['seconds'][1])} a step" if report["fits"] else "does not fit"
        say(f"mesh {number} of {len(left)}: {mesh_words(mesh)}: {takes}")
    return sorted(
        reports, key=lambda report: report["step"]["seconds"][1] if report["fits"] else float("inf")
    )


def on_mesh(
    config: ExperimentConfig, devices: Sequence[Any], mesh: Mapping[str, int], like: Experiment | None = None
) -> Experiment:
    """The experiment on a mesh; its data are those of `like`."""
    placed = replace(config, parallel=replace(config.parallel, mesh=dict(mesh)))
    if like is None:
        return assemble(placed, devices)
    return Experiment(placed, devices, train_data=like.train_data, eval_data=like.eval_data)


def meshes(devices: int, experiment: Experiment) -> Iterator[dict[str, int]]:
    """Yields the sensible meshes, those with little "tensor" and "sequence" and much "fsdp" first.

    The batch must be a multiple of data x fsdp x the microbatches, heads one of "tensor".
    """
    heads = experiment.bare_model.num_heads
    batch = experiment.train_data.batch_size // experiment.config.train.accumulate
    pairs = product(powers(MOST_TENSOR), parts_of_texts(experiment))
    for tensor, sequence in sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[0])):
        rest, left = divmod(devices, tensor * sequence)
        if left or not rest or batch % rest or (tensor > 1 and not divides(tensor, heads)):
            continue
        for fsdp in reversed([size for size in range(1, rest + 1) if rest % size == 0 and is_sensible(size)]):
            yield {"data": rest // fsdp, "fsdp": fsdp, "sequence": sequence, "tensor": tensor}


def parts_of_texts(experiment: Experiment) -> list[int]:
    """The sizes of "sequence" that leave a device LONG tokens or more of each text: 1 alone where texts are short."""
    (length, *_), _ = experiment.train_data.element_spec.get("tokens", ((0,), None))
    lengths = (length, *experiment.config.data.buckets)
    return [parts for parts in powers(max(1, length // LONG)) if not any(n % parts for n in lengths)]


def powers(most: int) -> list[int]:
    """The powers of two up to `most`."""
    return [2**power for power in range(most.bit_length())]


def is_sensible(size: int) -> bool:
    """Whether widths are often multiples of it: powers of two, and three times one."""
    return size & (size - 1) == 0 or (size % 3 == 0 and is_sensible(size // 3))


def divides(tensor: int, heads: Any) -> bool:
    """Whether so many parts take whole heads; a model without heads is not split."""
    return isinstance(heads, int) and heads % tensor == 0
