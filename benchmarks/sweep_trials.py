"""The same trials of the same tiny ViT, by this package's sweeps and by Optuna with one process a trial.

    python benchmarks/sweep_trials.py --trials 24 --side workers population optuna

Each side trains vit_digits, made smaller, with as many learning rates, two trainings at a time on a core each, and
leaves all of them as run folders with reports. Sides are run one after the other. `seconds` is wall time, `processor`
those of all cores that the side and its children used: a machine with other work leaves the latter nearly as they are.
Optuna is used as its users do: a study in this process, two threads, and `jaxformer train` as a command in each.
"""

import argparse
import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TINY = {
    "model.width": 32,
    "model.depth": 2,
    "model.mlp_dim": 64,
    "train.total": "4 epochs",
    "eval.every": "2 epochs",
    "checkpoint.every": "2 epochs",
}
CONFIG = [f"--config.{leaf}={value}" for leaf, value in TINY.items()]
JAXFORMER = [sys.executable, "-m", "jaxformer"]
AT_ONCE = 2


def rates(trials: int) -> list[float]:
    """Learning rates from 1e-4 to 1e-1, evenly in their logarithm."""
    return [float(f"{1e-4 * 1000 ** (n / max(1, trials - 1)):.4g}") for n in range(trials)]


def sweep(folder: Path, trials: int, *more: str) -> None:
    """This package's sweep with two workers."""
    values = ",".join(map(str, rates(trials)))
    command = [*JAXFORMER, "sweep", "--config", "vit_digits", "--set", f"optimizer.learning_rate={values}"]
    command += ["--workers", str(AT_ONCE), "--workdir", str(folder), *more, *CONFIG]
    subprocess.run(command, check=True, capture_output=True, text=True)


def population(folder: Path, trials: int) -> None:
    """The same, eight trainings at once in each worker."""
    sweep(folder, trials, "--population", "8")


def with_optuna(folder: Path, trials: int) -> None:
    """A study of Optuna, whose objective is a command."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cores: queue.Queue[int] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[:AT_ONCE]:
        cores.put(core)

    def objective(trial: optuna.Trial) -> float:
        rate, core = trial.suggest_categorical("rate", rates(trials)), cores.get()
        run = folder / f"{trial.number:04}"
        command = ["taskset", "-c", str(core), *JAXFORMER, "train", "--config", "vit_digits"]
        command += ["--workdir", str(run), f"--config.optimizer.learning_rate={rate}", *CONFIG]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        finally:
            cores.put(core)
        return json.loads((run / "result.json").read_text())["final"]["accuracy"]

    sampler = optuna.samplers.GridSampler({"rate": rates(trials)})
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=trials, n_jobs=AT_ONCE)


SIDES = {"workers": sweep, "population": population, "optuna": with_optuna}


def main() -> None:
    """Prints a line of JSON a side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--side", nargs="+", choices=SIDES, default=list(SIDES))
    chosen = parser.parse_args()
    for name in chosen.side:
        with tempfile.TemporaryDirectory() as folder:
            used, began = processor_seconds(), time.monotonic()
            SIDES[name](Path(folder) / name, chosen.trials)
            seconds, processor = time.monotonic() - began, processor_seconds() - used
            runs = len(list(Path(folder).rglob("result.json")))
        found = {
            "side": name,
            "trials": chosen.trials,
            "runs": runs,
            "seconds": seconds,
            "processor": processor,
        }
        found["trials_an_hour"] = 3600 * chosen.trials / seconds
        found["trials_a_processor_hour"] = 3600 * chosen.trials / processor
        print(
            json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in found.items()}), flush=True
        )


def processor_seconds() -> float:
    """What this process and its children that have ended used of all cores."""
    whos = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whos))


if __name__ == "__main__":
    main()
