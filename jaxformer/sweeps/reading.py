"""Sweeps as people write them: `get_sweep()` in a file, or lists of values on a line."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxformer.config import files, schema
from jaxformer.errors import ConfigError, UserError
from jaxformer.sweeps.spaces import Choice, Range, Space, Sweep, choice

SWEEP_FILE = "get_sweep() returns a jaxformer.sweeps.spaces.Sweep, or a dict of paths and spaces"
RANGES = ("uniform", "log", "integer")
CALL = re.compile(r"([a-z_]+)\((.*)\)")


def read_sweep(config: str, spec: str | None = None) -> Sweep:
    """The sweep of a file.

    Args:
      config: the config's name, as it is given to train.
      spec: None: `get_sweep()` of the config's file; "NAME": its `get_sweep_NAME()`; or "FILE.py", or "FILE.py:NAME".

    Raises:
      UserError: there is no such file or function, or it fails, or returns something else.
    """
    in_file = spec is not None and ".py" in spec
    file, _, name = (spec or "").partition(":") if in_file else (config.partition(":")[0], "", spec or "")
    path, function = (
        found(file, spec) if in_file else files.find(file),
        f"get_sweep_{name}" if name else "get_sweep",
    )
    with files.explained(f"sweep={spec or config}", path, SWEEP_FILE):
        defined = files.run(path)
        known = [each for each in defined if each.startswith("get_sweep")]
        if function not in defined:
            there = schema.did_you_mean(function, known) if known else "define it, or name values with `set`"
            raise UserError(f"sweep={spec or config}: there is no {function} in {path}; {there}")
        return as_sweep(defined[function]())


def found(file: str, spec: str | None) -> Path:
    """The file that a sweep names.

    Raises:
      UserError: there is none.
    """
    try:
        return files.find(file)
    except UserError as error:
        raise UserError(f"sweep={spec}: there is no such file, and no config of that name ships") from error


def as_sweep(value: Any) -> Sweep:
    """A `Sweep` whose fields have their types, or a dict of paths and spaces as one.

    Raises:
      UserError: it is something else.
      ConfigError: a field has a value of another type.
    """
    if isinstance(value, Mapping):
        value = Sweep(value)
    if not isinstance(value, Sweep):
        raise UserError(
            f"sweep: expected a Sweep, or a dict of paths and spaces, was given a {type(value).__name__}"
        )
    errors: list[str] = []
    fields = schema.converted_fields(Sweep, vars(value), "", errors, "Sweep")
    if errors:
        raise ConfigError(*errors)
    return Sweep(**fields)


def read_lists(words: Iterable[str]) -> dict[str, Any]:
    """Fields of a `Sweep` from words such as "optimizer.learning_rate=1e-3,3e-3"; "seed=0,1" gives the seeds.

    A range is written as in a file: "optimizer.learning_rate=log(1e-4, 1e-2)".

    Raises:
      UserError: a word is malformed, or a path is there twice.
    """
    parameters: dict[str, Space] = {}
    found: dict[str, Any] = {"parameters": parameters}
    for word in words:
        path, equals, text = word.partition("=")
        if not equals or not all(path.split(".")) or not text.strip():
            raise UserError(
                f"set={word!r}: expected section.leaf=VALUE,VALUE, as in optimizer.learning_rate=1e-3,3e-3"
            )
        if path in parameters or (path == "seed" and "seeds" in found):
            raise UserError(f"set={word!r}: {path} is there twice; give all its values at once")
        space = read_space(text.strip())
        if path != "seed":
            parameters[path] = space
        elif isinstance(space, Choice):
            found["seeds"] = space.values
        else:
            raise UserError(f"set={word!r}: name the seeds, as in seed=0,1,2")
    return found


def read_space(text: str) -> Space:
    """The space of "1e-3,3e-3", "adamw,lion", "[8, 16],[16, 32]" or "log(1e-4, 1e-2)".

    Raises:
      UserError: it looks like a range, and is none.
    """
    if (written := CALL.fullmatch(text)) and written[1] != "dict":
        if written[1] not in RANGES:
            raise UserError(
                f"set={text!r}: there is no range {written[1]!r}; {schema.did_you_mean(written[1], RANGES)}"
            )
        ends = files.literal(f"[{written[2]}]")
        if not isinstance(ends, list) or len(ends) != 2:
            raise UserError(
                f"set={text!r}: expected two numbers, as in {written[1]}(1,10), and no other values"
            )
        return Range(written[1], *ends)  # type: ignore[arg-type]
    values = files.literal(f"[{text}]")
    if not isinstance(values, list):
        values = [files.literal(each.strip()) for each in text.split(",")]
    return choice(values)
