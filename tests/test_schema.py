"""Mappings to frozen dataclasses: everything that is wrong in one go, and back again."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from jaxformer.config import files as configfile
from jaxformer.config import schema
from jaxformer.config.durations import Duration
from jaxformer.config.fields import Fraction, PositiveDuration, PositiveInt
from jaxformer.config.reference import FieldReference, reference
from jaxformer.verbs.options import override_values


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0


@dataclass(frozen=True)
class Rectangle:
    width: int
    height: int = 2

    def problems(self) -> Iterator[str]:
        if self.width < self.height:
            yield f"width={self.width}: less than height={self.height}; turn it"


SHAPES = {"circle": Circle, "rectangle": f"{__name__}:Rectangle"}


@dataclass(frozen=True)
class Inner:
    count: int = 1
    ratio: float | None = None


@dataclass(frozen=True)
class Outer:
    name_of_it: str
    flag: bool = False
    size: int | tuple[int, int] = 1
    rates: tuple[float, ...] = ()
    mode: Literal["fast", "slow", 3] = "fast"
    either: Literal["auto"] | Inner = "auto"
    length: Duration | None = None
    inner: Inner = Inner()
    weights: Mapping[str, float] = field(default_factory=dict)
    pairs: tuple[tuple[str, float], ...] = ()
    shape: Any = schema.choice(SHAPES, default_factory=Circle)  # noqa: RUF009
    shapes: tuple[Any, ...] = schema.choice(SHAPES, default_factory=tuple)


def resolve(**value):
    errors = []
    return schema.resolve(Outer, {"name_of_it": "x", **value}, "outer", errors), errors


def test_values_as_they_are_written():
    outer, errors = resolve(
        flag=True,
        size=[3, 4],
        rates=[1, 0.5],
        mode="slow",
        either={"count": 2},
        length="5 epochs",
        inner={"ratio": 1},
        weights={"a": 1},
        pairs=[("head", 2)],
        shape={"name": "rectangle", "width": 3},
        shapes=["circle", {"name": "circle", "radius": 2.0}],
    )
    assert errors == []
    assert outer == Outer(
        "x",
        flag=True,
        size=(3, 4),
        rates=(1.0, 0.5),
        mode="slow",
        either=Inner(2),
        length=Duration.parse("5 epochs"),
        inner=Inner(ratio=1.0),
        weights={"a": 1.0},
        pairs=(("head", 2.0),),
        shape=Rectangle(3),
        shapes=(Circle(), Circle(2.0)),
    )
    assert isinstance(outer.inner.ratio, float)
    assert isinstance(outer.weights["a"], float)


WRONG = [
    ({"flga": True}, "outer.flga: Outer has no field 'flga'; did you mean 'flag'?"),
    (
        {"zzz": 1},
        "outer.zzz: Outer has no field 'zzz'; there are: either, flag, inner, length, mode, name_of_it, ",
    ),
    ({"flag": 1}, "outer.flag: expected bool, was given 1 (int)"),
    ({"size": True}, "outer.size: expected int or 2 values, was given True (bool)"),
    ({"size": 1.5}, "outer.size: expected int or 2 values, was given 1.5 (float)"),
    ({"size": [1, 2, 3]}, "outer.size: expected int or 2 values, was given [1, 2, 3] (list)"),
    ({"size": [1, "b"]}, "outer.size[1]: expected int, was given 'b' (str)"),
    ({"rates": 0.5}, "outer.rates: expected a list of float, was given 0.5 (float)"),
    ({"rates": "abc"}, "outer.rates: expected a list of float, was given 'abc' (str)"),
    ({"rates": [1.0, None]}, "outer.rates[1]: expected float, was given None (NoneType)"),
    ({"mode": "fsat"}, "outer.mode: 'fsat' is not a choice; did you mean 'fast'?"),
    ({"mode": 4}, "outer.mode: 4 is not a choice; there are: 'fast', 'slow', 3"),
    ({"mode": 3.0}, "outer.mode: 3.0 is not a choice; there are: 'fast', 'slow', 3"),
    ({"either": "atuo"}, "outer.either: 'atuo' is not a choice; did you mean 'auto'?"),
    ({"either": {"cuont": 1}}, "outer.either.cuont: Inner has no field 'cuont'; did you mean 'count'?"),
    ({"length": "5 weeks"}, "outer.length: '5 weeks' is not a duration: write a number and a unit"),
    ({"length": 5}, "outer.length: '5' is not a duration: write a number and a unit"),
    ({"inner": 3}, "outer.inner: expected dict(...), was given 3 (int)"),
    ({"inner": {"count": "many"}}, "outer.inner.count: expected int, was given 'many' (str)"),
    ({"inner": {"ratio": "half"}}, "outer.inner.ratio: expected float, was given 'half' (str)"),
    ({"weights": [1]}, "outer.weights: expected dict(...), was given [1] (list)"),
    ({"weights": {"a": "b"}}, "outer.weights.a: expected float, was given 'b' (str)"),
    ({"pairs": [("head",)]}, "outer.pairs[0]: expected 2 values, was given ('head',) (tuple)"),
    ({"pairs": {"head": 1.0}}, "outer.pairs: expected a list of "),
    ({"shape": {"name": "circel"}}, "outer.shape.name: there is no 'circel'; did you mean 'circle'?"),
    (
        {"shape": {"radius": 1.0}},
        "outer.shape: expected dict(name=..., ...), was given {'radius': 1.0}; names: circle, rec",
    ),
    ({"shape": "rectangle"}, "outer.shape.width: missing; Rectangle needs it (int)"),
    ({"shape": {"name": "rectangle", "width": 1}}, "outer.shape.width=1: less than height=2; turn it"),
    (
        {"shapes": ["circle", "sqaure"]},
        "outer.shapes[1].name: there is no 'sqaure'; there are: circle, rectangle",
    ),
    (
        {"shapes": [{"name": "circle", "radius": "x"}]},
        "outer.shapes[0].radius: expected float, was given 'x' (str) (in 'circle')",
    ),
    ({"name_of_it": None}, "outer.name_of_it: expected str, was given None (NoneType)"),
]


@pytest.mark.parametrize(("value", "message"), WRONG)
def test_one_wrong_value_is_one_line(value, message):
    outer, errors = resolve(**value)
    assert outer is None
    assert len(errors) == 1, errors
    assert errors[0].startswith(message)


def test_everything_wrong_at_once():
    wrong = {
        "flga": True,
        "rates": [None, "b"],
        "inner": {"count": "many", "zatio": 1},
        "shape": {"name": "rectangle", "hight": 1},
        "length": "5",
    }
    errors = []
    assert schema.resolve(Outer, wrong, "", errors) is None
    assert {error.split(":")[0] for error in errors} == {
        "flga",
        "name_of_it",
        "rates[0]",
        "rates[1]",
        "inner.count",
        "inner.zatio",
        "shape.hight",
        "shape.width",
        "length",
    }
    assert len(errors) == 9


def test_problems_are_asked_only_of_what_could_be_built():
    _, errors = resolve(shape={"name": "rectangle", "width": 1, "height": "b"})
    assert errors == ["outer.shape.height: expected int, was given 'b' (str)"]


def test_lazy_entries_are_imported_when_they_are_chosen_and_not_before():
    table = {"circle": Circle, "broken": "no_such_module:Thing"}
    errors = []
    assert schema.convert_choice(schema.Choices(table), {"name": "circle"}, "x", errors) == Circle()
    assert schema.named(Circle(), schema.Choices(table)) == {"name": "circle", "radius": 1.0}
    with pytest.raises(ModuleNotFoundError):
        schema.convert_choice(schema.Choices(table), {"name": "broken"}, "x", errors)


class Module(nn.Module):
    width: int = 4
    dtype: Any = jnp.float32


@dataclass(frozen=True)
class Plain:
    dtype: Literal["float32", "bfloat16"] = "float32"


def test_a_linen_modules_dtype_is_set_by_the_program_and_a_dataclasss_by_the_config():
    assert schema.to_dict(Module()) == {"width": 4}
    errors = []
    assert schema.resolve(Module, {"dtype": "float32"}, "model", errors) is None
    assert errors == ["model.dtype: Module has no field 'dtype'; there are: width"]
    assert schema.resolve(Module, {"width": 5}, "model", []) == Module(width=5)
    assert schema.resolve(Plain, {"dtype": "bfloat16"}, "data", []) == Plain("bfloat16")


numbers = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(1 - 2**32, 2**32 - 1)  # numbers of a config are at most so large
words = st.text(st.characters(exclude_characters="\0"))
inners = st.builds(Inner, whole, st.none() | numbers)
shapes = st.builds(Circle, numbers) | st.builds(Rectangle, st.integers(5, 9), st.integers(0, 5))
durations = st.builds(
    lambda n, unit: Duration.parse(f"{n} {unit}"),
    st.decimals(0, 10**6, places=3).map(lambda d: format(d, "f")),
    st.sampled_from(["steps", "epochs", "examples", "%"]),
)
outers = st.builds(
    Outer,
    words,
    flag=st.booleans(),
    size=whole | st.tuples(whole, whole),
    rates=st.lists(numbers).map(tuple),
    mode=st.sampled_from(["fast", "slow", 3]),
    either=st.just("auto") | inners,
    length=st.none() | durations,
    inner=inners,
    weights=st.dictionaries(st.text(), numbers, max_size=3),
    pairs=st.lists(st.tuples(words, numbers), max_size=3).map(tuple),
    shape=shapes,
    shapes=st.lists(shapes, max_size=3).map(tuple),
)


@given(outers)
def test_through_json_and_back(outer):
    errors = []
    written = json.loads(json.dumps(schema.to_dict(outer)))
    assert schema.resolve(Outer, written, "", errors) == outer
    assert errors == []
    assert schema.to_dict(schema.resolve(Outer, written, "", errors)) == written


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Outer.__dataclass_fields__, "typo"]), anything))
def test_whatever_is_given_it_is_a_value_or_messages(value):
    errors = []
    outer = schema.resolve(Outer, value, "c", errors)
    assert (outer is None) == bool(errors)
    assert all(error.startswith("c.") and "\n" not in repr(error) for error in errors)


def test_overrides_reach_into_lists_and_may_say_dict():
    config = {"data": {"transforms": [{"name": "flip"}, {"name": "resize", "size": 8}]}}
    overrides = ["data.transforms[1].size=16", "data.eval_transforms=[dict(name='resize', size=4)]"]
    configfile.apply_overrides(config, override_values([f"--config.{override}" for override in overrides]))
    assert config["data"]["transforms"] == [{"name": "flip"}, {"name": "resize", "size": 16}]
    assert config["data"]["eval_transforms"] == [{"name": "resize", "size": 4}]
    assert configfile.literal("dict(**{})") == "dict(**{})"
    assert configfile.literal("open('x')") == "open('x')"


@dataclass(frozen=True)
class Constrained:
    """Fields with constraints."""

    width: PositiveInt = 8
    """The width."""
    mean: tuple[Fraction, ...] = (0.5,)
    """Of the pixels;
    one a channel."""
    size: PositiveInt | tuple[PositiveInt, ...] | None = None
    """A size, or several."""
    every: PositiveDuration = Duration.parse("1 epoch")
    """How often."""

    def problems(self):
        if self.width % 2:
            yield f"width={self.width}: expected an even number"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"width": 0}, "x.width=0: expected 1 or more"),
        ({"width": 3}, "x.width=3: expected an even number"),
        ({"mean": [0.5, 2]}, "x.mean[1]=2.0: expected 0 to 1"),
        ({"size": 0}, "x.size=0: expected 1 or more"),
        ({"size": [1, 0]}, "x.size[1]=0: expected 1 or more"),
        ({"every": "0 epochs"}, 'x.every="0 epochs": expected more than nothing, as in "1 epoch"'),
        ({"width": "a"}, "x.width: expected int, was given 'a' (str)"),
    ],
)
def test_constraints_are_checked_where_the_field_stands(given, expected):
    errors = []
    assert schema.resolve(Constrained, given, "x", errors) is None
    assert errors == [expected]


def test_constraints_let_good_values_pass():
    errors = []
    given = {"width": 2, "mean": [0, 1], "size": None, "every": "3 steps"}
    built = schema.resolve(Constrained, given, "x", errors)
    assert (errors, built) == ([], Constrained(2, (0.0, 1.0), None, Duration.parse("3 steps")))


def test_an_instance_built_in_python_can_be_checked():
    assert list(schema.problems(Constrained(width=-1, mean=(3.0,), size=(1, -1)))) == [
        "width=-1: expected 1 or more",
        "mean[0]=3.0: expected 0 to 1",
        "size[1]=-1: expected 1 or more",
    ]
    assert list(schema.problems(Constrained(width=3))) == ["width=3: expected an even number"]
    assert list(schema.problems(Constrained(width="8"))) == ["width: expected int, was given '8' (str)"]
    assert list(schema.problems(Constrained(size=(1, 2)))) == []


def test_the_reference_says_what_a_field_is():
    width, mean, size, every = reference(Constrained)
    assert width == FieldReference("width", "int, 1 or more", "8", "The width.")
    assert mean.doc == "Of the pixels; one a channel."
    assert mean.type == "a list of float, 0 to 1"
    assert size.default == "None"
    assert every.type == 'a duration like "5 epochs", more than nothing, as in "1 epoch"'
    assert every.default == "'1 epochs'"


def test_an_override_that_reaches_into_another_leaves_what_was_given_as_it_is():
    given = {"optimizer": {"name": "sgd"}, "optimizer.learning_rate": 0.1}
    config = {}
    configfile.apply_overrides(config, given)
    assert config == {"optimizer": {"name": "sgd", "learning_rate": 0.1}}
    assert given["optimizer"] == {"name": "sgd"}
