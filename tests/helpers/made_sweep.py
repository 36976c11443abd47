"""Folders of sweeps as workers leave them, whose metrics are a formula's: nothing is trained."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxformer.sweeps.halving import Task
from jaxformer.sweeps.spaces import Sweep
from jaxformer.sweeps.study import FOLDERS, Study

STEPS = 90  # of a whole training
CONFIG = {
    "seed": 0,
    "model": {"name": "vit", "depth": 2},
    "data": {"name": "digits"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
}


def made_sweep(
    folder: Path,
    sweep: Sweep,
    accuracy: Callable[[dict[str, Any], int, int], float],
    at_most: int | None = None,
    seeds: tuple[int, ...] = (0,),
    source: Any = None,
    config: Any = None,
    objectives: Mapping[str, str] = {"accuracy": "max"},
) -> Study:
    """A sweep with results.

    Args:
      folder: its folder.
      sweep: what is tried.
      accuracy: (values, seed, step) -> the metric; a ValueError fails the trial.
      at_most: the number of results after which it is left; None: it is finished.
      seeds: its seeds.
      source: the command's config and overrides.
      config: what it changes; None: CONFIG.
      objectives: metric -> "max" or "min"; the first is "accuracy", others are "loss" and "cost", the depth.
    """
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    about = {"source": source, "metric": "accuracy", "mode": "max", "seeds": seeds, "sweep": sweep.to_json()}
    about |= {
        "config": config or CONFIG,
        "code": {"hash": "0", "python": "3.12", "jax": "0.10"},
        "git_revision": "f00",
        "objectives": objectives,
    }
    (folder / "sweep.json").write_text(json.dumps(about))
    study = Study.read(folder)
    while due := study.due():
        for task in due:
            if at_most is not None and len(list((folder / "results").iterdir())) >= at_most:
                return study
            study.result_file(task).write_text(json.dumps(result(study, task, accuracy)))
    study.finish()
    return study


def result(study: Study, task: Task, accuracy: Callable[[dict[str, Any], int, int], float]) -> dict[str, Any]:
    """The result of a task; the folder of its run gets the curve."""
    run, end = study.run(task), round(STEPS * study.rules.shares[task.rung])
    values = study.values[task.trial]
    run.mkdir(exist_ok=True)
    try:
        found = {step: accuracy(values, task.seed, step) for step in range(10, end + 1, 10)}
    except ValueError as error:
        return {"status": "failed", "step": None, "value": None, "line": f"ValueError: {error}"}
    lines = (json.dumps({"step": step, "eval/accuracy": value}) for step, value in found.items())
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    mark = {"event": "train", "began": 1.0, "first": 0, "step": end, "devices": 1}
    (run / "attempts.jsonl").write_text(json.dumps({**mark, "seconds": {"total": end / 10}}) + "\n")
    if task.rung == len(study.rules.shares) - 1:
        (run / "report.html").write_text("a run")
    metrics = {"loss": 1 - found[end], "accuracy": found[end], "cost": float(values.get("model.depth", 1))}
    status = "completed" if end == STEPS else "paused"
    return {"status": status, "step": end, "value": found[end], "metrics": metrics, "seconds": end / 10}
