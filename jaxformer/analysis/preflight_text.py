"""A preflight's report, and a table of several, as text."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxformer.analysis.preflight import Report, mesh_words
from jaxformer.errors import counted
from jaxformer.observe import text

KINDS = {
    "state": "train state",
    "batch": "batch",
    "outputs": "metrics",
    "temporaries": "temporaries",
    "code": "code",
    "total": "in all",
    "at_once": "at once",
    "memory": "of its memory",
    "host": "host's memory",
}
NOT_COMPILED = "not compiled: state and gradients alone do not fit"
TAKES_LESS = "Any of these takes less:"
DECIDES = 'What is needed "at once" must fit; "in all" counts what is not there at the same time, too.'
ESTIMATES = "Times, MFU and dollars are estimates; nothing was measured."


def report_text(report: Report) -> str:
    """The whole report."""
    head = [
        f"{report['topology']}: {counted(report['chips'], 'chip')}, {counted(report['devices'], 'device')} of "
        f"{report['device']}; {mesh_words(report['mesh'])}; batch {report['batch_size']:,}",
        f"Compiled by the TPU's own compiler ({report['compiler']}); nothing was run.",
        *(f"Attention: {line}" for line in report["attention"]),
        *(f"Data: {line}" for line in report["data"]),
        "",
    ]
    parts = [verdict, collectives, times, end] if report["fits"] else [refused]
    return "\n".join([*head, *(line for part in parts for line in part(report))])


def refused(report: Report) -> list[str]:
    """The lines on a program that does not fit."""
    state = text.data_size(report["bytes"]["state"])
    lines = [
        f"DOES NOT FIT: {report['reason']}",
        f"The train state alone takes {state} a device.",
        TAKES_LESS,
        *(f"  {remedy}" for remedy in report["remedies"]),
        "",
    ]
    if report["largest"]:
        return [*lines, "The compiler's largest allocations:", *arrays(report["largest"])]
    whole = (
        f"The largest arrays of the step, before they are split over {counted(report['devices'], 'device')}:"
    )
    return [*lines, whole, *arrays(report["largest_whole"])]


def verdict(report: Report) -> list[str]:
    """The lines on memory."""
    held = report["bytes"]
    rows = [f"  {KINDS[kind]:<16}{text.data_size(size):>10}" for kind, size in held.items()]
    return [
        "FITS, by the compiler. Bytes a device:",
        *rows,
        DECIDES,
        "",
        "The largest arrays that a step makes in the device's main memory:",
        *arrays(report["largest"]),
        "",
    ]


def arrays(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each array: its size, its shape, and where it comes from."""
    width = max((len(row["shape"]) for row in rows), default=0)
    return [
        f"  {text.data_size(row['bytes']):>9}  {row['shape']:<{width}}  {row['where'][-90:]}".rstrip()
        for row in rows
    ]


def collectives(report: Report) -> list[str]:
    """The lines on what devices exchange."""
    if not report["collectives"]:
        return ["Devices exchange nothing.", ""]
    rows = [
        (
            row["axes"],
            row["kind"],
            f"{row['times']:,}",
            text.data_size(row["sent"]),
            text.data_size(row["largest"]),
        )
        for row in report["collectives"]
    ]
    columns = ("axes", "kind", "times", "sent", "largest")
    gathered, parameters = report["largest_gather"], report["parameters"]
    share = f"{gathered / parameters:.1%} of the size of the parameters, {text.data_size(parameters)}"
    where = f", in {report['gathered'][-90:]}" if report["gathered"] else ""
    return [
        f"A device sends {text.data_size(report['sent'])} a step (in rings; loops are counted):",
        text.table(columns, rows, right=columns[2:]),
        f"The largest array that is gathered: {text.data_size(gathered)} ({share}){where}.",
        "",
    ]


