"""Hungarian matching of DETR's size, ours beside SciPy's: 100 queries, 64 targets, batch 8.

    .venv/bin/python benchmarks/matching.py [--batch 8] [--queries 100] [--targets 64] [--rounds 9]

Ours is `tasks.assignment.linear_assignment`, jitted, on the default device; the peer is
`scipy.optimize.linear_sum_assignment`, one problem after the other on the
host, on costs that are in its memory already. The two take turns. Costs are drawn as:
"uniform" ones; L1 distances of boxes that lie anywhere ("boxes"), or of predictions that are all much the same, as
before training ("alike"); and products, where every target likes the same queries ("contested"), which take longest.
"""

import argparse
import statistics

import jax
import numpy as np
from common import in_turns
from scipy.optimize import linear_sum_assignment

from jaxformer.tasks.assignment import linear_assignment


def uniform(generator, batch, queries, targets):
    return generator.uniform(size=(batch, queries, targets))


def boxes(generator, batch, queries, targets):
    predicted, wanted = (
        generator.uniform(size=(batch, queries, 1, 4)),
        generator.uniform(size=(batch, 1, targets, 4)),
    )
    return np.abs(predicted - wanted).sum(-1)


def alike(generator, batch, queries, targets):
    predicted = 0.5 + 0.02 * generator.normal(size=(batch, queries, 1, 4))
    return np.abs(predicted - generator.uniform(size=(batch, 1, targets, 4))).sum(-1)


def contested(generator, batch, queries, targets):
    return generator.uniform(size=(batch, queries, 1)) * generator.uniform(size=(batch, 1, targets))


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--targets", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    shape = (arguments.batch, arguments.queries, arguments.targets)
    valid = jax.device_put(np.ones((arguments.batch, arguments.targets), bool))
    matched = jax.jit(linear_assignment)
    print(
        f"{shape} on {jax.devices()[0].device_kind}: milliseconds a batch, medians of {arguments.rounds} rounds"
    )
    for kind in (uniform, boxes, alike, contested):
        costs = kind(np.random.default_rng(0), *shape).astype(np.float32)
        on_device = jax.device_put(costs)

        def ours(on_device=on_device):
            return matched(on_device, valid).block_until_ready()

        def scipys(costs=costs):
            return [linear_sum_assignment(problem) for problem in costs]

        seconds = in_turns({"jaxformer": ours, "SciPy": scipys}, arguments.rounds, arguments.steps)
        taken = np.take_along_axis(costs, np.asarray(ours())[:, None], axis=1)[:, 0].astype(np.float64).sum()
        least = sum(problem[pair].astype(np.float64).sum() for problem, pair in zip(costs, scipys()))
        figures = ", ".join(
            f"{name} {1e3 * statistics.median(s):.2f} ({1e3 * min(s):.2f} to {1e3 * max(s):.2f})"
            for name, s in seconds.items()
        )
        print(f"{kind.__name__:>9}: {figures}; cost {taken:.4f}, SciPy's {least:.4f}", flush=True)


if __name__ == "__main__":
    main()
