"""A sweep as a page: report.html is one file that needs no network; trials.csv and trials.json lie beside it."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxformer.errors import counted
from jaxformer.files import to_json, write_atomically, write_json, writing_to
from jaxformer.observe import pages, text
from jaxformer.observe.report import REPORT
from jaxformer.reading import as_written
from jaxformer.sweeps.axes import Axis, axes_of, shown
from jaxformer.sweeps.importance import importances
from jaxformer.sweeps.records import REMEDY
from jaxformer.sweeps.rows import as_csv, learning_curve, trial_rows
from jaxformer.sweeps.study import RESULTS, SWEEP, Study
from jaxformer.sweeps.winner import BEST, compares, verdict_lines

MOST_CURVES = 200  # trials whose learning curves are drawn, the best
MOST_POINTS = 80  # of a curve
MOST_SPREAD = 12  # trials whose seeds are drawn
CONFIDENCE = 0.95


def write_report(study: Study, command: Sequence[str] | None = None) -> Path:
    """Writes report.html, trials.csv and trials.json into the folder of a sweep, from what is in it.

    Args:
      study: the sweep; it may still go on.
      command: the words that train the best trial by itself; None where nobody knows them.

    Returns:
      The page's path.

    Raises:
      UserError: a file is broken, or cannot be written.
    """
    with as_written(study.folder / RESULTS, REMEDY):
        outcome = study.outcome()
        rows = trial_rows(study, outcome)
    path = study.folder / REPORT
    with writing_to(path, "look at a copy of the folder"):
        content = {"objectives": outcome["objectives"], "front": outcome["front"], "trials": rows}
        write_json(study.folder / "trials.json", content)
        write_atomically(study.folder / "trials.csv", as_csv(rows, study.metric))
        write_atomically(path, pages.render("sweep.html.j2", **report_parts(study, outcome, rows, command)))
    return path


def report_parts(
    study: Study, outcome: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], command: Sequence[str] | None
) -> dict[str, Any]:
    """The template's values, by name."""
    axes = axes_of(study.sweep.parameters, [row["values"] for row in rows])
    best = next((row for row in rows if row["trial"] == outcome["best"]), None)
    leader, rules = next((row for row in rows if row["place"] == 1), None), study.rules
    others = list(outcome["objectives"])[1:]
    return {
        "title": study.folder.resolve().name,
        "study": study,
        "rules": rules,
        "metric": pages.words(study.metric),
        "others": others,
        "front": outcome["front"] if others else [],
        "facts": facts(study, rows),
        "cards": cards(study, rows, best or leader),
        "best": best,
        "leader": leader,
        "command": in_lines(command or ()),
        "axes": axes,
        "rows": rows,
        "failed": [row for row in rows if row["line"]],
        "importances": found_importances(axes, rows),
        "spread": spread(rows),
        "verdict": verdict(study, outcome["best"]),
        "left": not study.is_over,
        "drawn": to_json(chart_data(study, outcome, axes, rows)),
        "shown": shown,
        "lengths": [f"{share:.3g}" for share in rules.shares],
    }


def in_lines(words: Sequence[str]) -> str:
    """A command with each of its flags on a line of its own, as a shell reads it."""
    quoted = (f"\\\n    {shlex.quote(word)}" if word.startswith("-") else shlex.quote(word) for word in words)
    return " ".join(quoted)


def facts(study: Study, rows: Sequence[Mapping[str, Any]]) -> str:
    """What kind of a sweep it is, in a line."""
    config, sweep, rules = study.about["config"], study.sweep, study.rules
    names = [config.get(section, {}).get("name") for section in ("model", "data")]
    seeds = f" with {counted(len(rules.seeds), 'seed')} each" if len(rules.seeds) > 1 else ""
    parts = [*names, f"{counted(len(rows), 'trial')}{seeds}", f"sampler: {sweep.method}"]
    if rules.halving is not None:
        goes_on = f"one of {rules.halving.eta}" if rules.halving.rule != "median" else "the better half"
        parts.append(f"halving ({rules.halving.rule}): {rules.halving.rungs} rungs, {goes_on} goes on")
    return " · ".join(part for part in parts if part)


