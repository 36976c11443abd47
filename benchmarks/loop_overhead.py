"""What the training loop adds to the bare compiled step: ViT-Ti/16 at 224 pixels, batch 8, real images, one process.

    .venv/bin/python benchmarks/loop_overhead.py --rounds 5 --steps 20

Each round times the bare step (all steps dispatched, one wait at the end) before and after the loop of train.py
(batches read in the background, metrics read one step late and written every 10 steps, progress, SIGTERM watched) on
as many steps of the same program. Printed are seconds by the wall clock and of the processor, which other work on the
machine disturbs less, and the medians of the ratios, round by round.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.models.presets import preset
from jaxformer.observe.writers import MetricWriter
from jaxformer.train import train

CONFIG = {
    "task": {"name": "classification"},
    "model": preset("vit-ti16", num_classes=10),
    "data": {
        "name": "digits",
        "batch_size": 8,
        "eval_batch_size": 8,
        "transforms": [{"name": "resize", "size": 224}],
        "eval_transforms": [{"name": "resize", "size": 224}],
    },
    "eval": {"split": "test[:8]", "every": "1000 steps"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    "schedule": {"name": "cosine"},
    "checkpoint": {"every": "1000 steps"},
}


def clocks():
    """Seconds by the wall clock, and of the processor in this process."""
    return np.array([time.perf_counter(), time.process_time()])


def bare_seconds(step, state, batch, steps):
    """Seconds a step of the compiled step alone, by both clocks; and the last state."""
    start = clocks()
    for _ in range(steps):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return (clocks() - start) / steps, state


class Watched(MetricWriter):
    """Notes the clocks at every record of a train step."""

    def write(self, step, values):
        """As in the loop."""
        super().write(step, values)
        if "train/loss" in values:
            records.append((step, clocks()))


records: list = []


def loop_seconds(config, folder, first):
    """Seconds a step of the loop by both clocks, between the records of its 10th and its last step but 10."""
    records.clear()
    train(Experiment(config), folder)
    (start, began), (end, ended) = records[0], records[first]
    return (ended - began) / (end - start)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round, a multiple of 10")
    arguments = parser.parse_args()
    sys.modules["jaxformer.train"].MetricWriter = Watched
    # Two more tens: the first compiles, and the last step evaluates before it is read.
    total = arguments.steps + 20
    config = resolve({**CONFIG, "train": {"total": f"{total} steps", "log_every": "10 steps"}})
    experiment = Experiment(config)
    step, batch = experiment.train_step(), experiment.layout.shard_batch(experiment.train_data[0])
    _, state = bare_seconds(step, experiment.init_state(), batch, 2)
    rows = []
    for number in range(arguments.rounds):
        before, state = bare_seconds(step, state, batch, arguments.steps // 2)
        with tempfile.TemporaryDirectory() as folder:
            loop = loop_seconds(config, Path(folder) / "run", arguments.steps // 10)
        after, state = bare_seconds(step, state, batch, arguments.steps // 2)
        bare = (before + after) / 2
        rows.append((bare, loop, loop / bare))
        print(f"round {number + 1}: {line(*rows[-1])}", flush=True)
    print("median:", line(*(np.median(column, axis=0) for column in zip(*rows))))


def line(bare, loop, ratio):
    """A round's figures."""
    return "; ".join(
        f"{clock}: bare {1e3 * bare[i]:.1f} ms, loop {1e3 * loop[i]:.1f} ms, ratio {ratio[i]:.3f}"
        for i, clock in enumerate(("wall", "processor"))
    )


if __name__ == "__main__":
    main()
