"""The contract of launchers, and what all of them share."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

import yaml

from jaxformer.config.fields import Constraint, PositiveInt
from jaxformer.errors import UserError
from jaxformer.files import write_atomically, writing_to
from jaxformer.launching import REHEARSE
from jaxformer.launching.checkout import Checkout
from jaxformer.launching.decisions import Budgets

PORT = 8476
"""Of the process that gathers the others, where we choose it."""
SUPERVISOR = ("python", "-m", "jaxformer.launching.supervisor")
PLACEHOLDER = "{task}"
"""In a folder's name and in overrides: the number of one of several trainings that are launched together."""


def matching(pattern: str, expected: str) -> Constraint:
    """A text that a pattern describes from its beginning to its end."""
    return Constraint(expected, lambda text: re.fullmatch(pattern, text) is not None)


Word: TypeAlias = Annotated[str, matching(r"[\w.,:/@%+=-]+", "one word, without spaces and quotes")]
Folder: TypeAlias = Annotated[
    str,
    matching(
        r"(?!-|\./?$|(?:.*/)?\.\.(?:/|$)|[A-Za-z][\w+.-]+:)[\w.,:/@%+={}-]+",
        "the name of a folder as the hosts see it, no address, without '..', spaces, quotes and a '-' in front",
    ),
]
Variable: TypeAlias = Annotated[str, matching(r"(?s)[A-Za-z_]\w*=[^\0]*", "NAME=VALUE")]
Label: TypeAlias = Annotated[
    str,
    matching(
        "[a-z](-?[a-z0-9]){0,39}", "40 lower-case letters, digits and single hyphens at most, a letter first"
    ),
]


@dataclass(frozen=True)
class Job:
    """A training, as launchers see it."""

    name: str
    """What everything is called that is made for it; a `Label`."""
    command: tuple[str, ...]
    """The words of the command that trains, the same on every host."""
    workdir: str
    """The folder of the run, as the command names it."""
    preflight: tuple[str, ...] = ()
    """The command that compiles it for a slice beforehand, but for the slice; empty where that cannot be done."""
    checkout: Checkout | None = None
    """The code that is launched from; None outside of a git checkout."""


@dataclass(frozen=True)
class Plan:
    """What a launch does: files that are written, then commands that run, up to the first that fails."""

    files: Mapping[str, str]
    """Path -> text."""
    commands: tuple[tuple[str, ...], ...]
    """The words of each command."""

    def script(self) -> str:
        """All of it as a script of bash that does the same."""
        lines = ["set -euo pipefail"]
        for path, text in self.files.items():
            end = next(mark for n in range(99) if (mark := "EOF" + "_" * n) not in text.splitlines())
            lines.append(f"mkdir -p {shlex.quote(os.path.dirname(path))}")
            lines.append(f"cat >{shlex.quote(path)} <<'{end}'\n{text}{end}")
        return "\n".join([*lines, *map(shlex.join, self.commands)]) + "\n"


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """A place where trainings run. Its fields are its settings; all else follows from them and the job."""

    program: ClassVar[str] = ""
    """The program that it needs on this machine; "" if none."""
    remedy: ClassVar[str] = ""
    """Where that comes from."""

    copies_checkout: ClassVar[bool] = False
    """Whether the code that runs there is a copy of the checkout, as git knows it."""

    env: tuple[Variable, ...] = ()
    """A variable of the environment of every process, NAME=VALUE; may be given several times."""
    attempts: PositiveInt = Budgets().without_progress
    """After so many attempts in a row that leave no newer checkpoint the supervisor does not start it again."""

    no_rehearsal: bool = False
    """Leave out the rehearsal of a new training, which takes three steps, evaluates a batch, saves and restores."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields, each beginning with a field's name."""
        yield from ()

    def devices(self) -> int | None:
        """How many devices train together, which the mesh and the batch have to fit; None if only the host knows."""
        raise NotImplementedError

    def folder(self, name: str) -> str:
        """The folder of the run where the user names none."""
        return f"runs/{name}"

    def tasks(self) -> list[str]:
        """What PLACEHOLDER stands for in one training or more; empty where a launch is a single training."""
        return []

    def render(self, job: Job) -> Plan:
        """What starts the job. Pure: nothing is looked up and nothing is written.

        Raises:
          UserError: this job cannot run there.
        """
        raise NotImplementedError

    def supervised(self, job: Job) -> tuple[str, ...]:
        """The words of the job's command under a supervisor; they are the same on every host."""
        first = () if self.no_rehearsal else (REHEARSE,)
        return (*SUPERVISOR, *first, str(self.attempts), job.workdir, *job.command)

    def variables(self) -> dict[str, str]:
        """The variables of `env`."""
        return dict(text.split("=", 1) for text in self.env)

    def run(self, plan: Plan) -> int:
        """Writes the files and runs the commands; returns the exit code of the first that fails, or 0.

        Raises:
          UserError: the program is not there, or fails, or a file cannot be written.
        """
        if self.program and shutil.which(self.program) is None:
            raise UserError(f"{self.program}: is not on this machine, or not in PATH; {self.remedy}")
        for path, text in plan.files.items():
            with writing_to(Path(path)):
                write_atomically(Path(path), text)
        # The programs beside this Python, of which jaxformer is one, need not be in PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        for command in plan.commands:
            try:
                code = subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode
            except OSError as error:
                raise UserError(f"{command[0]}: cannot be run ({error.strerror}); {self.remedy}") from None
            code = code if code >= 0 else 128 - code
            if code and command[0] == self.program:  # its exit codes are not those of a training
                raise UserError(f"{self.program}: ended with exit code {code}; its reason stands above")
            if code:
                return code
        return 0


def launched(name: str, *parts: str) -> str:
    """The path of what is kept of a launch on this machine: "launched/NAME/..."."""
    return "/".join(["launched", name, *parts])


def flags(**options: Any) -> list[str]:
    """Flags of another program: flags(node_id=1, spot=True, network=None) is --node-id=1 --spot."""
    words = []
    for name, value in options.items():
        if value is not None and value is not False:
            words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}"))
    return words


def assigned(**variables: Any) -> str:
    """Lines of bash that set variables: texts, numbers, "" for None and False, arrays of tuples and lists."""
    lines = []
    for name, value in variables.items():
        if isinstance(value, (tuple, list)):
            shown = f"({shlex.join(value)})"
        else:
            shown = shlex.quote("" if value is None or value is False else str(value))
        lines.append(f"{name}={shown}\n")
    return "".join(lines)


def exported(variables: Mapping[str, str]) -> str:
    """Lines of bash that set variables of the environment."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def to_yaml(value: Any) -> str:
    """A value as YAML, in the order in which it stands; texts of several lines as blocks."""
    return yaml.dump(value, Dumper=Blocks, sort_keys=False, width=100)


# Numbers of YAML 1.2, which PyYAML does not know ("1e3", "0o17"), and bools of Go's parser.
NO_TEXT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+|0x[\da-fA-F]+|[yYnN]")


class Blocks(yaml.SafeDumper):
    """YAML in which texts of several lines can be read."""


def block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """A text of several lines as a block, one that other parsers read as a number or a bool in quotes."""
    style = "|" if "\n" in text else "'" if NO_TEXT.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Blocks.add_representer(str, block)
