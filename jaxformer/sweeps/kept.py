"""What a worker keeps of its trials for those that come, so that it opens, traces and compiles once."""

import json
from typing import Any

from jaxformer.config import schema
from jaxformer.config.sections import ExperimentConfig
from jaxformer.numbers import numbers_of, with_numbers
from jaxformer.parallel.compile import Shared

MOST = 8  # kinds of programs, and data sections, that are kept


class Kept:
    """What the latest experiments of this process had, for those that come."""

    def __init__(self) -> None:
        self.programs: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[tuple[str, bool], Any]] = {}

    def of(self, config: ExperimentConfig) -> Shared:
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


def program_key(config: ExperimentConfig) -> str:
    """The same text for configs that differ in numbers alone, and so are trained by one program."""
    numbers = numbers_of(config)
    same = with_numbers(config, dict.fromkeys(numbers, "a number"))
    return json.dumps([schema.to_dict(same), sorted(numbers)], sort_keys=True)
