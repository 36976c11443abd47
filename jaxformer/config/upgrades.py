"""Configs of runs that earlier versions made, in the names of this version."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig

logger = logging.getLogger("jaxformer")

RENAMED = {("model", "num_labels"): "num_classes"}
"""A section and a field's former name -> its name."""
ADDED = {("train", "ema_warmup"): False}
"""A section and a field that came later -> its value in runs that were begun before, where that is not its default."""


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with every field under its present name, in the same order; the argument stays as it is.

    Fields that came later, and whose defaults would change what the run computes, have the values of then.

    Args:
      config: "config" of a run's config.json.
    """

    def renamed(key: str, section: Mapping[str, Any]) -> dict[str, Any]:
        added = {field: value for (of, field), value in ADDED.items() if of == key}
        return added | {RENAMED.get((key, field), field): value for field, value in section.items()}

    return {key: renamed(key, part) if isinstance(part, Mapping) else part for key, part in config.items()}


def as_begun(config: "ExperimentConfig", begun: Mapping[str, Any]) -> "ExperimentConfig":
    """A config in which the fields of `ADDED` are as the run was begun with, whose config is `begun`, upgraded."""
    for key, field in ADDED:
        section, before = getattr(config, key), begun.get(key)
        if isinstance(before, Mapping) and before[field] != getattr(section, field):
            logger.info("%s.%s=%r, as the run was begun with", key, field, before[field])
            config = replace(config, **{key: replace(section, **{field: before[field]})})
    return config
