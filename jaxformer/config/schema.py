"""Turns nested mappings into frozen dataclasses, and reports everything that is wrong with them at once.

A field that chooses among named classes is declared `choice(TABLE)`: its value is a mapping whose `name` is a
key of TABLE and whose other keys are that class's fields. TABLE maps names to classes, or to
"package.module:Class", which is imported when it is chosen. A config may name a class of the user's own in the
same way; with `choice(TABLE, contract=...)` it has to have the members of that contract.

Constraints stand with the fields (`fields.py`): `width: PositiveInt = 256`. What crosses fields is a method
`problems()`.
"""

import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union

from jaxformer.config.durations import Duration
from jaxformer.config.fields import Constraint, address, no_address
from jaxformer.errors import ConfigError

Table: TypeAlias = Mapping[str, type | str]

FEW = 3  # members of a contract that a message names where a class lacks most of them

LARGEST = 2**32  # no whole number of a config is as large; a seed may come close to it

# A field -> what other libraries, and other classes here, call it.
ELSEWHERE = {
    "context_length": "max_positions max_position_embeddings n_positions block_size max_length",
    "max_positions": "context_length max_position_embeddings n_positions block_size max_length",
    "width": "hidden_size embed_dim n_embd d_model dim",
    "depth": "num_layers num_hidden_layers n_layer",
    "num_heads": "num_attention_heads n_head heads",
    "mlp_dim": "intermediate_size hidden_dim d_ff",
    "learning_rate": "lr",
    "num_classes": "num_labels",
}

# Fields of linen modules that the program sets (precision, parallelism), not the config.
SET_BY_THE_PROGRAM = frozenset({"parent", "name", "dtype", "param_dtype", "axis_name"})


@dataclasses.dataclass(frozen=True)
class Choices:
    """The classes that a field chooses among."""

    table: Table
    """Name -> class, or "package.module:Class"."""
    contract: type | str | None = None
    """What a class of the user's own has to look like: all its public members."""
    about: str | None = None
    """An attribute of the classes, which messages about their fields tell, too: "modality"."""


def choice(table: Table, contract: type | str | None = None, about: str | None = None, **kwargs: Any) -> Any:
    """A dataclass field whose value is one of `table`'s classes; annotated as a tuple, a tuple of them.

    Args:
      table: name -> class, or "package.module:Class".
      contract: the class (or its "package.module:Class") whose public members a user's own class needs.
      about: an attribute of the classes, which messages about their fields tell, too.
      **kwargs: those of `dataclasses.field`.
    """
    return dataclasses.field(metadata={"choices": Choices(table, contract, about)}, **kwargs)


def load(target: type | str) -> type:
    """The class itself, or the one that "package.module:Class" names."""
    if isinstance(target, str):
        module, _, name = target.partition(":")
        return getattr(importlib.import_module(module), name)
    return target


def config_fields(cls: type) -> dict[str, dataclasses.Field]:
    """The fields of `cls` that a config may set."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    is_module = "parent" in fields
    return {name: f for name, f in fields.items() if not (is_module and name in SET_BY_THE_PROGRAM)}


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known word that an unknown one is probably meant to be; empty if none is near."""
    if len(word) > 100:  # it would take minutes
        return []
    return difflib.get_close_matches(word, known, n=1, cutoff=0.6)


def did_you_mean(word: str, known: Iterable[Any]) -> str:
    """A remedy for an unknown word: what it is called here, or the nearest known one, or all of them."""
    known = sorted(map(str, known))
    meant = [name for name, others in ELSEWHERE.items() if word in others.split()]
    near = [name for name in meant if name in known] if meant else nearest(word, known)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"


def resolve(cls: type, value: Any, path: str, errors: list[str]) -> Any:
    """Builds a `cls` from a mapping, or checks one that was built in Python.

    Args:
      cls: a dataclass (a linen module is one). Its method `problems()`, if it has one, yields a line for
        every impossible combination of its fields, each beginning with the field's name.
      value: what the config says, nested mappings for nested dataclasses; or an instance of `cls`.
      path: where in the config this is, for messages ("model").
      errors: takes a line for everything that is wrong.

    Returns:
      The instance, or None if anything in it was wrong (then `errors` has grown).
    """
    before, dot = len(errors), f"{path}." if path else ""
    built = isinstance(value, cls)
    given = {name: getattr(value, name) for name in config_fields(cls)} if built else value
    fields = converted_fields(cls, given, dot, errors, cls.__name__)
    if len(errors) == before:
        value = value if built else cls(**fields)
        lines = value.problems() if hasattr(cls, "problems") else ()
        errors.extend(f"{dot}{line}" for line in lines)
    return value if len(errors) == before else None


