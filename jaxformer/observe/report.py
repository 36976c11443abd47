"""A run as a page: report.html is one file that needs no network and no script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.files import write_atomically
from jaxformer.observe import pages, plots, text
from jaxformer.observe.samples import read_samples
from jaxformer.observe.summary import best_metrics, mfu_in_words
from jaxformer.observe.text_samples import drawn_maps, maps_in_words, text_parts
from jaxformer.runs import Run

REPORT = "report.html"
KINDS = {"samples": "Samples", "mistakes": "Worst mistakes"}
TOP = 3  # classes listed for an example
MOST_CONFUSED = 10
SCORES = {"f1": "F1", "iou": "IoU"}  # columns of the per-class table that are drawn, the first that is there


def write_report(run_dir: Path) -> Path:
    """Writes RUN/report.html from what the run's folder holds; what it lacks is left out.

    Returns:
      The page's path.

    Raises:
      UserError: it is not a run's folder, or a file in it is not what it should be.
    """
    run = Run.open(run_dir)
    path = run.folder / REPORT
    write_atomically(path, pages.render("report.html.j2", **report_parts(run)))
    return path


def report_parts(run: Run) -> dict[str, Any]:
    """The template's values, by name."""
    evaluation = run.evaluation or {}
    main, other = pages.panels(run.curves)
    return {
        "title": run.name,
        "status": run.status,
        "subtitle": subtitle(run),
        "cards": cards(run),
        "curves": [chart(title, lines) for title, lines in main.items()],
        "other_curves": [chart(title, lines) for title, lines in other.items()],
        "samples": [sample_section(run, kind) for kind in sorted(read_samples(run.folder), key=kind_order)],
        "confusion": confusion_svg(evaluation),
        "reliability": plots.reliability(evaluation["calibration"])
        if evaluation.get("calibration")
        else None,
        "confused": most_confused(evaluation),
        "by_position": plots.by_position(evaluation["loss_by_position"])
        if evaluation.get("loss_by_position")
        else None,
        "notes": evaluation.get("notes") or [],
        "per_class": per_class(evaluation),
        "counted": "pixels" if any("iou" in row for row in evaluation.get("per_class") or []) else "examples",
        "evaluated_step": evaluation.get("step"),
        "timings": timings(run.result["seconds"]) if run.result else None,
        "mfu": mfu_in_words(run.result) if run.result and run.result["mfu"] is not None else None,
        "config": [(path, repr(value)) for path, value in sorted(run.leaves.items())],
        "about": about(run),
    }


def words(name: str) -> str:
    """A metric's name as words: "learning rate"."""
    return name.replace("_", " ")


def chart(metric: str, lines: pages.Lines, colours: Sequence[str] = plots.COLOURS) -> str:
    """A metric's curves; a schedule is seen as it is made, on a linear axis."""
    linear = metric.rpartition("/")[2] == "learning_rate"
    return plots.curves(words(metric), lines, colours=colours, linear=linear)


def subtitle(run: Run) -> str:
    """Model, data and how far it got."""
    leaves = run.leaves
    parts = [str(leaves[key]) for key in ("model.name", "data.name") if key in leaves]
    if run.step is not None:
        parts.append(f"step {run.step:,}")
    if run.result:
        parts.append(run.result["device"])
    return " · ".join(parts)


def cards(run: Run) -> list[dict[str, str]]:
    """The figures at the top: "label", "value" and a "note"."""
    monitor, found = run.monitor, []
    best = (run.result or {}).get("best")
    names = sorted(run.metrics, key=lambda name: name != monitor)  # the monitored one first
    for name in names:
        note = ""
        if best and name in best_metrics(best):
            note = f"best {text.number(best[name])} at step {best['step']:,}"
        found.append({"label": words(name), "value": text.number(run.metrics[name]), "note": note})
    if run.result:
        seconds = run.result["seconds"]
        if "total" in seconds:
            found.append({"label": "time", "value": text.duration(seconds["total"]), "note": ""})
        if run.result["examples_per_second"]:
            rate = text.number(run.result["examples_per_second"])
            found.append({"label": "examples/s", "value": rate, "note": "train steps alone"})
        if run.result["mfu"] is not None:
            found.append({"label": "MFU", "value": f"{run.result['mfu']:.1%}", "note": "of the peak FLOP/s"})
    return found


def kind_order(kind: dict[str, Any]) -> tuple[int, str]:
    """A sort key: KINDS first."""
    name = kind["kind"]
    return (list(KINDS).index(name) if name in KINDS else len(KINDS), name)


