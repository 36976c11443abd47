"""The parsers of a run's files; see fuzzed.py."""

import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

from helpers.fuzzed_files import RUNS, Parser, as_json, lines_of_json
from jaxformer import cli
from jaxformer.inference.loaded import LoadedRun
from jaxformer.runs import Run


@cache
def loaded(name: str) -> LoadedRun:
    """A run that was trained before."""
    return LoadedRun(RUNS / "runs" / name)


def run_files(name: str, *wanted: str) -> dict[str, bytes]:
    folder = RUNS / "runs" / name
    paths = [path for pattern in wanted for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def short_run() -> dict[str, bytes]:
    """A run with few curves, of which a report is made quickly."""
    found = run_files("vit", "*.json", "samples/*/samples.json", "samples/samples/000.png")
    records = [{"step": n, "time": 0.5, "train/loss": 1 / n} for n in range(1, 4)]
    scores = [{"name": name, "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3} for name in "ab"]
    evaluation = {"step": 3, "metrics": {"accuracy": 0.5, "loss": "NaN"}, "class_names": ["a", "b"]}
    evaluation |= {"confusion": [[3, 1], [0, 2]], "per_class": scores, "notes": ["a note"]}
    attempts = [
        {"event": "start", "start": 10.0, "host": "a", "process": {"number": 7}, "before": 0},
        *(
            {
                "event": "train",
                "began": 11.0,
                "first": 0,
                "step": n,
                "devices": 1,
                "seconds": {"train": n, "total": n},
            }
            for n in (1, 3)
        ),
        {"event": "end", "end": 20.0, "exit": 0, "why": "done", "steps": 3, "saved": 3},
    ]
    found |= {"metrics.jsonl": lines_of_json(records), "evaluation.json": as_json(evaluation)}
    return found | {"attempts.jsonl": lines_of_json(attempts)}


def report(folder: Path, output: Path) -> int:
    return cli.main(["report", str(folder)])


def compare(folder: Path, output: Path) -> int:
    other = folder.parent / "other"
    if not other.exists():
        shutil.copytree(folder, other)
        for name in ("config.json", "metrics.jsonl", "result.json", "evaluation.json"):
            (other / name).write_bytes(short_run()[name])
    return cli.main(["report", str(folder), str(other), "--output", str(output / "comparison.html")])


class WithoutCheckpoint(LoadedRun):
    """A run as far as the other files of its folder go."""

    def _restore(self, checkpoint: str) -> tuple[int, dict[str, Any]]:
        return 0, {}


def open_run(folder: Path, output: Path) -> None:
    run = WithoutCheckpoint(folder)
    assert isinstance(run.class_names, list)
    assert isinstance(run.batch_size, int)
    assert isinstance(run.metrics, dict)


def restore(folder: Path, output: Path) -> None:
    """Reads a checkpoint into the shapes of the run that it is of."""
    run, known = LoadedRun.__new__(LoadedRun), loaded("vit")
    run.__dict__ |= known.__dict__ | {"run": Run(folder)}
    run._restore("best")


FEW = 80  # inputs that take a tenth of a second each
JSONS = {".json": "json", ".jsonl": "json"}
RUN_FILES = {
    "report": Parser(short_run, report, JSONS, (".png",), usual=FEW),
    "comparison": Parser(short_run, compare, JSONS, (".png",), usual=FEW),
    "run of images": Parser(partial(run_files, "vit", "*.json"), open_run, JSONS, lists_all=True),
    "run of texts": Parser(partial(run_files, "bert", "*.json"), open_run, JSONS, lists_all=True),
    "checkpoint": Parser(
        partial(run_files, "vit", "config.json", "checkpoints/**/*"),
        restore,
        {
            ".json": "json",
            "metadata": "json",
            "metrics": "json",
            "_CHECKPOINT_METADATA": "json",
            "_METADATA": "json",
        },
        ("config.json",),
        usual=FEW,
    ),
}
