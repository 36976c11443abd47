"""What the supervisor, the watchdog and the ledger add to train steps: a small ViT on digits, one process.

    .venv/bin/python benchmarks/supervision.py --rounds 15 --steps 200

Steps take turns, without and with all that watches: phases of the clock, the pace, the watchdog's thread with its
heartbeat, and a line in attempts.jsonl every 50 steps. Printed are the medians of the ratios round by round, by the
wall clock and of the processor; what that costs around a step that does nothing, where no noise of a step hides it;
and what a supervisor takes of a core while it looks at a training.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

from jaxformer.config.files import read
from jaxformer.config.sections import WatchdogConfig, resolve
from jaxformer.experiment import Experiment
from jaxformer.launching import ATTEMPTS, HEARTBEATS
from jaxformer.launching.attempts import append
from jaxformer.launching.supervisor import Supervisor
from jaxformer.launching.watchdog import Watchdog
from jaxformer.observe.timing import Clock

SAVES = 50  # steps between two lines of the ledger
LOOKED_AT = 10  # seconds that the supervisor looks at a training


def taken(step, state, batch, steps, folder):
    """Seconds by the wall clock and of the processor of so many steps; in a folder, with all that watches them.

    Args:
      step: the compiled train step.
      state: the train state.
      batch: on the devices.
      steps: how many.
      folder: of the ledger and the heartbeat; None: the steps alone.
    """
    start = time.perf_counter(), time.process_time()
    if folder is None:
        for _ in range(steps):
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
    else:
        clock = Clock()
        with Watchdog(WatchdogConfig(), clock, folder):
            for number, arriving in enumerate(clock.each("data", [batch] * steps), 1):
                compiles = clock.pace.compiles(arriving)
                with clock.phase("compile" if compiles else "train"):
                    begun = time.monotonic()
                    state, metrics = step(state, arriving)
                    dispatched = time.monotonic()
                    jax.block_until_ready(metrics)
                waits = clock.latest["data"], dispatched - begun, time.monotonic() - dispatched
                clock.pace.took(number, *waits)
                if number % SAVES == 0:
                    done = {"step": number, "seconds": clock.summary(), "devices": 1}
                    append(folder / ATTEMPTS, "train", began=clock.began, first=0, **done)
    return state, (time.perf_counter() - start[0], time.process_time() - start[1])


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200, help="in each turn")
    arguments = parser.parse_args()
    experiment = Experiment(resolve(read("vit_digits")))
    step, batch = experiment.train_step(), experiment.layout.shard_batch(experiment.train_data[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[HEARTBEATS] = str(folder)
        state, _ = taken(step, experiment.init_state(), batch, 10, None)
        ratios, alone = [], []
        for _ in range(arguments.rounds):
            state, before = taken(step, state, batch, arguments.steps, None)
            state, watched = taken(step, state, batch, arguments.steps, folder)
            state, after = taken(step, state, batch, arguments.steps, None)
            ratios.append([2 * w / (b + a) for w, b, a in zip(watched, before, after)])
            alone.append((before[0] + after[0]) / 2 / arguments.steps)
        wall, processor = (statistics.median(column) for column in zip(*ratios))
        usual = statistics.median(alone)
        print(
            f"a step alone {1000 * usual:.2f} ms; watched: wall {wall:.4f}, processor {processor:.4f} of that"
        )
        _, metrics = step(state, batch)
        empty, costs = jax.block_until_ready(metrics), []
        for _ in range(arguments.rounds):
            turns = [
                taken(lambda state, _: (state, empty), None, batch, 20 * arguments.steps, place)[1]
                for place in (None, folder)
            ]
            costs.append((turns[1][1] - turns[0][1]) / (20 * arguments.steps))
        cost = statistics.median(costs)
        print(f"around nothing: {1e6 * cost:.1f} us of the processor a step, {cost / usual:.3%} of a step")
        start = time.process_time()
        beats = f"import os, pathlib, time; b = pathlib.Path(os.environ['{HEARTBEATS}']) / '1'\n"
        beats += f"for n in range({LOOKED_AT}):\n    b.write_text(str(n)); time.sleep(1)"
        Supervisor([sys.executable, "-c", beats], folder / "run").run()
        share = (time.process_time() - start) / LOOKED_AT
        print(f"a supervisor takes {share:.2%} of a core")


if __name__ == "__main__":
    main()
