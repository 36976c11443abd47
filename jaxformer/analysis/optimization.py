"""A schedule drawn as text, and a table of which parameters each rule takes."""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jaxformer.observe import text
from jaxformer.optim.base import Optimizer
from jaxformer.optim.masks import decay_mask, multipliers, path_mask, trainable_mask
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


def describe_rules(config: Optimizer, params: Tree) -> str:
    """A table of the parameters that each rule of an optimizer takes.

    Args:
      config: the optimizer.
      params: a tree of arrays or ShapeDtypeStructs.
    """
    leaves, rows = leaves_by_path(params), []
    for rule, paths in rules(config, params).items():
        count = sum(int(np.prod(leaves[path].shape)) for path in paths)
        rows.append((rule, f"{count:,}", f"{len(paths):,}", shortened(paths)))
    return text.table(("rule", "parameters", "tensors", "which"), rows, right=("parameters", "tensors"))


def rules(config: Optimizer, params: Tree) -> dict[str, list[str]]:
    """A rule in words -> the paths of the parameters that it takes."""
    trained = leaves_by_path(trainable_mask(config, params))
    decayed = leaves_by_path(decay_mask(config, params))
    taken: dict[str, list[str]] = {}

    def take(rule: str, wanted: Callable[[str], bool]) -> None:
        taken[rule] = [path for path, trains in trained.items() if trains and wanted(path)]

    if config.freezes:
        taken["frozen"] = [path for path, trains in trained.items() if not trains]
    for i, (pattern, duration) in enumerate(config.unfreeze):
        before = tuple(each for each, _ in config.unfreeze[:i])
        mask = leaves_by_path(path_mask((pattern,), params))
        sooner = leaves_by_path(path_mask(before, params))
        waiting = {path for path, takes in mask.items() if takes and not sooner[path]}
        take(f"moves after {duration}", waiting.__contains__)
    for rule, part in config.parts(params).items():
        take(rule, leaves_by_path(part).__getitem__)
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