def converted_fields(cls: type, given: Mapping, dot: str, errors: list[str], owner: str) -> dict[str, Any]:
    """The fields of `cls` that are given, each as its type; those that are wrong have lines in `errors` instead.

    Args:
      cls: a dataclass.
      given: the fields' values.
      dot: what stands before their names in messages: "model.".
      errors: takes a line for everything that is wrong.
      owner: what messages call the class.
    """
    fields, converted = config_fields(cls), {}
    for key in given:
        if key not in fields:
            errors.append(f"{dot}{key}: {owner} has no field {key!r}; {did_you_mean(str(key), fields)}")
    for key, field in fields.items():
        before = len(errors)
        if key in given:
            value = convert(field.type, given[key], f"{dot}{key}", errors, field.metadata.get("choices"))
            if len(errors) == before:
                converted[key] = value
        elif field.default is field.default_factory is dataclasses.MISSING:
            errors.append(f"{dot}{key}: missing; {owner} needs it ({type_name(field.type)})")
    return converted


def build(table: Table, value: Any, path: str, contract: str | None = None) -> Any:
    """An instance of the class of `table` that `value` chooses: a name, or dict(name=..., field=...).

    Args:
      table: name -> class.
      value: what to build.
      path: what messages call it.
      contract: the base class that a class of a user's own has to meet, "module:Class".

    Raises:
      ConfigError: a line for everything that is wrong.
    """
    errors: list[str] = []
    built = convert_choice(Choices(table, contract), value, path, errors)
    if errors:
        raise ConfigError(*errors)
    return built


def problems(value: Any) -> list[str]:
    """A line for everything that is wrong with an instance that was built in Python: "width=0: expected ..."."""
    errors: list[str] = []
    resolve(type(value), value, "", errors)
    return errors


def convert(kind: Any, value: Any, path: str, errors: list[str], choices: Choices | None = None) -> Any:
    """`value` as the type `kind`; where that cannot be, a line in `errors` and None."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    before = len(errors)
    if origin is Annotated:
        # The constraints of a field say more than those of all whole numbers, so they are checked first.
        whole = args[0] is int and type(value) is int
        converted = value if whole else convert(args[0], value, path, errors, choices)
        if len(errors) == before and converted is not None:
            failed = (c for c in args[1:] if isinstance(c, Constraint) and not c.holds(converted))
            errors += [f"{path}={shown(converted)}: expected {c.expected}" for c in islice(failed, 1)]
        return convert(int, value, path, errors) if whole and len(errors) == before else converted
    if origin in (Union, types.UnionType):
        return convert_union(args, value, path, errors, choices)
    if origin is tuple and isinstance(value, (list, tuple)) and (args[-1] is ... or len(args) == len(value)):
        kinds = [args[0]] * len(value) if args[-1] is ... else args
        entries = enumerate(zip(kinds, value))
        return tuple(convert(k, v, f"{path}[{i}]", errors, choices) for i, (k, v) in entries)
    if choices is not None and origin is not tuple:
        return convert_choice(choices, value, path, errors)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(k): convert(args[1], v, f"{path}.{k}", errors) for k, v in value.items()}
    if is_section(kind) and isinstance(value, (kind, Mapping)):
        return resolve(kind, value, path, errors)
    try:
        return leaf(kind, value)
    except (ValueError, OverflowError) as error:
        errors.append(f"{path}: {error}")
    return None


def leaf(kind: Any, value: Any) -> Any:
    """A value without parts as the type `kind`; raises ValueError for one that cannot be."""
    options = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    if kind is Any or any(value == option and type(value) is type(option) for option in options):
        return value
    if options:
        listed = f"there are: {', '.join(map(repr, options))}"
        remedy = did_you_mean(value, options) if isinstance(value, str) else listed
        raise ValueError(f"{quoted(value)} is not a choice; {remedy}")
    if kind is Duration and not isinstance(value, Duration):
        return Duration.parse(str(value))
    if kind is int and type(value) is int and abs(value) >= LARGEST:
        raise ValueError(f"{quoted(value)} is too large; expected less than 2**32")
    if kind is float and type(value) is int:
        return float(value)
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if isinstance(value, (str, Path)) and "\0" in str(value):
        raise ValueError(f"{value!r} holds a zero byte; leave it out")
    if isinstance(value, Path) and not no_address(value):
        raise ValueError(f"{address(value)} is an address, and no path; mount the bucket (docs/launching.md)")
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool) == isinstance(value, bool):
        return value
    raise ValueError(mismatch(kind, value))


def convert_union(args: tuple, value: Any, path: str, errors: list[str], choices: Choices | None) -> Any:
    """The first member of the union that fits; the messages of the likeliest one if none does."""
    if value is None and type(None) in args:
        return None
    attempts = []
    for member in args:
        if member is not type(None):
            trial: list[str] = []
            converted = convert(member, value, path, trial, choices)
            if not trial:
                return converted
            attempts.append(trial)
    inside = [trial for trial in attempts if not trial[0].startswith(f"{path}:")]
    for trial in inside or attempts:
        if len(attempts) == 1 or not trial[0].startswith(f"{path}: expected"):
            errors.extend(trial)
            return None
    errors.append(f"{path}: {mismatch(Union[args], value)}")  # noqa: UP007
    return None


def convert_choice(choices: Choices, value: Any, path: str, errors: list[str]) -> Any:
    """An instance of the class that `value["name"]` chooses; one that was built in Python stays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return resolve(type(value), value, path, errors)
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        names = ", ".join(sorted(choices.table))
        errors.append(f"{path}: expected dict(name=..., ...), was given {quoted(value)}; names: {names}")
        return None
    name = value["name"]
    try:
        cls = load(choices.table[name]) if name in choices.table else own_class(name, choices)
    except LookupError as error:
        errors.append(f"{path}.name: {error.args[0]}")
        for meant in nearest(name, choices.table):  # what else is wrong is said at once, too
            convert_choice(choices, {**value, "name": meant}, path, errors)
        return None
    before = len(errors)
    built = resolve(cls, {k: v for k, v in value.items() if k != "name"}, path, errors)
    if path.endswith("]"):  # people do not count the entries of a list from 0
        kind = f", of the {choices.about} {getattr(cls, choices.about)}" if choices.about else ""
        errors[before:] = [f"{line} (in {name!r}{kind})" for line in errors[before:]]
    return built


