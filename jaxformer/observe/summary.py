"""The summaries at the start and at the end of a run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxformer.observe import text
from jaxformer.observe.device import MFU_FORMULA


@dataclass(frozen=True)
class ParameterRow:
    """A line of the parameter table: one array, or a module's."""

    path: str
    """ "encoder/block_0/attention/query/kernel", or its first parts."""
    shape: str
    """ "3 x 64 x 64" for an array, "8 arrays" for several."""
    count: int
    """Numbers in it."""
    dtype: str
    """ "float32"; several are joined with commas."""


def leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, array) of nested mappings, in their order."""
    for key, value in tree.items():
        here = f"{path}/{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from leaves(value, here)
        else:
            yield here, value


def parameter_rows(params: Mapping[str, Any], depth: int | None = 2) -> list[ParameterRow]:
    """The parameter table's rows.

    Args:
      params: nested mappings with arrays (or ShapeDtypeStructs: shapes are all that is looked at).
      depth: arrays that agree in so many parts of their path are added up; None keeps each apart.
    """
    groups: dict[str, list[Any]] = {}
    for path, array in leaves(params):
        groups.setdefault("/".join(path.split("/")[:depth]), []).append(array)
    rows = []
    for path, arrays in groups.items():
        shape = " x ".join(map(str, arrays[0].shape)) if len(arrays) == 1 else f"{len(arrays)} arrays"
        count = sum(math.prod(array.shape) for array in arrays)
        rows.append(
            ParameterRow(path, shape or "scalar", count, ", ".join(sorted({str(a.dtype) for a in arrays})))
        )
    return rows


def parameter_table(params: Mapping[str, Any], depth: int | None = 2) -> str:
    """A text table of a model's parameters: path, shape, count, dtype, share of the whole; and their sum."""
    rows = parameter_rows(params, depth)
    total = sum(row.count for row in rows)
    cells = [(r.path, r.shape, f"{r.count:,}", r.dtype, f"{r.count / max(total, 1):.1%}") for r in rows]
    return text.table(
        ("parameters", "shape", "count", "dtype", "share"),
        [*cells, ("total", "", f"{total:,}", "", "")],
        right=("count", "share"),
        foot=True,
    )


def start_summary(
    *,
    run_dir: str,
    device: str,
    model: str,
    parameters: int,
    data: str,
    batch_size: int,
    start_step: int,
    total_steps: int,
    steps_per_epoch: float,
    precision: str,
    flops_per_example: float | None = None,
    bytes_per_device: int | None = None,
) -> str:
    """The summary of a run that begins, a line for each fact.

    Args:
      device: see `device_line`.
      parameters: how many numbers the model has.
      flops_per_example: of forward and backward pass.
      bytes_per_device: of the train state on the fullest device.
    """
    steps = (
        f"{total_steps:,} ({text.counted(total_steps / steps_per_epoch, 'epoch')}), batches of {batch_size:,}"
    )
    flops = None
    if flops_per_example is not None:
        per_step = text.engineering(flops_per_example * batch_size, "FLOP")
        per_example = text.engineering(flops_per_example, "FLOP")
        flops = f"{per_step} a step, {per_example} an example (forward + backward)"
    return text.notes(
        {
            "run": run_dir,
            "device": device,
            "model": f"{model}, {parameters:,} parameters",
            "data": data,
            "steps": steps if start_step == 0 else f"{steps}; going on from step {start_step:,}",
            "precision": precision,
            "compute": flops,
            "memory": None
            if bytes_per_device is None
            else f"{text.data_size(bytes_per_device)} of train state a device",
        }
    )


def end_summary(result: Mapping[str, Any], *, report: str | None = None) -> str:
    """The summary of a run that ended, a line for each fact.

    Args:
      result: what result.json holds: status, step, final, best, seconds, examples_per_second, mfu, and
        "peak": what the MFU is measured against, in words (`Peak.source`), if that was noted.
      report: where the report is.
    """
    best, mfu = result["best"], result["mfu"]
    seconds = dict(result["seconds"])
    total = seconds.pop("total")
    phases = ", ".join(f"{name} {text.duration(value)}" for name, value in seconds.items())
    speed = result["examples_per_second"]
    return text.notes(
        {
            "status": f"{result['status']} at step {result['step']:,}",
            "final": metrics_text(result["final"]) or None,
            "best": f"{metrics_text(best_metrics(best))} at step {best['step']:,}" if best else None,
            "time": f"{text.duration(total)} ({phases})" if phases else text.duration(total),
            "speed": f"{text.number(speed)} examples/s" if speed else None,
            "MFU": None if mfu is None else f"{mfu:.1%} = {mfu_in_words(result)}",
            "report": report,
        }
    )


def mfu_in_words(result: Mapping[str, Any]) -> str:
    """MFU's formula, and what the peak in it is."""
    peak = result.get("peak")
    return f"{MFU_FORMULA}; peak: {peak}" if peak else MFU_FORMULA


def best_metrics(best: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in result.json's "best", without the step they are of."""
    return {name: float(value) for name, value in best.items() if name != "step"}


def metrics_text(metrics: Mapping[str, float]) -> str:
    """ "accuracy 0.9861, loss 0.05210"."""
    return ", ".join(f"{name} {text.number(value)}" for name, value in metrics.items())
