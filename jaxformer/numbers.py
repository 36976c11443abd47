"""The numbers of a config that are inputs of the train step, and no constants of its program.

A program that was compiled once is found again by its text, so that a learning rate that stands in it is compiled for
every learning rate. Numbers that change neither shapes nor which operations there are come in with the state and the
batch instead: one program trains with all of them, whichever config it was compiled for.

Which numbers these are stands where the field is (`Input[...]`, see `config/fields.py`). None, and in most fields 0,
leave an operation out and stay constants: another program. So do the numbers of a class of the user's own that it
does not mark in its own body, since it may ask Python about what it inherits.
"""

import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import StepInput, left_out

Numbers = dict[str, Any]  # path in the config -> float, uint32 (the seed) or `Kept`
OURS = __name__.partition(".")[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Kept:
    """A share that is kept each step, and its rest, each rounded to float32 once.

    1 - 0.999 in float32 is 0.00100005: the second moment of Adam would be 5e-5 larger than with a constant, whose
    difference Python takes. Stands for the share in sums, products and powers; `1 - share` is the rest.
    """

    share: Any
    rest: Any

    def __jax_array__(self) -> Array:
        return self.share

    def __rsub__(self, one: float) -> Any:
        return self.rest if one == 1 else one - self.share

    def __mul__(self, other: Any) -> Any:
        return self.share * other

    def __rmul__(self, other: Any) -> Any:
        return other * self.share

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.share

    def __pow__(self, other: Any) -> Any:
        return self.share**other


def numbers_of(part: Any) -> Numbers:
    """Those of a config, or of a part of one, by their paths in it, as numbers of the host."""
    return {
        path: as_input(value, how) for path, value, how in marked(part, "") if how.zero or not left_out(value)
    }


def as_input(value: float, how: StepInput) -> Any:
    """A number as it comes in: a float takes the dtype of what it meets, as a constant does."""
    if how.whole:
        return np.uint32(value)
    return Kept(float(value), float(1 - value)) if how.kept else float(value)


def marked(part: Any, path: str) -> Iterator[tuple[str, Any, StepInput]]:
    """Every number of a part whose field marks it: where it is, its value, and how it is an input."""
    for field in part_fields(part):
        value, name = getattr(part, field.name), f"{path}{field.name}"
        how = mark(field.type) if declares(type(part), field.name) else None
        if how is not None:
            yield name, value, how
        elif is_part(value):
            yield from marked(value, f"{name}.")


def with_numbers(part: Any, numbers: Mapping[str, Any], path: str = "") -> Any:
    """A config, or a part of one, with other numbers at some paths: arrays, or what JAX traces.

    What is built of it must not ask Python about them, but for `left_out`.
    """
    changed = {}
    for field in part_fields(part):
        value, name = getattr(part, field.name), f"{path}{field.name}"
        if name in numbers:
            changed[field.name] = numbers[name]
        elif is_part(value) and any(given.startswith(f"{name}.") for given in numbers):
            changed[field.name] = with_numbers(value, numbers, f"{name}.")
    return part.clone(**changed) if isinstance(part, nn.Module) else replace(part, **changed)


def is_part(value: Any) -> bool:
    """Whether a field's value has fields of its own."""
    return is_dataclass(value) and not isinstance(value, type)


def part_fields(part: Any) -> list[Any]:
    """The fields of a part that a config may set."""
    return [field for field in fields(part) if field.init and field.name not in ("parent", "name")]


def mark(kind: Any) -> StepInput | None:
    """How a field of this type is an input; None: it is a constant."""
    found = (each if isinstance(each, StepInput) else mark(each) for each in typing.get_args(kind))
    return next((how for how in found if how is not None), None)


def declares(cls: type, name: str) -> bool:
    """Whether a mark of a field counts: in the classes of this package, and in the very class of a user that has it."""
    return cls.__module__.partition(".")[0] == OURS or name in inspect.get_annotations(cls)


def filled(part: Any, known: Mapping[str, int]) -> Any:
    """A dataclass in which fields that are None have their value of `known`, if there is one; a model's parts, too."""
    empty = {field.name for field in fields(part) if getattr(part, field.name) is None}
    missing: dict[str, Any] = {name: value for name, value in known.items() if name in empty}
    if isinstance(part, nn.Module):
        missing |= {name: filled(getattr(part, name), known) for name in part.parts}
    if not missing:
        return part
    return part.clone(**missing) if isinstance(part, nn.Module) else replace(part, **missing)
