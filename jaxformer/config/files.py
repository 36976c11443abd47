"""Reads config files, Python files with `get_config(arg=None)`, and applies overrides by dotted path."""

import ast
import inspect
import os
import re
import runpy
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import ConfigError, UserError

CONFIG_FILE = "a config file defines get_config(arg=None) and returns an ml_collections.ConfigDict"


def find(name: str) -> Path:
    """The file that NAME means: a path, or the name of a config that ships with jaxformer ("vit_digits").

    Raises:
      UserError: there is no such file.
    """
    path = Path(name)
    if os.path.isfile(path):  # False where the name itself cannot be one
        return path
    shipped = shipped_configs()
    if path.stem in shipped and str(path) in (path.stem, f"{path.stem}.py", f"configs/{path.stem}.py"):
        return shipped[path.stem]
    remedy = did_you_mean(path.stem, shipped)
    if os.path.exists(path):
        raise UserError(f"config={name}: is no file of Python code; name one, or a config that ships")
    raise UserError(f"config={name}: there is no such file, and no config of that name ships; {remedy}")


def shipped_configs() -> dict[str, Path]:
    """Name -> file of every config that comes with jaxformer."""
    package = Path(__file__).parent.parent
    folder = next((f for f in (package / "configs", package.parent / "configs") if f.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("[!_]*.py"))} if folder else {}


def read(spec: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The nested dicts that "FILE" or "FILE:ARG" gives, with overrides applied.

    Args:
      spec: a config file or a shipped config's name; what follows a colon is passed to `get_config`.
      overrides: values by dotted path; see `apply_overrides`.

    Raises:
      UserError: the file is missing, or fails, or an override has no place.
    """
    name, _, argument = spec.partition(":")
    path = find(name)
    with explained(f"config={spec}", path, CONFIG_FILE):
        get_config = run(path).get("get_config")
        if get_config is None:
            raise AttributeError("there is no get_config in it")
        if argument and not inspect.signature(get_config).parameters:
            raise UserError(f"config={spec}: this config takes no argument; leave {':' + argument!r} out")
        config = get_config(argument) if argument else get_config()
        if not isinstance(config, ConfigDict):
            raise TypeError(f"get_config returned a {type(config).__name__}")
        config = nested(config)
    apply_overrides(config, overrides or {})
    return config


def run(path: Path) -> dict[str, Any]:
    """What a file of Python code defines, by name."""
    return runpy.run_path(str(path), run_name=f"jaxformer_config_{path.stem}")


@contextmanager
def explained(said: str, path: Path, expected: str) -> Iterator[None]:
    """Turns whatever a file of the user's does wrong into a UserError.

    Args:
      said: what named the file, for the message: "config=my.py".
      path: the file.
      expected: what such a file is.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f"{path}, line {f.lineno}" for f in reversed(frames) if f.filename == str(path)), path)
        if isinstance(error, SyntaxError):
            place = f"{error.filename}, line {error.lineno}"
        why = error.msg if isinstance(error, SyntaxError) else next(iter(str(error).splitlines()), "")
        raise UserError(f"{said}: {type(error).__name__}: {why} ({place})", expected) from error


def nested(config: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    """A config as dicts and lists that are its own."""
    return deepcopy(config.to_dict() if isinstance(config, ConfigDict) else dict(config))


def apply_overrides(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Sets leaves of `config` in place; a misspelt leaf is found when the config is resolved.

    Args:
      config: nested dicts.
      overrides: values by dotted path; an entry of a list goes by its number: "data.transforms[0].padding".

    Raises:
      ConfigError: a path leads through something that has no fields.
    """
    errors = []
    for path, value in overrides.items():
        if not isinstance(path, str):
            errors.append(f"{path!r}: is no path of a leaf, such as 'train.total'")
            continue
        parts = parts_of(path)
        node: Any = config
        for i, part in enumerate(parts):
            within = isinstance(node, list) and part in map(str, range(len(node)))
            if not within and not isinstance(node, dict):
                where = ".".join(parts[:i])
                errors.append(f"{path}={value!r}: {where} is {node!r}, which has no field {part!r}")
                break
            place: Any = int(part) if within else part
            if i == len(parts) - 1:
                node[place] = deepcopy(value)  # a later override may reach into it
            else:
                node = node[place] if within else node.setdefault(place, {})
    if errors:
        raise ConfigError(*errors)


def parts_of(path: str) -> list[str]:
    """The names, and the numbers of entries of lists, of which a path is made."""
    return re.sub(r"\[(\d+)\]", r".\1", path).split(".")


def literal(text: str) -> Any:
    """A Python literal ("3e-4", "None", "[dict(name='flip')]"), or the text itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\\d", which are left as they are
            return ast.literal_eval(Dicts().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


class Dicts(ast.NodeTransformer):
    """Makes a dict display of every dict(key=...)."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Other calls stay, and are no literals."""
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if getattr(node.func, "id", None) != "dict" or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])
