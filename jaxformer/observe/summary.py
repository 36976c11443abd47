"""The parameter table, and the summary at the end of a run."""

import math
from collections.abc import Mapping
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


def costs(result: Mapping[str, Any]) -> dict[str, str]:
    """The size, the time and the speed of a run as people read them, "" where they are not known.

    Args:
      result: the values of result.json; {} if there are none.
    """
    parameters, flops, mfu = (result.get(name) for name in ("parameters", "flops_per_example", "mfu"))
    rate, seconds = result.get("examples_per_second"), result.get("seconds", {}).get("total")
    return {
        "parameters": "" if parameters is None else text.engineering(parameters),
        "FLOPs/example": text.engineering(flops) if flops else "",
        "examples/s": text.number(rate) if rate else "",
        "time": "" if seconds is None else text.duration(seconds),
        "MFU": "" if mfu is None else f"{mfu:.1%}",
    }


def end_summary(
    result: Mapping[str, Any], goodput: Mapping[str, str] | None = None, report: str | None = None
) -> str:
    """The summary of a run that ended, a line for each fact.

    Args:
      result: the values of result.json.
      goodput: where the time of all attempts went, as lines by name.
      report: where the report is.
    """
    known, best = costs(result), best_text(result)
    seconds = [(name, value) for name, value in result["seconds"].items() if name != "total"]
    phases = ", ".join(f"{name} {text.duration(value)}" for name, value in seconds)
    found = {
        "status": f"{result['status']} at step {result['step']:,}",
        "final": metrics_text(result["final"]) + text.doubt(result["final"]),
        "best": f"{best} at step {result['best']['step']:,}" if best else "",
        "remark": "; ".join(result.get("remarks", ())),
        "time": f"{known['time']} ({phases})" if phases else known["time"],
        **(goodput or {}),
        "speed": f"{known['examples/s']} examples/s" if known["examples/s"] else "",
        "MFU": f"{known['MFU']} = {mfu_in_words(result)}" if known["MFU"] else "",
        "report": report,
    }
    return text.notes({name: value for name, value in found.items() if value})


def mfu_in_words(result: Mapping[str, Any]) -> str:
    """The formula of MFU, and the source of the peak in it."""
    return f"{MFU_FORMULA}; peak: {result['peak']}" if result.get("peak") else MFU_FORMULA


def metrics_text(metrics: Mapping[str, float]) -> str:
    """ "accuracy 0.9861, loss 0.05210"; as in result.json, NaN may be a string."""
    return ", ".join(f"{name} {text.number(float(value))}" for name, value in metrics.items())


def best_text(result: Mapping[str, Any]) -> str:
    """The best metrics of result.json; "" where there are none."""
    best = result.get("best") or {}
    return metrics_text({name: value for name, value in best.items() if name != "step"})
