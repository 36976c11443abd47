"""The parameters of a sweep as axes of charts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxformer.sweeps.spaces import Choice, Parameters, Range, Space


@dataclass(frozen=True)
class Axis:
    """A parameter on a line."""

    path: str
    """The leaf of the config."""
    label: str
    """The end of its path, or the whole where two have the same end."""
    kind: Literal["choice", "integer", "log", "uniform"]
    """How its values lie."""
    values: tuple[Any, ...]
    """All values of a choice; else the least and the most."""

    def index(self, value: Any) -> float | None:
        """A number that tells where a value lies: of a choice its number; None of a value that a trial lacks."""
        if self.kind == "choice":
            return self.values.index(value) if value in self.values else None
        return value

    def feature(self, value: Any) -> float:
        """The same for what learns from it: the logarithm of "log", NaN in the place of None."""
        index = self.index(value)
        if index is None:
            return math.nan
        return math.log(index) if self.kind == "log" else float(index)

    def to_json(self) -> dict[str, Any]:
        """For the script of the page."""
        words = [shown(value) for value in self.values] if self.kind == "choice" else list(self.values)
        return {"path": self.path, "label": self.label, "kind": self.kind, "values": words}


def axes_of(parameters: Parameters, values: Sequence[Mapping[str, Any]]) -> list[Axis]:
    """The axes of all parameters, those under conditions included; several spaces of one path are one axis.

    Args:
      parameters: the spaces.
      values: of each trial, by path.
    """
    spaces: dict[str, list[Space]] = {}
    for path, space in every(parameters):
        spaces.setdefault(path, []).append(space)
    ends = [path.rpartition(".")[2] for path in spaces]
    labels = {path: end if ends.count(end) == 1 else path for path, end in zip(spaces, ends)}
    seen = {path: [each[path] for each in values if path in each] for path in spaces}
    return [axis(path, labels[path], spaces[path], seen[path]) for path in spaces]


def every(parameters: Parameters) -> Iterator[tuple[str, Space]]:
    """Yields path and space of parameters and of those under their conditions."""
    for path, space in parameters.items():
        yield path, space
        if isinstance(space, Choice):
            for below in space.conditions:
                yield from every(below)


def axis(path: str, label: str, spaces: Sequence[Space], seen: Sequence[Any]) -> Axis:
    """The axis of a path: a line of numbers if it has a range and nothing but numbers, else a place for each value."""
    ranges = [space for space in spaces if isinstance(space, Range)]
    values = [*(end for space in spaces for end in space.ends()), *seen]
    if ranges and all(type(value) in (int, float) for value in values):
        same = len({space.kind for space in ranges}) == 1 and (ranges[0].kind != "log" or min(values) > 0)
        return Axis(path, label, ranges[0].kind if same else "uniform", (min(values), max(values)))
    listed = [end for space in spaces if isinstance(space, Choice) for end in space.ends()] + list(seen)
    return Axis(path, label, "choice", tuple(v for i, v in enumerate(listed) if v not in listed[:i]))


def shown(value: Any) -> str:
    """A value in a cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value)) or "none"
    if isinstance(value, Mapping):
        return str(value.get("name", dict(value)))
    return str(value)