def times(report: Report) -> list[str]:
    """The lines on the roofline and on the compiler's estimate."""
    roofline, estimate = report["roofline"], report["compiler_estimate"]
    kernels = (
        f"  {counted(estimate['kernels'], 'kernel')} without an estimate: "
        f"{text.engineering(estimate['kernel_flops'], 'FLOP')} at {estimate['kernel_share']:.0%} of the peak "
        f"(assumed): {text.duration(estimate['kernel_seconds'])}"
    )
    return [
        "A step of one device at the rates of the data sheet:",
        f"  products  {text.engineering(roofline['flops'], 'FLOP'):>12}  {text.duration(roofline['flops_seconds'])}",
        f"  memory    {text.data_size(roofline['memory_bytes']):>12}  {text.duration(roofline['memory_seconds'])} "
        "(bytes estimated from the program's operands)",
        f"  links     {text.data_size(roofline['sent_bytes']):>12}  {text.duration(roofline['links_seconds'])}",
        f"The compiler's estimate: {text.engineering(estimate['cycles'])} cycles, at {estimate['clock'] / 1e9:.3g} GHz "
        f"(assumed) {text.duration(estimate['seconds'])}; without collectives",
        *([kernels] if estimate["kernels"] else []),
        "",
    ]


def end(report: Report) -> list[str]:
    """The lines on the whole training."""
    step, training, saved = report["step"], report["training"], report["checkpoint"]
    lines = {
        "a step": pair(step["seconds"], text.duration),
        "examples a second": pair(step["examples_per_second"]),
        "MFU": pair(step["mfu"], "{:.1%}".format),
        f"{training['steps']:,} steps": f"{pair(training['days'], lambda days: text.duration(86_400 * days))}; "
        f"{pair(training['chip_hours'])} chip-hours",
        "money": None
        if "price" not in training
        else f"{pair(training['dollars'])} dollars, at {training['price']:g} a chip-hour",
        "a checkpoint": f"{text.data_size(saved['bytes'])}, {text.duration(saved['seconds'])} with "
        f"{counted(saved['hosts'], 'host')} at {text.data_size(saved['host_rate'])}/s each (assumed)",
    }
    return [
        "Estimates: the lower time has computing and sending at once, the higher one after the other and",
        "the links of one dimension of the slice alone. Nothing was measured.",
        *text.notes(lines).splitlines(),
    ]


def pair(values: Sequence[float], shown: Callable[[float], str] = text.number) -> str:
    """A range: "3.2 to 4.1"; one number where both are shown alike."""
    return " to ".join(dict.fromkeys(map(shown, values)))


def rounded(share: float) -> str:
    """A share in per cent, with a digit behind the point where it is small."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def sweep_text(reports: Sequence[Report]) -> str:
    """A table of meshes, best first, and behind it those that do not fit."""
    first, rows = reports[0], []
    head = f"{first['topology']}: {counted(first['chips'], 'chip')}; batch {first['batch_size']:,}. "
    priced = any("dollars" in report.get("training", ()) for report in reports)
    for report in reports:
        cells = [mesh_words(report["mesh"])]
        if report["fits"]:
            step = report["step"]
            cells += [pair(step["seconds"], text.duration), pair(step["mfu"], rounded)]
            cells += [text.data_size(report["bytes"]["total"]), text.data_size(report["sent"])]
            cells += [pair(report["training"]["dollars"])] if priced else []
        else:
            needs = report["needs"]
            compiler = "does not fit, by the compiler" if "compiler" in report else NOT_COMPILED
            cells += [compiler, "", text.data_size(needs) if needs else "", "", *[""] * priced]
        rows.append(tuple(cells))
    columns = ("mesh", "a step", "MFU", "bytes a device", "sent a step", *["dollars"] * priced)
    shown = f"{head}{ESTIMATES}\n\n{text.table(columns, rows, right=columns[3:])}"
    if any(report["fits"] for report in reports):
        return shown
    nearest = min(reports, key=lambda report: report["needs"] or float("inf"))
    remedies = (f"  {remedy}" for remedy in nearest["remedies"])
    return "\n".join([f"{shown}\n\n{TAKES_LESS}", *remedies])