def cards(
    study: Study, rows: Sequence[Mapping[str, Any]], first: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """Figures at the top: label, value and a note."""
    statuses = [row["status"] for row in rows]
    seconds, found = math.fsum(row["seconds"] for row in rows), []
    if first is not None:
        of = f"trial {first['trial']}" + (
            f", mean of {len(first['seeds'])} seeds" if first["deviation"] is not None else ""
        )
        found.append((f"best {pages.words(study.metric)}", text.number(first["value"]), of))
    found.append(("completed", str(statuses.count("completed")), f"of {counted(len(rows), 'trial')}"))
    notes = {
        "paused": "others were better" if study.is_over else "",
        "failed": "see below",
        "not finished": "",
    }
    for status, note in notes.items():
        if status in statuses:
            found.append((status, str(statuses.count(status)), note))
    if seconds:
        found.append(("training time", text.duration(seconds), "of all trials together"))
    return found


def found_importances(axes: Sequence[Axis], rows: Sequence[Mapping[str, Any]]) -> Any:
    """How much each parameter matters; None where that cannot be told."""
    known = sum(row["place"] is not None for row in rows)
    tried = [row for row in rows if row["place"] is not None or row["status"] == "failed"]
    places = [known if row["place"] is None else row["place"] - 1 for row in tried]
    return importances(axes, [row["values"] for row in tried], places)


def spread(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The best trials among those of the longest rung: the values of their seeds, and an interval of the mean.

    The interval is Student's: CONFIDENCE of such intervals hold the mean over all seeds, if values lie as a normal
    distribution.
    """
    from scipy.stats import t

    several, found = [row for row in rows if row["deviation"] is not None], []
    for row in [row for row in several if row["rung"] == several[0]["rung"]][:MOST_SPREAD]:
        count = len(row["seeds"])
        half = float(t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * row["deviation"] / math.sqrt(count)
        ends = [row["value"] - half, row["value"] + half]
        found.append({"trial": row["trial"], "seeds": row["seeds"], "value": row["value"], "interval": ends})
    return found


def verdict(study: Study, best: int | None) -> list[str]:
    """Whether the best trial beats the config, in lines; none where the two were not compared."""
    folder = study.folder / BEST
    if best is None or not (folder / SWEEP).exists():
        return []
    both = Study.read(folder)
    return verdict_lines(both) if compares(both, study, best) else []


def chart_data(
    study: Study, outcome: Mapping[str, Any], axes: Sequence[Axis], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the script of the page draws from."""
    trials, others = [], list(outcome["objectives"])[1:]
    for index, row in enumerate(rows):
        places = [axis.index(row["values"].get(axis.path)) for axis in axes]
        curve = thinned(learning_curve(study, row)) if index < MOST_CURVES else []
        kept = {name: row[name] for name in ("trial", "place", "status", "value", "steps", "deviation")}
        measured = [row["metrics"].get(name, math.nan) for name in others]
        more = {"others": [value if math.isfinite(value) else None for value in measured]}
        trials.append({**kept, **more, "values": places, "curve": curve})
    return {
        "metric": pages.words(study.metric),
        "others": [pages.words(name) for name in others],
        "front": outcome["front"],
        "axes": [axis.to_json() for axis in axes],
        "trials": trials,
        "spread": [{**each, "seeds": list(each["seeds"].values())} for each in spread(rows)],
    }


def thinned(curve: Sequence[Any]) -> list[Any]:
    """At most MOST_POINTS points of a curve, the last one included."""
    every = math.ceil(len(curve) / MOST_POINTS)
    return list(curve[::-1][:: every or 1][::-1])
