"""A verb as a class: its fields are the options, their strings the help, and a call does the work.

A field `top_k: int | None = None` is the flag `--top-k`; `flag` gives it another name, and `argument` makes it a word
of the command. Types and constraints are checked by the config's schema (`config/schema.py`); argparse only splits.
"""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn, TypeAlias, Union

from jaxformer.config import schema
from jaxformer.config.fields import Constraint, not_empty
from jaxformer.config.reference import field_docs
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.inference.loaded import LoadedRun

# Annotated[tuple[str, ...], COMMAS]: one value "a,b,c" in the place of a flag that is given three times
COMMAS = "commas"
OVERRIDE = "--config."

STEP = re.compile("best|latest|[0-9]{1,18}")
WHICH = Constraint("best, latest or a step", lambda text: STEP.fullmatch(text) is not None)
Checkpoint: TypeAlias = Annotated[str, WHICH]
Named: TypeAlias = Annotated[str, not_empty('the name of a file or a folder, and not ""')]
How: TypeAlias = Literal["mean", "logits", "vote"]  # several runs answer together; see inference/ensemble.py
Names: TypeAlias = Annotated[tuple[str, ...], COMMAS]


def argument(metavar: str, *names: str, default: Any = MISSING) -> Any:
    """A field that is a word of the command, in the order of the fields; of a tuple all words that are left.

    Args:
      metavar: what the help calls its value.
      names: flags that mean the same.
      default: the field's.
    """
    return dataclasses.field(default=default, metadata={"word": metavar, "metavar": metavar, "names": names})


def flag(default: Any = MISSING, metavar: str = "", *names: str, several: bool = False) -> Any:
    """A field that is a flag, where its own name or its type do not say enough.

    Args:
      default: the field's.
      metavar: what the help calls its value.
      names: names in the place of the field's own.
      several: whether all words up to the next flag, or up to two hyphens, are values of a tuple.
    """
    about = {"metavar": metavar, "names": names, "several": several}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What the command line can do. The first paragraph of a verb's docstring is its help."""

    moved: ClassVar[Mapping[str, str]] = {}
    """Flags of former versions -> the command that does it now."""

    def __call__(self) -> int | None:
        """Does it, and returns the exit code; None is 0."""
        raise NotImplementedError

    @classmethod
    def beside_the_point(cls, words: Sequence[str]) -> Collection[str]:
        """The fields that the help leaves out where `words` stand before it."""
        return ()


@dataclass(frozen=True, kw_only=True)
class OfRun(Verb):
    """A verb that reads a run."""

    run: Path = argument("RUN")
    """A run's folder."""
    checkpoint: Checkpoint = flag("best", "best|latest|STEP")
    """Which checkpoint."""

    def load(self) -> "LoadedRun":
        """The run with the checkpoint."""
        from jaxformer.inference.loaded import LoadedRun

        return LoadedRun(self.run, self.checkpoint)

    def load_all(self, others: Sequence[Path], how: How | None) -> "LoadedRun":
        """The run, or with others an ensemble.

        Raises:
          UserError: `how` is given, and no others.
        """
        if others:
            from jaxformer.inference.ensemble import Ensemble

            return Ensemble([self.run, *others], how or "mean", self.checkpoint)
        if how is not None:
            raise UserError(f"--ensemble {how}: is for several runs, and only {self.run} is named")
        return self.load()


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        raise UserError(f"{self.prog.partition(' ')[2]}: {message}", f"see `{self.prog} --help`")


def called(field: dataclasses.Field) -> str:
    """What messages call a field: "--top-k", or "RUN"."""
    own = (f"--{field.name.replace('_', '-')}",)
    return field.metadata.get("word") or (field.metadata.get("names") or own)[0]


def in_flags(cls: type, line: str) -> str:
    """A message about fields of `cls` with their flags: "--top-k 0: ..." of "top_k=0: ...", and for `top_k` --top-k."""
    names = {field.name: called(field) for field in schema.config_fields(cls).values()}
    line = re.sub(r", or None to (?=\w+ )", "; leave it out to ", line)  # a flag cannot be None
    line = re.sub(r"`(\w+)(=True)?`", lambda found: names.get(found[1], found[0]), line)
    found = re.match(r"""(\w+)(?:\[\d+\])?(?:[= ]("[^"]*"|'[^']*'|\S+))?: """, line)
    if found is None or found[1] not in names:
        return line
    value = (found[2] or "").strip("\"'")
    return f"{names[found[1]]} {value}".rstrip() + f": {line[found.end() :]}"


