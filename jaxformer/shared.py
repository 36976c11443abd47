"""What several experiments of one process have in common, so that it is opened, traced and compiled once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxformer.config import schema
from jaxformer.numbers import numbers_of, with_numbers

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig

MOST = 8  # kinds of programs, and data sections, that are kept


@dataclass(frozen=True)
class Shared:
    """The part of an experiment that others may use, too."""

    programs: dict[str, Any] = field(default_factory=dict)
    """Of experiments whose configs differ in numbers alone (`numbers.py`): shapes and compiled programs, by name."""
    sources: dict[tuple[str, bool], Any] = field(default_factory=dict)
    """Of experiments with the same `data`: what is open, by split and whether it is trained on."""


class Kept:
    """What the latest experiments of this process had, for those that come."""

    def __init__(self) -> None:
        self.programs: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[tuple[str, bool], Any]] = {}

    def of(self, config: "ExperimentConfig") -> Shared:
        """What an experiment with this config shares with those before it."""
        return Shared(
            latest(self.programs, program_key(config)),
            latest(self.sources, json.dumps(schema.to_dict(config.data), sort_keys=True)),
        )


def latest(kept: dict[str, dict], key: str) -> dict:
    """The entry of a key, made if it is not there, as the last of the dict; the first of more than MOST go."""
    kept[key] = kept.pop(key, {})
    while len(kept) > MOST:
        del kept[next(iter(kept))]
    return kept[key]


def program_key(config: "ExperimentConfig") -> str:
    """The same text for configs that differ in numbers alone, and so are trained by one program."""
    numbers: Mapping[str, Any] = numbers_of(config)
    same = with_numbers(config, dict.fromkeys(numbers, "a number"))
    return json.dumps([schema.to_dict(same), sorted(numbers)], sort_keys=True)
