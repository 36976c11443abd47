"""What every field of a config means, read from where it stands: its type, its constraints and the string under it."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

from jaxformer.config import schema
from jaxformer.config.fields import Constraint
from jaxformer.errors import UserError


@dataclasses.dataclass(frozen=True)
class FieldReference:
    """A field of a config."""

    name: str
    type: str
    """In words, with its constraints: "int, 1 or more"."""
    default: str
    """The default as a config would write it; "" where the field has to be given."""
    doc: str
    """What it means."""


def reference(cls: type) -> list[FieldReference]:
    """The fields of `cls` that a config may set, in the order of the class."""
    docs = field_docs(cls)
    fields = schema.config_fields(cls).items()
    return [FieldReference(name, described(f.type), default(f), docs.get(name, "")) for name, f in fields]


def described(kind: Any) -> str:
    """A type and its constraints in words."""
    constraints = ", ".join(dict.fromkeys(c.expected for c in constraints_of(kind)))
    return schema.type_name(kind) + (f", {constraints}" if constraints else "")


def constraints_of(kind: Any) -> Iterator[Constraint]:
    """Yields the constraints inside a type."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Annotated:
        yield from (a for a in arguments[1:] if isinstance(a, Constraint))
        arguments = arguments[:1]
    for argument in arguments:
        yield from constraints_of(argument)


def default(field: dataclasses.Field) -> str:
    """A field's default as a config would write it."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return ""
    return repr(schema.named(value, field.metadata.get("choices")))


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a class and its bases, as one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= own_docs(base)
    return found


def own_docs(cls: type) -> dict[str, str]:
    """The strings under the fields that stand in the source of `cls` itself."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}  # built in, or without a source
    found = {}
    for pair in pairwise(tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else ()):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def at(root: type, path: str) -> tuple[str, type | dict[str, type]]:
    """What stands at a path like "train", "model.vit" or "data.examples.images".

    Args:
      root: the class of a whole config.
      path: names of fields; behind one that chooses among classes, the name of one of them.

    Returns:
      The path, and the class there; or, where a field chooses and the path does not, its classes by name.

    Raises:
      UserError: there is nothing at this path.
    """
    here: type | dict[str, type] = root
    walked = ""
    parts = path.split(".") if path else []
    for place, part in enumerate(parts):
        if ":" in path and isinstance(here, dict) and part not in here:
            try:
                return path, schema.own_class(".".join(parts[place:]), schema.Choices({}))
            except LookupError as error:
                raise UserError(f"{path}: {error.args[0]}") from error
        known = here if isinstance(here, dict) else inner(here)
        if part not in known:
            inside = walked or "a config"
            if isinstance(here, type) and part in schema.config_fields(here):
                raise UserError(f"{path}: is a field of {inside}, which shows it; ask for {walked!r}")
            raise UserError(f"{path}: there is no {part!r} in {inside}; {schema.did_you_mean(part, known)}")
        here, walked = known[part], f"{walked}.{part}".lstrip(".")
    return walked, here


def inner(cls: type) -> dict[str, Any]:
    """The fields of a class that hold classes: name -> the class, or the classes to choose among."""
    found: dict[str, Any] = {}
    for name, field in schema.config_fields(cls).items():
        if choices := field.metadata.get("choices"):
            found[name] = {key: schema.load(target) for key, target in choices.table.items()}
        elif classes := [k for k in (field.type, *typing.get_args(field.type)) if schema.is_section(k)]:
            found[name] = classes[0]
    return found
