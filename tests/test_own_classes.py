"""Classes of a user's own, named "package.module:Class": found, and held against their contract."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import pytest

from jaxformer.config import schema


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0


class OwnShape(Protocol):
    """A contract."""

    sides: int

    def area(self): ...


@dataclass(frozen=True)
class Square:
    side: float = 1.0
    sides: ClassVar[int] = 4

    def area(self):
        return self.side**2


@dataclass(frozen=True)
class NoArea:
    sides: int = 0


@dataclass(frozen=True)
class Alone:
    """Derives from no contract."""


def test_a_class_of_the_users_own_is_named_by_its_module():
    choices, errors = schema.Choices({"circle": Circle}, OwnShape), []
    name = f"{__name__}:Square"
    square = schema.convert_choice(choices, {"name": name, "side": 2}, "x", errors)
    assert errors == []
    assert square == Square(2.0)
    assert schema.named(square, choices) == {"name": name, "side": 2.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cirle", "x.name: there is no 'cirle'; did you mean 'circle'?"),
        ("no_such:Thing", "x.name: 'no_such:Thing' cannot be imported"),
        (f"{__name__}:Nothing", "cannot be imported"),
        (f"{__name__}:schema", "is no dataclass"),
        (
            f"{__name__}:NoArea",
            f"x.name: '{__name__}:NoArea' lacks area; {__name__}.py describes the contract",
        ),
    ],
)
def test_a_class_that_does_not_meet_the_contract_is_refused(name, expected):
    errors = []
    assert schema.convert_choice(schema.Choices({"circle": Circle}, OwnShape), name, "x", errors) is None
    assert len(errors) == 1
    assert expected in errors[0]


def test_a_class_that_has_little_of_a_contract_is_told_to_derive_from_it():
    choices, errors = schema.Choices({}, "jaxformer.data.transform:Transform"), []
    schema.convert_choice(choices, f"{__name__}:Alone", "x", errors)
    assert errors == [
        f"x.name: '{__name__}:Alone' lacks modality, random, draws, and 3 more; derive it from "
        "jaxformer.data.transform.Transform first, which has most of them; "
        "jaxformer/data/transform.py describes the contract"
    ]
