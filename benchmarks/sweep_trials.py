"""The same trials of the same tiny ViT, by this package's sweeps, by Optuna with one process a trial, and by Ray Tune.

    python benchmarks/sweep_trials.py --trials 24 --side workers population optuna ray --rounds 2

Each side trains vit_digits, made smaller, with as many learning rates, two trainings at a time on a core each, and
leaves all of them as run folders with reports. Sides are run one after the other. `seconds` is wall time, `processor`
those of all cores that the side and its children used: a machine with other work leaves the latter nearly as they are.
Optuna is used as its users do: a study in this process, two threads, and `jaxformer train` as a command in each. Ray
Tune has two workers with a core each, which it keeps for trial after trial, and calls `jaxformer.train` in them; it is
for an environment of its own, in which both are installed.
"""

import argparse
import contextlib
import ctypes
import fcntl
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
CORE = "SWEEP_TRIALS_CORE"  # in the environment of a worker of Ray Tune
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


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


def free_core(folder: Path, cores: list[int]) -> int:
    """The first core that no other process has, until this one ends; waits for one that ends just now."""
    folder.mkdir(exist_ok=True)
    files = {core: os.open(folder / f"core-{core}", os.O_CREAT | os.O_RDWR) for core in cores}
    while True:
        for core, file in files.items():
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return core
        time.sleep(0.1)


def with_ray(folder: Path, trials: int) -> None:
    """Ray Tune's grid; its workers live on from trial to trial (reuse_actors)."""
    import ray
    from ray import tune

    cores = sorted(os.sched_getaffinity(0))[:AT_ONCE]

    def trained(values: dict) -> dict:
        if CORE not in os.environ:  # this worker's first trial
            os.environ[CORE] = str(free_core(folder, cores))
        os.sched_setaffinity(0, {int(os.environ[CORE])})  # of this thread: each trial has another one
        import jaxformer

        experiment = jaxformer.experiment("vit_digits", TINY | {"optimizer.learning_rate": values["rate"]})
        result = jaxformer.train(experiment, folder / f"{values['rate']:g}")
        return {"accuracy": result["final"]["accuracy"]}

    ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        tuner = tune.Tuner(
            trained,
            param_space={"rate": tune.grid_search(rates(trials))},
            tune_config=tune.TuneConfig(metric="accuracy", mode="max", reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
        )
        assert not tuner.fit().errors
    finally:
        ray.shutdown()


SIDES = {"workers": sweep, "population": population, "optuna": with_optuna, "ray": with_ray}


def main() -> None:
    """Prints a line of JSON a side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--side", nargs="+", choices=SIDES, default=[name for name in SIDES if name != "ray"])
    parser.add_argument("--rounds", type=int, default=1, help="all sides in turns, so often")
    chosen = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if sys.platform == "linux":  # what a side leaves behind becomes this process's, and counts
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for name in chosen.side * chosen.rounds:
        with tempfile.TemporaryDirectory() as folder:
            used, began = processor_seconds(), time.monotonic()
            SIDES[name](Path(folder) / name, chosen.trials)
            seconds = time.monotonic() - began
            wait_for_all()
            processor = processor_seconds() - used
            runs = len(list(Path(folder).rglob("evaluation.json")))
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


def wait_for_all() -> None:
    """Waits for processes that others have started and left to this one."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def processor_seconds() -> float:
    """What this process and its children that have ended used of all cores."""
    whos = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whos))


if __name__ == "__main__":
    main()
