"""The parameter table, and the summary at the end of a run."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxformer.observe import text
from jaxformer.observe.device import MFU_FORMULA


class ParameterRow(NamedTuple):
    """A line of the parameter table: one array, or a module's."""

    path: str
    """ "encoder/block_0/attention/query/kernel", or its first parts."""
    shape: str
    """ "3 x 64 x 64" for an array, "8 arrays" for several."""
    count: int
    """Numbers in it."""
    dtype: str
    """ "float32"; several are joined with commas."""


def parameter_rows(params: Mapping[str, Any], depth: int | None = 2) -> list[ParameterRow]:
    """The parameter table's rows.

    Args:
      params: nested mappings with arrays (or ShapeDtypeStructs: only shapes and dtypes are read).
      depth: arrays that agree in so many parts of their path are added up; None keeps each apart.
    """
    from flax.traverse_util import flatten_dict

    groups: dict[str, list[Any]] = {}
    for path, array in flatten_dict(params).items():
        groups.setdefault("/".join(path[:depth]), []).append(array)
    rows = []
    for name, arrays in groups.items():
        shape = " x ".join(map(str, arrays[0].shape)) if len(arrays) == 1 else f"{len(arrays)} arrays"
        count = sum(math.prod(array.shape) for array in arrays)
        dtypes = sorted({str(array.dtype) for array in arrays})
        rows.append(ParameterRow(name, shape or "scalar", count, ", ".join(dtypes)))
    return rows


def parameter_table(params: Mapping[str, Any], depth: int | None = 2) -> str:
    """A text table of a model's parameters: path, shape, count, dtype, share of the whole; and their sum."""
    rows = parameter_rows(params, depth)
    total = sum(row.count for row in rows)
    cells = [(r.path, r.shape, f"{r.count:,}", r.dtype, f"{r.count / max(total, 1):.1%}") for r in rows]
    columns = ("parameters", "shape", "count", "dtype", "share")
    return text.table(
        columns, [*cells, ("total", "", f"{total:,}", "", "")], right=("count", "share"), foot=True
    )


def end_summary(result: Mapping[str, Any], *, report: str | None = None) -> str:
    """The summary of a run that ended, a line for each fact.

    Args:
      result: the values of result.json: status, step, final, best, seconds, examples_per_second, mfu, and
        "peak": what the MFU is measured against, in words (`Peak.source`), if that was noted.
      report: where the report is.
    """
    best, mfu, speed = dict(result["best"] or {}), result["mfu"], result["examples_per_second"]
    at = best.pop("step", 0)
    seconds = dict(result["seconds"])
    total = text.duration(seconds.pop("total"))
    phases = ", ".join(f"{name} {text.duration(value)}" for name, value in seconds.items())
    known = {
        "status": f"{result['status']} at step {result['step']:,}",
        "final": metrics_text(result["final"]) or None,
        "best": f"{metrics_text(best)} at step {at:,}" if best else None,
        "time": f"{total} ({phases})" if phases else total,
        "speed": f"{text.number(speed)} examples/s" if speed else None,
        "MFU": None if mfu is None else f"{mfu:.1%} = {mfu_in_words(result)}",
        "report": report,
    }
    return text.notes(known)


def mfu_in_words(result: Mapping[str, Any]) -> str:
    """MFU's formula, and the peak in it."""
    return f"{MFU_FORMULA}; peak: {result['peak']}" if result.get("peak") else MFU_FORMULA


def metrics_text(metrics: Mapping[str, float]) -> str:
    """ "accuracy 0.9861, loss 0.05210"; as in result.json, NaN may be a string."""
    return ", ".join(f"{name} {text.number(float(value))}" for name, value in metrics.items())
