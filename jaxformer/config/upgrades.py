"""Configs of runs that earlier versions made, in the names of this version."""

from collections.abc import Mapping
from typing import Any

RENAMED = {"model": {"num_labels": "num_classes"}}
"""Section -> a field's former name -> its name."""


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with every field under its present name; the argument stays as it is.

    Args:
      config: "config" of a run's config.json.
    """
    return {key: renamed(section, RENAMED.get(key, {})) for key, section in config.items()}


def renamed(section: Any, names: Mapping[str, str]) -> Any:
    """A section with its keys under their present names, in their order; anything else as it is."""
    if not isinstance(section, Mapping) or not names:
        return section
    return {names.get(key, key): value for key, value in section.items()}
