"""What several verbs do."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def json_line(value: Any) -> str:
    """A line of JSON; see `files.to_json` for numbers that are not finite."""
    from jaxformer.files import to_json

    return json.dumps(to_json(value), ensure_ascii=False, allow_nan=False) + "\n"


def print_json(value: Any) -> None:
    """Prints a line of JSON."""
    sys.stdout.write(json_line(value))