def own_class(name: str, choices: Choices) -> type:
    """The class of the user's own that "package.module:Class" names.

    Raises:
      LookupError: it cannot be imported, or does not meet the contract; its message is for the user.
    """
    if ":" not in name:
        raise LookupError(f"there is no {name!r}; {did_you_mean(name, choices.table)}")
    try:
        cls = load(name)
    except (Exception, SystemExit) as error:  # whatever the user's file does
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        expected = "expected package.module:Class, on PYTHONPATH"
        raise LookupError(f"{name!r} cannot be imported ({why}); {expected}") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise LookupError(f"{name!r} is no dataclass; its fields are what a config sets")
    contract = load(choices.contract or object)
    if missing := [member for member in members(contract) if not has_member(cls, member)]:
        where = f"{contract.__module__.replace('.', '/')}.py describes the contract"
        if len(missing) > FEW and contract not in cls.__mro__:
            base = f"{contract.__module__}.{contract.__qualname__}"
            missing = [*missing[:FEW], f"and {len(missing) - FEW} more"]
            where = f"derive it from {base} first, which has most of them; {where}"
        raise LookupError(f"{name!r} lacks {', '.join(missing)}; {where}")
    return cls


def members(contract: type) -> list[str]:
    """The public members that a contract declares, without those of linen's modules."""
    own = [c for c in contract.__mro__ if c.__module__.split(".")[0] not in ("builtins", "typing", "flax")]
    names = dict.fromkeys(name for c in own for name in (*vars(c).get("__annotations__", ()), *vars(c)))
    return [name for name in names if not name.startswith("_") and name not in SET_BY_THE_PROGRAM]


def has_member(cls: type, name: str) -> bool:
    """Whether a class has an attribute, a method (not an abstract one) or a field of this name."""
    abstract = name in getattr(cls, "__abstractmethods__", ())
    return (hasattr(cls, name) and not abstract) or name in {field.name for field in dataclasses.fields(cls)}


def mismatch(kind: Any, value: Any) -> str:
    """That `value` is not a `kind`."""
    return f"expected {type_name(kind)}, was given {quoted(value)} ({type(value).__name__})"


def type_name(kind: Any) -> str:
    """A type as a person would write it: "float or None"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return type_name(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in args)
    if origin is tuple:
        return f"a list of {type_name(args[0])}" if args[-1] is Ellipsis else f"{len(args)} values"
    if origin is Mapping or is_section(kind):
        return "dict(...)"
    if origin is Literal:
        return " or ".join(repr(a) for a in args)
    named = {Any: "dict(name=...)", type(None): "None", Path: "a path"}
    named[Duration] = 'a duration like "5 epochs"'
    return named[kind] if kind in named else getattr(kind, "__name__", str(kind))


def quoted(value: Any) -> str:
    """A value as Python writes it, if Python can."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"a number of {value.bit_length():,} bits" if isinstance(value, int) else "nested too deeply"


def shown(value: Any) -> str:
    """A value as a message shows it."""
    if isinstance(value, (str, Duration)):
        return f'"{value}"'
    return quoted(list(value) if isinstance(value, tuple) else value)


def is_section(kind: Any) -> bool:
    """Whether a type is a class of fields."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not Duration


def to_dict(value: Any) -> Any:
    """The resolved config as plain JSON values, with every default written out."""
    if isinstance(value, Duration):
        return str(value)
    if is_section(type(value)):
        fields = config_fields(type(value)).items()
        return {key: named(getattr(value, key), field.metadata.get("choices")) for key, field in fields}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, Mapping):
        return {k: to_dict(v) for k, v in value.items()}
    return value


def named(value: Any, choices: Choices | None) -> Any:
    """A chosen instance, or a tuple of them, as dict(name=..., ...); what is not chosen among classes as `to_dict`."""
    if choices is None or value is None:
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [named(item, choices) for item in value]
    own = f"{type(value).__module__}:{type(value).__qualname__}"
    name = next((name for name, target in choices.table.items() if target in (own, type(value))), own)
    return {"name": name, **to_dict(value)}
