"""What several verbs do."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs (JAX_COMPILATION_CACHE_DIR; default ~/.cache/jaxformer/xla)."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxformer" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextmanager
def working() -> Iterator[None]:
    """Compiled programs are kept, and the log goes to the terminal."""
    use_compilation_cache()
    from jaxformer.observe.terminal import make_console, terminal_logging

    with terminal_logging(make_console()):
        yield


def print_json(value: Any) -> None:
    """Prints a line of JSON; see `files.to_json` for numbers that are not finite."""
    from jaxformer.files import to_json

    sys.stdout.write(json.dumps(to_json(value), ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot write there ({reason}); name another file with --output") from error
