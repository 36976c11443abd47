"""What a sweep's own machinery costs a trial: points, leases, results, looking for the next one; nothing is trained.

    python benchmarks/sweep_overhead.py --trials 200 --workers 8 --seconds 0

Workers are processes over one folder, as `jaxformer sweep work` has them, whose trials sleep. What is said: seconds
from the first trial's beginning to the last result, less what the trials slept, a result and worker; how much of that
workers slept since nothing could be done before a trial of another one was over; and the processor time of all workers
a result. Starting the workers (imports) is not counted.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from jaxformer.sweeps import workers
from jaxformer.sweeps.points import points
from jaxformer.sweeps.samplers import PACKAGES
from jaxformer.sweeps.spaces import Halving, Sweep, integer, log, uniform
from jaxformer.sweeps.study import FOLDERS, Study, code

SPACE = {
    "optimizer.learning_rate": log(1e-4, 1e-1),
    "optimizer.weight_decay": uniform(0.0, 0.2),
    "model.depth": integer(2, 8),
}


def begun(folder: Path, sweep: Sweep) -> Study:
    """A sweep in its folder, whose config nobody asks for."""
    about = {"config": {}, "sweep": sweep.to_json(), "code": code(sweep.sampler), "seeds": [0]}
    about |= {"metric": "loss", "mode": "min", "objectives": {"loss": "min"}}
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(about))
    return Study.open(folder)


def worker(folder: Path, seconds: float, barrier: object, told: object) -> None:
    """Works at the sweep; tells when it began and ended, how long it waited for others, and its processor time."""
    pauses: list[float] = []

    def wait(pause: float) -> None:
        began = time.monotonic()
        time.sleep(pause)
        pauses.append(time.monotonic() - began)

    def trained(study: Study, task: object, *_: object) -> dict:
        time.sleep(seconds)
        rate = study.values[task.trial]["optimizer.learning_rate"]
        return {"status": "completed", "step": 1, "final": {"loss": abs(rate - 0.01)}}

    workers.trained, workers.time = trained, SimpleNamespace(sleep=wait, monotonic=time.monotonic)
    study = Study.open(folder)
    points(replace(study.sweep, sampler="sobol", trials=1))  # so that SciPy is imported
    for package in PACKAGES.get(study.sweep.method, ()):
        importlib.import_module(package)
    barrier.wait()
    began, processor = time.time(), time.process_time()
    workers.work(study)
    told.put((began, time.time(), sum(pauses), time.process_time() - processor))


def main() -> None:
    """Measures each sampler, and says a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long a trial sleeps")
    parser.add_argument("--samplers", default="sobol,tpe,cmaes")
    parser.add_argument("--halving", action="store_true")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for sampler in given.samplers.split(","):
        halving = Halving() if given.halving else None
        sweep = Sweep(SPACE, sampler, trials=given.trials, at_once=given.workers, halving=halving)
        with TemporaryDirectory() as folder:
            study = begun(Path(folder), sweep)
            barrier, told = context.Barrier(given.workers), context.Queue()
            arguments = (Path(folder), given.seconds, barrier, told)
            crew = [context.Process(target=worker, args=arguments) for _ in range(given.workers)]
            for each in crew:
                each.start()
            times = [told.get() for _ in crew]
            for each in crew:
                each.join()
            tasks = len(study.results())
        took = max(end for _, end, *_ in times) - min(begin for begin, *_ in times)
        lost = took * given.workers - tasks * given.seconds
        waited, processor = (sum(each[place] for each in times) for place in (2, 3))
        print(
            f"{sampler}: {tasks} results in {took:.2f} s; {1000 * lost / tasks:.1f} ms of a worker's time a result, "
            f"of which {1000 * waited / tasks:.1f} ms waiting for others' trials, "
            f"{1000 * processor / tasks:.1f} ms on a core ({os.cpu_count()} cores)"
        )


if __name__ == "__main__":
    main()
