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
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union

from jaxformer.config.durations import Duration
from jaxformer.config.fields import Constraint
from jaxformer.errors import ConfigError

Table: TypeAlias = Mapping[str, type | str]

# Fields of linen modules that the program sets (precision, parallelism), not the config.
SET_BY_THE_PROGRAM = frozenset({"parent", "name", "dtype", "param_dtype", "axis_name"})


@dataclasses.dataclass(frozen=True)
class Choices:
    """The classes that a field chooses among."""

    table: Table
    """Name -> class, or "package.module:Class"."""
    contract: type | str | None = None
    """What a class of the user's own has to look like: all its public members."""


def choice(table: Table, contract: type | str | None = None, **kwargs: Any) -> Any:
    """A dataclass field whose value is one of `table`'s classes; annotated as a tuple, a tuple of them.

    Args:
      table: name -> class, or "package.module:Class".
      contract: the class (or its "package.module:Class") whose public members a user's own class needs.
      **kwargs: those of `dataclasses.field`.
    """
    return dataclasses.field(metadata={"choices": Choices(table, contract)}, **kwargs)


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


def did_you_mean(word: str, known: Iterable[Any]) -> str:
    """A remedy for an unknown word: the nearest known one, or all of them."""
    known = sorted(map(str, known))
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"


def resolve(cls: type, value: Mapping, path: str, errors: list[str]) -> Any:
    """Builds a `cls` from a mapping.

    Args:
      cls: a dataclass (a linen module is one). Its method `problems()`, if it has one, yields a line for
        every impossible combination of its fields, each beginning with the field's name.
      value: what the config says; nested mappings for nested dataclasses.
      path: where in the config this is, for messages ("model").
      errors: takes a line for everything that is wrong.

    Returns:
      The instance, or None if anything in it was wrong (then `errors` has grown).
    """
    before = len(errors)
    dot = f"{path}." if path else ""
    fields = config_fields(cls)
    for key in value:
        if key not in fields:
            remedy = did_you_mean(key, fields)
            errors.append(f"{dot}{key}: {cls.__name__} has no field {key!r}; {remedy}")
    arguments = {}
    for key, field in fields.items():
        if key in value:
            choices = field.metadata.get("choices")
            arguments[key] = convert(field.type, value[key], f"{dot}{key}", errors, choices)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            errors.append(f"{dot}{key}: missing; {cls.__name__} needs it ({type_name(field.type)})")
    if len(errors) > before:
        return None
    built = cls(**arguments)
    errors.extend(f"{dot}{line}" for line in combinations(built))
    return built if len(errors) == before else None


def build(table: Table, value: Any, path: str) -> Any:
    """An instance of the class of `table` that `value` chooses: a name, or dict(name=..., field=...).

    Args:
      table: name -> class.
      value: what to build.
      path: what messages call it.

    Raises:
      ConfigError: a line for everything that is wrong.
    """
    errors: list[str] = []
    built = convert_choice(Choices(table), value, path, errors)
    if errors:
        raise ConfigError(*errors)
    return built


def combinations(value: Any) -> Iterable[str]:
    """What a class's own `problems()` finds in a combination of its fields; nothing if it has no such method."""
    return value.problems() if hasattr(type(value), "problems") else ()


def problems(value: Any) -> Iterator[str]:
    """Yields a line for everything that is wrong with an instance that was built in Python: "width=0: expected ..."."""
    for name, field in config_fields(type(value)).items():
        yield from violations(field.type, getattr(value, name), name)
    yield from combinations(value)


def violations(kind: Any, value: Any, path: str) -> Iterator[str]:
    """Yields a line for every constraint of the type `kind` that `value` does not meet."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return
    if origin is Annotated:
        before = None
        for before in violations(args[0], value, path):
            yield before
        failed = (c for c in args[1:] if isinstance(c, Constraint) and not c.holds(value))
        if before is None and (constraint := next(failed, None)):
            yield f"{path}={shown(value)}: expected {constraint.expected}"
    elif origin in (Union, types.UnionType):
        lines = [list(violations(k, value, path)) for k in args if could_be(k, value)]
        yield from min(lines, key=len, default=[])
    elif origin is tuple and isinstance(value, tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        for i, (k, v) in enumerate(zip(kinds, value)):
            yield from violations(k, v, f"{path}[{i}]")


def could_be(kind: Any, value: Any) -> bool:
    """Whether `value` could be of the type `kind`, going by its outermost type alone."""
    if typing.get_origin(kind) is Annotated:
        return could_be(typing.get_args(kind)[0], value)
    outer = typing.get_origin(kind) or kind
    if outer is Any or not isinstance(outer, type):
        return True
    return isinstance(value, outer) or (outer is float and type(value) is int)


def shown(value: Any) -> str:
    """A value as a message shows it."""
    if isinstance(value, (str, Duration)):
        return f'"{value}"'
    return str(list(value) if isinstance(value, tuple) else value)


def convert(kind: Any, value: Any, path: str, errors: list[str], choices: Choices | None = None) -> Any:
    """`value` as the type `kind`; where that cannot be, a line in `errors` and None."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        before = len(errors)
        converted = convert(args[0], value, path, errors, choices)
        if len(errors) == before:
            errors.extend(violations(kind, converted, path))
        return converted if len(errors) == before else None
    if origin in (Union, types.UnionType):
        return convert_union(args, value, path, errors, choices)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            return mismatch(kind, value, path, errors)
        if args[-1] is Ellipsis:
            items = [args[0]] * len(value)
        elif len(args) != len(value):
            return mismatch(kind, value, path, errors)
        else:
            items = list(args)
        return tuple(
            convert(k, v, f"{path}[{i}]", errors, choices) for i, (k, v) in enumerate(zip(items, value))
        )
    if choices is not None:
        return convert_choice(choices, value, path, errors)
    if origin in (dict, Mapping) or (
        origin is not None and isinstance(origin, type) and issubclass(origin, Mapping)
    ):
        if not isinstance(value, Mapping):
            return mismatch(kind, value, path, errors)
        return {str(k): convert(args[1], v, f"{path}.{k}", errors) for k, v in value.items()}
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in args):
            return value
        remedy = (
            did_you_mean(value, args)
            if isinstance(value, str)
            else f"there are: {', '.join(map(repr, args))}"
        )
        errors.append(f"{path}: {value!r} is not a choice; {remedy}")
        return None
    if kind is Duration:
        return convert_duration(value, path, errors)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            return mismatch(kind, value, path, errors)
        return resolve(kind, value, path, errors)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        errors.append(f"{path}: {value} is not a finite number")
        return None
    if kind is Any or (
        isinstance(kind, type) and isinstance(value, kind) and (kind is bool) == isinstance(value, bool)
    ):
        return value
    return mismatch(kind, value, path, errors)