def plain(kind: Any) -> tuple[Any, bool]:
    """The first type of a union without what is said of it, and whether its values are written with commas."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        return plain(typing.get_args(kind)[0])
    if typing.get_origin(kind) is Annotated:
        inner, *said = typing.get_args(kind)
        return plain(inner)[0], COMMAS in said
    return kind, False


def from_text(kind: Any, given: Any) -> Any:
    """What was typed as a value that the schema takes for `kind`; text that is no number stays, and is refused."""
    kind, commas = plain(kind)
    if typing.get_origin(kind) is tuple:
        parts = map(str.strip, given.split(",")) if commas else given
        return [from_text(typing.get_args(kind)[0], part) for part in parts]
    try:
        if isinstance(given, str) and (given.isascii() if kind in (int, float) else kind is Path and given):
            return kind(given)
        return given
    except ValueError:
        return given


def make_parser(name: str, cls: type, left_out: Collection[str] | None = None) -> Parser:
    """The argparse parser of a verb.

    Args:
      name: "train", or "data import".
      cls: its class.
      left_out: the fields that its help does not show. None is for parsing: no string under a field is read, and
        `parse` finds out what is missing.
    """
    helping = left_out is not None
    parser = Parser(f"jaxformer {name}", description=summary(cls), allow_abbrev=False)
    docs = field_docs(cls) if helping else {}
    for field in schema.config_fields(cls).values():
        if field.name == "overrides" or field.name in (left_out or ()):
            continue
        about, (kind, commas) = field.metadata, plain(field.type)
        many, needed = typing.get_origin(kind) is tuple and not commas, field.default is MISSING
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        options["help"] = help_of(field, docs)
        if kind is bool:
            options["action"] = "store_true"
        else:
            options["metavar"] = about.get("metavar") or usual_metavar(kind, field.name)
        if "word" in about:
            nargs = ("+" if needed else "*") if many else (None if needed else "?")
            parser.add_argument(**options, nargs=nargs if helping else "*" if many else "?")
            options["help"] = argparse.SUPPRESS  # its other names are those of former versions
        elif bool in typing.get_args(field.type):  # a flag with or without a value
            options |= {"nargs": "?", "const": True}
        elif many:
            options |= {"action": "extend", "nargs": "+"} if about.get("several") else {"action": "append"}
        if names := about.get("names") or (() if "word" in about else (called(field),)):
            parser.add_argument(*names, **options, required=helping and needed and "word" not in about)
    return parser


def usual_metavar(kind: Any, name: str) -> str:
    """What the help calls a flag's value."""
    if typing.get_origin(kind) is Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return {int: "N", float: "X", Path: "FILE"}.get(kind, name.upper())


def help_of(field: dataclasses.Field, docs: Mapping[str, str]) -> str:
    """A field's documentation with its default."""
    text = docs.get(field.name, "")
    text = text if text.endswith("...") else text.removesuffix(".")
    if field.default not in (MISSING, None, False, ()):
        text += f" (default: {field.default})"
    return text.replace("%", "%%")


def summary(cls: type) -> str:
    """The first paragraph of a class's docstring as one line."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def override_values(words: Sequence[str]) -> dict[str, Any]:
    """The values that "--config.section.leaf=VALUE" set, by dotted path; VALUE is a Python literal, or else a string.

    Raises:
      UserError: one is malformed.
    """
    from jaxformer.config.files import literal

    parted = [word.removeprefix(OVERRIDE).partition("=") for word in words]
    if errors := [
        f"{word}: expected {OVERRIDE}section.leaf=VALUE, as in {OVERRIDE}train.total='10 epochs'"
        for word, (path, equals, _) in zip(words, parted)
        if not equals or not all(path.split("."))
    ]:
        raise UserError(*errors)
    return {path: literal(text) for path, _, text in parted}


def parse(name: str, cls: type[Verb], argv: Sequence[str]) -> Verb:
    """The verb `name` with the options of a command line.

    Raises:
      UserError: what cannot be, a line each.
    """
    fields = schema.config_fields(cls)
    overrides = [word for word in argv if word.startswith(OVERRIDE)]
    words = [word for word in argv if word not in overrides]
    if {"-h", "--help"} & set(words):
        make_parser(name, cls, cls.beside_the_point(words)).parse_args(["--help"])
    if overrides and "overrides" not in fields:
        raise UserError(f"{overrides[0]}: `{name}` reads the run's own config, which has no overrides")
    namespace, rest = make_parser(name, cls).parse_known_intermixed_args(words)
    given = {key: from_text(fields[key].type, value) for key, value in vars(namespace).items()}
    if overrides:
        given["overrides"] = override_values(overrides)
    check_words(name, cls, rest, given)
    errors: list[str] = []
    made = schema.resolve(cls, given, "", errors)
    if errors:
        raise UserError(*(in_flags(cls, line) for line in errors))
    return made


def check_words(name: str, cls: type[Verb], rest: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuses words that a verb does not know, and names what it misses.

    Raises:
      UserError: the command as it should be.
    """
    needed = [field for field in schema.config_fields(cls).values() if field.default is MISSING]
    words = [field.metadata["word"] for field in needed if "word" in field.metadata]
    missing = [called(field) for field in needed if field.name not in given]
    unknown = [word.partition("=")[0] for word in rest]
    see = f"see `jaxformer {name} --help`"
    for word in cls.moved.keys() & set(unknown):
        raise UserError(f"{name}: {word} is a verb of its own: `jaxformer {cls.moved[word]}`")
    if words[:1] == ["RUN"] and ("RUN" in missing or {"--run", "--workdir"} & set(unknown)):
        raise UserError(f"{name}: give the run first: `jaxformer {name} {' '.join(words)}`")
    if rest:
        fields = schema.config_fields(cls).values()
        flags = [flag for field in fields for flag in (called(field), *field.metadata.get("names", ()))]
        near = [f"did you mean {flag}?" for word in unknown for flag in schema.nearest(word, flags)]
        raise UserError(f"{name}: unrecognized arguments: {' '.join(rest)}", "; ".join([*near[:1], see]))
    if missing:
        raise UserError(f"{name}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing", see)
