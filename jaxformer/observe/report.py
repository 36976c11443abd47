"""A run as a page: report.html is one file that needs no network and no script."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.files import write_atomically
from jaxformer.observe import pages, plots, text
from jaxformer.observe.goodput import goodput_of
from jaxformer.observe.samples import RETRIEVAL, SAMPLES, read_samples
from jaxformer.observe.summary import costs, mfu_in_words
from jaxformer.observe.text_samples import drawn_maps, maps_in_words, text_parts
from jaxformer.reading import as_written
from jaxformer.runs import BRING_BACK, Run

REPORT = "report.html"
KINDS = {"samples": "Samples", "mistakes": "Worst mistakes"}
MOST_CONFUSED = 10
MOST_CARDS = 4  # metrics at the top; the others are a click away
FEW_COLUMNS = 5  # a table with more takes the whole width
SCORES = {"f1": "F1", "iou": "IoU"}  # columns of the per-class table; the first that is there is drawn


def write_report(run_dir: Path, result: dict[str, Any] | None = None) -> Path:
    """Writes RUN/report.html from the files in the run's folder; parts whose files are missing are left out.

    Args:
      run_dir: the run's folder.
      result: what result.json will hold, if it is not written yet.

    Returns:
      The page's path.

    Raises:
      UserError: it is not a run's folder, or a file in it is broken.
    """
    run = Run.open(run_dir)
    if result is not None:
        vars(run)["result"] = result
    path = run.folder / REPORT
    with as_written(run.config_file, BRING_BACK):
        page = pages.render("report.html.j2", **report_parts(run))
    write_atomically(path, page)
    return path


def report_parts(run: Run) -> dict[str, Any]:
    """The template's values, by name."""
    evaluation, result = run.evaluation or {}, run.result or {}
    parts: dict[str, Any] = {"title": run.name, "run": run, "evaluation": evaluation}
    with as_written(run.metrics_file):
        parts["curves"], parts["other_curves"] = pages.panels(run.curves, result.get("same_loss", True))
    with as_written(run.folder / SAMPLES):
        kinds = {content["kind"]: content for content in read_samples(run.folder)}
        pictures = kinds.pop(RETRIEVAL, {})
        ordered = sorted(kinds.values(), key=lambda content: content["kind"] != "samples")
        parts["samples"] = [sample_section(content) for content in ordered]
    with as_written(run.evaluation_file):
        parts |= {"plots": evaluation_plots(evaluation), "confused": most_confused(evaluation)}
        parts["per_class"] = per_class(evaluation)
        parts["retrieval"] = retrieval(evaluation.get(RETRIEVAL), pictures)
    with as_written(run.result_file):
        figures = cards(run)
        parts |= {"cards": figures[:MOST_CARDS] + costs_of(run), "more_cards": figures[MOST_CARDS:]}
        parts["timings"] = timings(result["seconds"]) if result else None
        parts["goodput"] = None
        parts["mfu"] = mfu_in_words(result) if result and result["mfu"] is not None else None
    with as_written(run.attempts_file):
        if (overall := goodput_of(run)) and overall.total > 0:
            parts |= {"timings": timings(overall.seconds), "goodput": overall.lines()}
    return parts | {"text_parts": text_parts, "drawn_maps": drawn_maps}


def cards(run: Run) -> list[tuple[str, str, str]]:
    """The metrics as figures: label, value and a note; the monitored metric comes first."""
    result, metrics = run.result or {}, run.metrics
    best, doubt, found = result.get("best") or {}, text.doubt(metrics).strip(" ()"), []
    for name in sorted(metrics, key=lambda name: name != run.leaves.get("eval.monitor")):
        note = f"best {text.number(float(best[name]))} at step {best['step']:,}" if name in best else doubt
        found.append((pages.words(name), text.number(metrics[name]), note))
    return found


def costs_of(run: Run) -> list[tuple[str, str, str]]:
    """What the run took, as figures."""
    known = costs(run.result or {})
    notes = {"time": "", "examples/s": "train steps alone", "MFU": "of the peak FLOP/s"}
    return [(name, known[name], note) for name, note in notes.items() if known[name]]


def sample_section(content: dict[str, Any]) -> dict[str, Any]:
    """The contents of a samples.json, with a title and with facts that decide how they are laid out."""
    kind, samples = content["kind"], content["samples"]
    title, note = KINDS.get(kind, kind), ""
    if kind == "mistakes":
        wrong = all(sample["correct"] is False for sample in samples)
        surest = wrong and all("top" in sample for sample in samples)
        title = title if wrong else "Hardest examples"
        note = "the examples it was surest of, and wrong" if surest else "the largest errors"
    return {
        "maps": maps_in_words(content["layers"], content["heads"]) if "layers" in content else None,
        **content,
        "title": title,
        "note": note,
        "texts": any("text" in sample for sample in samples),
        "losses": any(sample.get("pieces") for sample in samples),
        "drawn": any("drawn" in sample for sample in samples),
        "words": any("words" in sample for sample in samples),
    }


def evaluation_plots(evaluation: dict[str, Any]) -> dict[str, str]:
    """The plots of an evaluation's tables, by their title."""
    found = {}
    if confusion := evaluation.get("confusion"):
        found["Confusion matrix"] = plots.confusion_matrix(confusion, class_names(evaluation))
    if calibration := evaluation.get("calibration"):
        found["Calibration"] = plots.reliability(calibration)
    if losses := evaluation.get("loss_by_position"):
        places, means = (np.array([row[key] for row in losses], float) for key in ("position", "loss"))
        line = {"loss": (places, means)}
        found["Loss by position"] = plots.curves("nats", line, linear=True, over="position")
    return found


def class_names(evaluation: dict[str, Any]) -> list[str]:
    """Names of the classes of the confusion matrix; their numbers where there are none."""
    return evaluation.get("class_names") or [str(k) for k in range(len(evaluation["confusion"]))]


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
    score = next((name for name in SCORES if name in columns), "f1")
    scores = {row["name"]: float(row[score]) for row in rows if row.get(score) is not None}
    bars = plots.class_bars(list(scores), list(scores.values()), SCORES[score]) if scores else None
    cells = [[row.get(column) for column in columns] for row in rows]
    return {"columns": columns, "is_wide": len(columns) > FEW_COLUMNS, "rows": cells, "bars": bars}


def retrieval(table: dict[str, Any] | None, pictures: dict[str, Any]) -> dict[str, Any] | None:
    """The table of that name, with the file of each picture, and how dark the places of its matrix are, 0 to 1."""
    if not table or "pictures" not in table:  # there is none, or one of texts alone
        return table
    if not pictures:
        return None
    files = {sample["index"]: sample["image"] for sample in pictures["samples"]}
    near = np.array(table["similarity"], float)
    shade = (near - near.min()) / max(float(np.ptp(near)), 1e-6)
    return {**table, "shade": shade.tolist(), "files": files, "folder": pictures["folder"]}


def timings(seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Phases with their time and share, the longest first."""
    phases = {name: value for name, value in seconds.items() if name != "total" and value > 0}
    whole = sum(phases.values())
    shown = [
        {"name": name, "time": text.duration(value), "percent": 100 * value / whole, "colour": colour}
        for (name, value), colour in zip(phases.items(), itertools.cycle(plots.COLOURS))
    ]
    return sorted(shown, key=lambda phase: -phase["percent"])
