"""Training on this machine, under a supervisor."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxformer.launching.decisions import Budgets
from jaxformer.launching.supervisor import Supervisor


def command(arguments: Sequence[str]) -> list[str]:
    """The words that start a training with this Python, and with the arguments of the verb `train`."""
    return [sys.executable, "-m", "jaxformer", "train", *arguments]


def launch(
    arguments: Sequence[str],
    folder: Path,
    budgets: Budgets = Budgets(),
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Trains until it is done; see `Supervisor.run` for what it returns and raises.

    Args:
      arguments: those of the verb `train`.
      folder: the run's folder, which the arguments name, too.
      budgets: how often the training may be started again.
      say: takes lines for people.
    """
    return Supervisor(command(arguments), folder, budgets, say).run()