def sample_section(run: Run, kind: dict[str, Any]) -> dict[str, Any]:
    """Examples with their images as data URIs."""
    samples, folder = kind["samples"], kind["folder"]
    title, note = KINDS.get(kind["kind"], kind["kind"]), ""
    if kind["kind"] == "mistakes":
        wrong = all(sample["correct"] is False for sample in samples)
        title = KINDS["mistakes"] if wrong else "Hardest examples"
        surest = wrong and all("top" in sample for sample in samples)
        note = "the examples it was surest of, and wrong" if surest else "the largest errors"
    return {
        "title": title,
        "note": note,
        "samples": [sample_parts(sample, folder) for sample in samples],
        "texts": any("text" in sample for sample in samples),
        "losses": any(sample.get("pieces") for sample in samples),
        "drawn": any("drawn" in sample for sample in samples),
        "layers": kind.get("layers"),
        "maps": maps_in_words(kind["layers"], kind["heads"]) if "layers" in kind else None,
    }


def sample_parts(sample: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The template's values for an example, by name."""
    images: dict[str, Any] = {
        name: pages.data_uri(folder / sample[name])
        for name in ("image", "rollout", "heads")
        if name in sample
    }
    top = [{"class": t["class"], "percent": 100 * t["probability"]} for t in sample.get("top", [])[:TOP]]
    maps = [
        {**drawn_maps(maps), "picture": pages.data_uri(folder / maps["picture"])}
        for maps in sample.get("maps", [])
    ]
    drawn = [
        {"shows": each["shows"], "picture": pages.data_uri(folder / each["picture"])}
        for each in sample.get("drawn", [])
    ]
    about = {
        "label": sample.get("label"),
        "correct": sample["correct"],
        "top": top,
        "maps": maps,
        "drawn": drawn,
    }
    about |= {"caption": sample.get("caption"), "legend": sample.get("legend", [])}
    return {**images, **about, "text": text_parts(sample) if "text" in sample else None}


def class_names(evaluation: dict[str, Any]) -> list[str]:
    """Names of the classes of the confusion matrix; their numbers where there are none."""
    return evaluation.get("class_names") or [str(k) for k in range(len(evaluation["confusion"]))]


def confusion_svg(evaluation: dict[str, Any]) -> str | None:
    """The confusion matrix as a plot, if it was evaluated."""
    if not evaluation.get("confusion"):
        return None
    return plots.confusion_matrix(evaluation["confusion"], class_names(evaluation))


def most_confused(evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """The MOST_CONFUSED pairs of a true class and another it was taken for, with most examples first."""
    if not evaluation.get("confusion"):
        return []
    counts, names = np.array(evaluation["confusion"]), class_names(evaluation)
    of_class = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSED]
    return [
        {
            "true": names[row],
            "predicted": names[column],
            "count": pages.cell(int(counts[row, column])),
            "share": f"{counts[row, column] / of_class[row]:.1%}",
        }
        for row, column in zip(*np.unravel_index(order, counts.shape))
        if counts[row, column]
    ]


def per_class(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """The per-class table's columns and rows, and a plot of a score by class, if it was evaluated."""
    rows = evaluation.get("per_class")
    if not rows:
        return None
    columns = list(dict.fromkeys(column for row in rows for column in row))
    shown = [[pages.cell(row.get(column)) for column in columns] for row in rows]
    score = next((name for name in SCORES if name in columns), "f1")
    scored = [row for row in rows if row.get(score) is not None]
    names, values = [row["name"] for row in scored], [float(row[score]) for row in scored]
    bars = plots.class_bars(names, values, SCORES[score]) if scored else None
    return {"columns": columns, "rows": shown, "bars": bars}


def timings(seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Phases with their time and share, the longest first."""
    phases = {name: value for name, value in seconds.items() if name != "total" and value > 0}
    whole = sum(phases.values())
    colours = dict(zip(phases, plots.COLOURS * len(phases)))
    return [
        {"name": name, "time": text.duration(value), "percent": 100 * value / whole, "colour": colours[name]}
        for name, value in sorted(phases.items(), key=lambda phase: -phase[1])
    ]


def about(run: Run) -> dict[str, str]:
    """Command, versions and revision."""
    versions = run.about.get("versions") or {}
    known = {
        "command": run.about.get("command"),
        "device": run.result["device"] if run.result else None,
        "git revision": run.about.get("git_revision"),
        "python": run.about.get("python"),
        **versions,
    }
    return {name: str(value) for name, value in known.items() if value}
