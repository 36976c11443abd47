"""What the training loop adds to the bare compiled step: ViT-Ti/16 at 224 pixels, batch 8, real images, one process.

    .venv/bin/python benchmarks/loop_overhead.py --rounds 5 --steps 20

Each round times the bare step (all steps dispatched, one wait at the end) and then the loop of train.py (batches read
in the background, metrics read one step late and written every 10 steps, progress, SIGTERM watched) on as many steps
of the same program. Printed are the medians and the median of the ratios, round by round.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax

from jaxformer.assembly import Assembly
from jaxformer.config import resolve
from jaxformer.models.presets import preset
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


def bare_seconds(step, state, batch, steps):
    """Seconds a step of the compiled step alone; and the last state."""
    start = time.perf_counter()
    for _ in range(steps):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return (time.perf_counter() - start) / steps, state


def loop_seconds(experiment, folder, first):
    """Seconds a step of the loop, between the records of its 10th and its last step but 10."""
    train(experiment, folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = [(line["step"], line["time"]) for line in lines if "train/loss" in line]
    (start, began), (end, ended) = times[0], times[first]
    return (ended - began) / (end - start)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round, a multiple of 10")
    arguments = parser.parse_args()
    # Two more tens: the first compiles, and the last step evaluates before it is read.
    total = arguments.steps + 20
    experiment = resolve({**CONFIG, "train": {"total": f"{total} steps", "log_every": "10 steps"}})
    assembly = Assembly(experiment)
    step, batch = assembly.train_step(), assembly.layout.put(assembly.train_batches[0])
    _, state = bare_seconds(step, assembly.layout.born(assembly.init_state), batch, 2)
    rows = []
    for number in range(arguments.rounds):
        bare, state = bare_seconds(step, state, batch, arguments.steps)
        with tempfile.TemporaryDirectory() as folder:
            loop = loop_seconds(experiment, Path(folder) / "run", arguments.steps // 10)
        rows.append((bare, loop, loop / bare))
        print(
            f"round {number + 1}: bare {bare * 1e3:.1f} ms, loop {loop * 1e3:.1f} ms, ratio {loop / bare:.3f}"
        )
    bare, loop, ratio = (statistics.median(column) for column in zip(*rows))
    print(f"median: bare {bare * 1e3:.1f} ms, loop {loop * 1e3:.1f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
