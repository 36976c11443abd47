"""What several verbs do. Nothing else of the package writes to the terminal, but for the log and its progress bar."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxformer.errors import printable
from jaxformer.files import json_line

OTHER_OUTPUT = "name another place with --output"


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs (JAX_COMPILATION_CACHE_DIR; default ~/.cache/jaxformer/xla)."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxformer" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextmanager
def working() -> Iterator[Any]:
    """Compiled programs are kept, and the log goes to the terminal; yields the terminal for a progress bar."""
    use_compilation_cache()
    from jaxformer.observe.terminal import make_console, terminal_logging

    console = make_console()
    with terminal_logging(console):
        yield console


def print_text(text: str, after: int = 0) -> None:
    """Writes a text for people, `printable`.

    Args:
      text: the text, with its ends of lines.
      after: how many of its first characters have been written.
    """
    sys.stdout.write(printable(text)[len(printable(text[:after])) :])
    sys.stdout.flush()


def print_line(line: str) -> None:
    """Writes a line for people; an end of a line in it is escaped, too."""
    print_text(printable(line, keep="") + "\n")


def print_json(value: Any) -> None:
    """Writes a line of JSON."""
    sys.stdout.write(json_line(value))


def print_note(line: str) -> None:
    """Writes a line beside the results, to stderr, where that still takes one."""
    with suppress(OSError):
        sys.stderr.write(printable(line, keep="") + "\n")