def convert_union(args: tuple, value: Any, path: str, errors: list[str], choices: Choices | None) -> Any:
    """The first member of the union that fits; the messages of the likeliest one if none does."""
    if value is None and type(None) in args:
        return None
    attempts = []
    for member in args:
        if member is type(None):
            continue
        trial: list[str] = []
        result = convert(member, value, path, trial, choices)
        if not trial:
            return result
        attempts.append(trial)
    inside = [trial for trial in attempts if not trial[0].startswith(f"{path}:")]
    likely = inside + [
        trial for trial in attempts if len(attempts) == 1 or not trial[0].startswith(f"{path}: expected")
    ]
    if likely:
        errors.extend(likely[0])
        return None
    return mismatch(Union[args], value, path, errors)  # noqa: UP007


def convert_choice(choices: Choices, value: Any, path: str, errors: list[str]) -> Any:
    """An instance of the class that `value["name"]` chooses."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        names = ", ".join(sorted(choices.table))
        errors.append(f"{path}: expected dict(name=..., ...), was given {value!r}; names: {names}")
        return None
    name = value["name"]
    try:
        cls = load(choices.table[name]) if name in choices.table else own_class(name, choices)
    except LookupError as error:
        errors.append(f"{path}.name: {error.args[0]}")
        return None
    return resolve(cls, {k: v for k, v in value.items() if k != "name"}, path, errors)


def own_class(name: str, choices: Choices) -> type:
    """The class of the user's own that "package.module:Class" names.

    Raises:
      LookupError: it cannot be imported, or does not meet the contract; its message is for the user.
    """
    if ":" not in name:
        raise LookupError(f"there is no {name!r}; {did_you_mean(name, choices.table)}")
    try:
        cls = load(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LookupError(f"{name!r} cannot be imported ({error}); expected package.module:Class") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise LookupError(f"{name!r} is no dataclass; its fields are what a config sets")
    contract = None if choices.contract is None else load(choices.contract)
    missing = [] if contract is None else [m for m in members(contract) if not has_member(cls, m)]
    if missing:
        assert contract is not None
        where = contract.__module__.replace(".", "/")
        raise LookupError(f"{name!r} lacks {', '.join(missing)}; {where}.py describes the contract")
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


def convert_duration(value: Any, path: str, errors: list[str]) -> Duration | None:
    """A Duration from text; a bare number has no unit and is refused."""
    if isinstance(value, Duration):
        return value
    try:
        return Duration.parse(value if isinstance(value, str) else str(value))
    except ValueError as error:
        errors.append(f"{path}: {error}")
        return None


def mismatch(kind: Any, value: Any, path: str, errors: list[str]) -> None:
    """Notes that `value` is not a `kind`."""
    errors.append(f"{path}: expected {type_name(kind)}, was given {value!r} ({type(value).__name__})")


def type_name(kind: Any) -> str:
    """A type as a person would write it: "float or None"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return type_name(args[0])
    if kind is Duration:
        return 'a duration like "5 epochs"'
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in args)
    if origin is tuple:
        return f"a list of {type_name(args[0])}" if args[-1] is Ellipsis else f"{len(args)} values"
    if kind is Any:
        return "dict(name=...)"
    if origin is Mapping or dataclasses.is_dataclass(kind):
        return "dict(...)"
    if origin is Literal:
        return " or ".join(repr(a) for a in args)
    if kind is type(None):
        return "None"
    return getattr(kind, "__name__", str(kind))


def to_dict(value: Any) -> Any:
    """The resolved config as plain JSON values, with every default written out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Duration):
            return str(value)
        result = {}
        for key, field in config_fields(type(value)).items():
            item = getattr(value, key)
            choices = field.metadata.get("choices")
            result[key] = to_dict(item) if choices is None else named(item, choices)
        return result
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, Mapping):
        return {k: to_dict(v) for k, v in value.items()}
    return value


def named(value: Any, choices: Choices) -> Any:
    """A chosen instance (or a tuple of them) as dict(name=..., ...)."""
    if isinstance(value, (list, tuple)):
        return [named(item, choices) for item in value]
    if value is None:
        return None
    cls = type(value)
    own = f"{cls.__module__}:{cls.__qualname__}"
    name = next((n for n, target in choices.table.items() if load_if_same(target, cls)), own)
    return {"name": name, **to_dict(value)}


def load_if_same(target: type | str, cls: type) -> bool:
    """Whether a table's entry is `cls`, without importing entries that are not."""
    if isinstance(target, str):
        return target == f"{cls.__module__}:{cls.__qualname__}"
    return target is cls
