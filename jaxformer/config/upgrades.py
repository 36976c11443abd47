"""Configs of runs that earlier versions made, in the names of this version."""

from collections.abc import Mapping
from typing import Any

RENAMED = {("model", "num_labels"): "num_classes"}
"""A section and a field's former name -> its name."""


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with every field under its present name, in the same order; the argument stays as it is.

    Args:
      config: "config" of a run's config.json.
    """

    def renamed(key: str, section: Mapping[str, Any]) -> dict[str, Any]:
        return {RENAMED.get((key, field), field): value for field, value in section.items()}

    return {key: renamed(key, part) if isinstance(part, Mapping) else part for key, part in config.items()}
