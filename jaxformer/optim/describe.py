"""A schedule drawn as text, and a table of which parameters each rule takes."""

import re
from typing import Any

import jax
import numpy as np
import optax

from jaxformer.optim.masks import decay_mask, multipliers, trainable_mask
from jaxformer.optim.optimizers import Muon
from jaxformer.paths import leaves_by_path

Tree = Any
WIDTH, HEIGHT = 64, 8
LEVELS = " ▁▂▃▄▅▆▇█"


def describe_schedule(schedule: optax.Schedule, total_steps: int) -> str:
    """A schedule as a small plot, learning rate over steps.

    Args:
      schedule: learning rate by step.
      total_steps: the length of the training; the last step is total_steps - 1.
    """
    last = max(total_steps - 1, 1)
    steps = np.round(np.linspace(0, last, WIDTH)).astype(np.int32)
    rates = np.asarray(jax.jit(jax.vmap(schedule))(steps), np.float64)
    top = rates.max() if rates.max() > 0 else 1.0
    eighths = np.round(rates / top * HEIGHT * 8).astype(int)
    labels = {HEIGHT - 1: f"{rates.max():.3g}", HEIGHT // 2 - 1: f"{rates.max() / 2:.3g}", 0: "0"}
    margin = max(map(len, labels.values()))
    lines = ["Learning rate by step"]
    for row in reversed(range(HEIGHT)):
        bars = "".join(LEVELS[level] for level in np.clip(eighths - 8 * row, 0, 8))
        lines.append(f"{labels.get(row, ''):>{margin}} ┤{bars}".rstrip())
    lines.append(f"{'':>{margin}} └{'┬'.join('─' * (WIDTH // 4 - 1) for _ in range(4))}─")
    marks = "".join(f"{round(last * i / 4):<{WIDTH // 4},}" for i in range(4))
    lines.append(f"{'':>{margin}}  {marks}{last:,}")
    return "\n".join(lines)


def describe_rules(config: Any, params: Tree) -> str:
    """Which parameters each rule of an optimizer takes, a line a rule.

    Args:
      config: one of OPTIMIZERS' classes.
      params: a tree of arrays or ShapeDtypeStructs.
    """
    lines = [f"{'Rule':<32}{'Parameters':>14}{'Tensors':>9}  Which"]
    for rule, paths in rules(config, params).items():
        leaves = leaves_by_path(params)
        count = sum(int(np.prod(leaves[path].shape)) for path in paths)
        lines.append(f"{rule:<32}{count:>14,}{len(paths):>9,}  {shortened(paths)}".rstrip())
    return "\n".join(lines)


def rules(config: Any, params: Tree) -> dict[str, list[str]]:
    """A rule in words -> the paths of the parameters that it takes."""
    trained = leaves_by_path(trainable_mask(config, params))
    decayed = leaves_by_path(decay_mask(config, params))
    taken: dict[str, list[str]] = {}

    def take(rule: str, wanted: Any) -> None:
        taken[rule] = [path for path, trains in trained.items() if trains and wanted(path)]

    if config.freeze:
        taken["frozen"] = [path for path, trains in trained.items() if not trains]
    if isinstance(config, Muon):
        labels = leaves_by_path(config.labels(params))
        take("by orthogonalised momentum", lambda path: labels[path] == "muon")
        take("by Adam", lambda path: labels[path] == "adam")
    penalties = (("weight decay", config.weight_decay), ("L1", config.l1), ("L2", config.l2))
    active = ", ".join(f"{name} {value:g}" for name, value in penalties if value)
    if active:
        take(active, lambda path: decayed[path])
        take(f"no {' or '.join(name for name, value in penalties if value)}", lambda path: not decayed[path])
    by_factor: dict[str, list[str]] = {}
    for path, factor in multipliers(config, params).items():
        if trained[path]:
            low, high = factor.min(), factor.max()
            words = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            by_factor.setdefault(f"learning rate x {words}", []).append(path)
    if list(by_factor) != ["learning rate x 1"]:
        taken |= dict(sorted(by_factor.items(), key=lambda item: float(item[0].split()[3])))
    if not taken:
        take("trained", lambda path: True)
    return taken


def shortened(paths: list[str], most: int = 2) -> str:
    """A few of the paths, blocks counted as one."""
    names = list(dict.fromkeys(re.sub(r"_\d+/", "_*/", path) for path in paths))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
