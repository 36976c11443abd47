"""What several verbs do. Nothing else of the package writes to the terminal, but for the log and its progress bar."""

import glob
import os
import re
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxformer.errors import printable
from jaxformer.files import json_line, write_to

OTHER_OUTPUT = "name another place with --output"
UNREADABLE = re.compile("Error reading persistent compilation cache entry for '(.+?)'")  # JAX's warning
# How what zstandard compresses begins; JAX uses that, or zlib where it is missing.
ZSTANDARD = bytes.fromhex("28b52ffd")


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs (JAX_COMPILATION_CACHE_DIR; default ~/.cache/jaxformer/xla).

    JAX never overwrites a program that is there, not even one that a killed process has written half. So that one is
    removed when JAX warns of it, which is just before it compiles the program and keeps it anew.
    """
    import jax

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxformer" / "xla"
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    else:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"{cache}: compiled programs cannot be kept there ({error.strerror or error})"
        print_note(f"jaxformer: {why}; name another folder in JAX_COMPILATION_CACHE_DIR")
        jax.config.update("jax_enable_compilation_cache", False)
    if not isinstance(warnings.showwarning, partial):  # unless it is there
        warnings.showwarning = partial(mend_or_show, warnings.showwarning, cache)


def mend_or_show(show: Callable[..., None], cache: Path, message: Any, *rest: Any, **named: Any) -> None:
    """Shows a warning, unless it is of a compiled program in `cache` that was cut short and can be removed."""
    name = UNREADABLE.match(str(message))
    entries = cache.glob(f"{glob.escape(name[1])}-*-cache") if name else ()
    cut = [entry for entry in entries if not is_whole(entry)]
    for entry in cut:
        entry.unlink(missing_ok=True)
    if not cut:
        show(message, *rest, **named)


def is_whole(entry: Path) -> bool:
    """Whether a file that JAX has compressed is all there."""
    try:
        compressed = entry.read_bytes()
        if compressed.startswith(ZSTANDARD):
            import_module("zstandard").ZstdDecompressor().decompress(compressed)
        else:
            zlib.decompress(compressed)
    except ImportError:
        return True
    except Exception:
        return False
    return True


def cpu_devices(count: int) -> dict[str, str]:
    """The environment in which JAX shows so many CPU devices, if it has not looked for devices yet."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    quiet = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")  # of XLA errors alone: it warns of how arrays move
    return {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": quiet}


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
    write_to(sys.stdout, printable(text)[len(printable(text[:after])) :])


def print_line(line: str) -> None:
    """Writes a line for people; an end of a line in it is escaped, too."""
    print_text(printable(line, keep="") + "\n")


def print_json(value: Any) -> None:
    """Writes a line of JSON."""
    print_text(json_line(value))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int, **about: Any) -> None:
    """Writes a table for people; its cells are escaped.

    Args:
      head: the names of the columns.
      rows: the cells.
      width: characters of a line where there is no terminal.
      **about: "title" and "caption", as of rich's Table.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=SIMPLE_HEAD, **about)
    for row in rows:
        table.add_row(*map(printable, row))
    table.columns[0].no_wrap = True
    table.title_justify = table.caption_justify = "left"
    seen = None if sys.stdout.isatty() else width
    Console(width=seen, markup=False, emoji=False, highlight=False).print(table)


def print_note(line: str) -> None:
    """Writes a line beside the results, to stderr, where that still takes one."""
    with suppress(OSError):
        sys.stderr.write(printable(line, keep="") + "\n")


def note_of_prompts(examples: Any, prompt: object) -> None:
    """Says that a run learnt texts about images behind prompts, where none is given."""
    if examples.asked and not prompt:
        print_note(
            "jaxformer: this run learnt texts behind prompts, such as questions; give it one with --prompt TEXT"
        )


def refusing() -> Iterator[str]:
    """Yields which of the outputs take no more, not even the end of a line."""
    for name, stream in {"standard output": sys.stdout, "standard error": sys.stderr}.items():
        try:
            stream.write("\n")
            stream.flush()
        except OSError:
            yield name
