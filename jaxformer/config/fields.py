"""Constraints that stand with a field: `width: Annotated[int, at_least(1)] = 256`, or `width: PositiveInt = 256`.

`schema.py` checks them and `reference.py` prints them. A number that can change without compiling again says so in the
same place: `dropout: Input[Rate] = 0.0`. A constraint of a tuple's entries stands inside:
`mean: tuple[Fraction, ...]`. None is never checked: where it is allowed, the type says so (`PositiveInt | None`).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, TypeAlias, TypeVar

from jaxformer.config.durations import Duration

T = TypeVar("T")


@dataclass(frozen=True)
class StepInput:
    """Marks a number that is an input of the compiled train step, and no constant of it; see `numbers.py`."""

    zero: bool = False
    """Whether 0 is one, too. Else it stays a constant, for it may leave an operation out."""
    kept: bool = False
    """Whether it is a share that is kept each step, whose rest, 1 - share, is asked for, too."""
    whole: bool = False
    """Whether it is a whole number, 0 to 2**32 - 1."""


@dataclass(frozen=True)
class Constraint:
    """A condition on a field's value."""

    expected: str
    """The condition in words, as they follow "expected": "1 or more"."""
    holds: Callable[[Any], bool]
    """Whether a value of the field's type meets it."""


def at_least(low: float, expected: str | None = None) -> Constraint:
    """low <= value; `expected` replaces the words of the message."""
    return Constraint(expected or f"{low} or more", lambda value: value >= low)


def at_most(high: int, low: int = 1) -> Constraint:
    """low <= value <= high: a number that would hang or kill if it were larger."""
    return between(low, high, f"{low} or more, and at most {high}")


def above(low: float, expected: str | None = None) -> Constraint:
    """low < value."""
    return Constraint(expected or f"a number above {low}", lambda value: value > low)


def between(low: float, high: float, expected: str | None = None) -> Constraint:
    """low <= value <= high."""
    return Constraint(expected or f"{low} to {high}", lambda value: low <= value <= high)


def strictly_between(low: float, high: float, expected: str | None = None) -> Constraint:
    """low < value < high."""
    inside = f"a number between {low} and {high}, neither of them"
    return Constraint(expected or inside, lambda value: low < value < high)


def length(*allowed: int, expected: str | None = None) -> Constraint:
    """The number of entries is one of `allowed`."""
    numbers = " or ".join(map(str, allowed))
    return Constraint(expected or f"{numbers} entries", lambda value: len(value) in allowed)


def not_empty(expected: str | None = None) -> Constraint:
    """At least one entry or character."""
    return Constraint(expected or "at least one entry", lambda value: len(value) > 0)


def no_address(value: object) -> bool:
    """Whether a value does not look like gs://bucket, which a path has as gs:/bucket."""
    return not ADDRESS.match(str(value))


def address(path: object) -> str:
    """An address that a path has as gs:/bucket, as it was given: gs://bucket."""
    return re.sub("^([^/]+:)/+(?=[^/])", r"\1//", str(path))


def largest_divisor(number: int, most: int) -> int:
    """The largest number up to `most`, 1 or more, that divides `number`."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return max(n for n in (*small, *(number // n for n in small)) if n <= most)


def left_out(number: Any) -> bool:
    """Whether a number leaves out what it belongs to: None or the constant 0, and no input of the train step."""
    return isinstance(number, (int, float, NoneType)) and not number


ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
FOLDER = Constraint(
    "the name of a folder, not an address; mount a bucket to read folders in it (docs/launching.md)",
    lambda value: len(value) > 0 and no_address(value),
)
MOST_NEW_TOKENS = 2**20  # more would take hours
Input: TypeAlias = Annotated[T, StepInput()]
InputOrZero: TypeAlias = Annotated[T, StepInput(zero=True)]
PositiveInt: TypeAlias = Annotated[int, at_least(1)]
NonNegativeInt: TypeAlias = Annotated[int, at_least(0)]
Layers: TypeAlias = Annotated[int, at_most(1000)]
Pixels: TypeAlias = Annotated[int, at_most(2**15)]
Tokens: TypeAlias = Annotated[int, at_most(2**24)]
NewTokens: TypeAlias = Annotated[int, at_most(MOST_NEW_TOKENS)]
Beams: TypeAlias = Annotated[int, at_most(1024)]
PositiveFloat: TypeAlias = Annotated[float, above(0)]
NonNegativeFloat: TypeAlias = Annotated[float, at_least(0)]
Fraction: TypeAlias = Annotated[float, between(0, 1)]
Share: TypeAlias = Annotated[float, Constraint("more than 0, and at most 1", lambda value: 0 < value <= 1)]
Rate: TypeAlias = Annotated[float, Constraint("0 or more, and less than 1", lambda value: 0 <= value < 1)]
KEPT, SEED = StepInput(kept=True), StepInput(zero=True, whole=True)
KeptShare: TypeAlias = Annotated[Rate, KEPT]
PositiveDuration: TypeAlias = Annotated[
    Duration, Constraint('more than nothing, as in "1 epoch"', lambda value: value.amount > 0)
]
