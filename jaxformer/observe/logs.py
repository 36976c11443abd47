"""The logger "jaxformer" on a terminal: the first process speaks, the libraries below are quiet."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxformer.observe.text import printable

logger = logging.getLogger("jaxformer")
NOISY = ("absl", "orbax", "etils", "matplotlib", "PIL", "tensorboardX")


def make_console() -> Any:
    """A rich Console on stderr, to share between log lines and the progress bar; stdout is for results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def terminal_logging(console: Any = None, level: int = logging.INFO) -> Iterator[None]:
    """Shows what "jaxformer" logs on stderr, and only errors of the NOISY libraries; undone on leaving.

    Args:
      console: the rich Console that a progress bar draws on, if there is one, so that lines appear above it.
      level: the least that is shown.
    """
    import absl.logging  # before its level is set: it makes a logger class of its own

    handler, absl_verbosity, propagate = make_handler(console), absl.logging.get_verbosity(), logger.propagate
    before = {name: logging.getLogger(name).level for name in (*NOISY, logger.name)}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    absl.logging.set_verbosity(absl.logging.ERROR)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.propagate = propagate
        absl.logging.set_verbosity(absl_verbosity)
        for name, level_before in before.items():
            logging.getLogger(name).setLevel(level_before)


class PrintableFormatter(logging.Formatter):
    """Leaves out control characters: names and texts from outside may hold some."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def make_handler(console: Any = None) -> logging.Handler:
    """Time, level and message; in colour on a terminal."""
    console = make_console() if console is None else console
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    form = "%(asctime)s %(levelname).1s %(message)s"
    if console.is_terminal:
        from rich.logging import RichHandler

        form = "%(message)s"
        handler = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S", markup=False)
    handler.setFormatter(PrintableFormatter(form, "%H:%M:%S"))
    return handler
