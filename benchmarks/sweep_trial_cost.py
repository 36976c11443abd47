"""What a trial costs in a worker that stays, and the memory that the worker holds; the training itself is tiny.

    python benchmarks/sweep_trial_cost.py --trials 12

vit_digits with 1 x 16 and 20 steps, each trial with another learning rate, one after the other in this process and on
one core, as a worker trains them: with its run folder, evaluation, samples and report. A line a trial: seconds by the
clock, seconds of the core, seconds by the clock of the steps and of compiling, and the memory that the process holds
after it. With `--constants` the numbers of a config are constants of the program, as they are in most projects, and no
inputs of it: each trial compiles anew.
"""

import argparse
import cProfile
import json
import logging
import os
import pstats
import tempfile
import time
from pathlib import Path

TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "train.total": "20 steps",
    "eval.every": "20 steps",
    "checkpoint.every": "20 steps",
}


def main() -> None:
    """Trains the trials, and prints a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--profile", action="store_true", help="where the time goes, from the third trial on")
    parser.add_argument(
        "--constants", action="store_true", help="numbers are constants of the step's program"
    )
    given = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from jaxformer import numbers
    from jaxformer.config import files
    from jaxformer.sweeps.spaces import Sweep, log
    from jaxformer.sweeps.study import Study
    from jaxformer.sweeps.workers import Kept, Leases, take

    logging.disable(logging.WARNING)
    if given.constants:
        numbers.mark = lambda kind: None
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep({"optimizer.learning_rate": log(1e-3, 1e-1)}, trials=given.trials)
        study = Study.begin(Path(folder) / "sweep", files.read("vit_digits", TINY), sweep)
        leases, kept = Leases(study.folder / "leases"), Kept()
        for task in study.due():
            if given.profile and task.trial == 2:
                profiler.enable()
            began, used = time.monotonic(), time.process_time()
            take(study, [task], leases, kept)
            took = {"seconds": time.monotonic() - began, "processor": time.process_time() - used}
            phases = json.loads((study.run(task) / "result.json").read_text())["seconds"]
            took |= {"steps": phases.get("train", 0.0) + phases.get("compile", 0.0)}
            found = {name: round(value, 2) for name, value in took.items()}
            print(json.dumps({"trial": task.trial, **found, "resident_mib": resident()}), flush=True)
        profiler.disable()
    if given.profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(90)


def resident() -> int:
    """The memory that this process holds, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


if __name__ == "__main__":
    main()
