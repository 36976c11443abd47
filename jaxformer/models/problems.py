"""What is wrong with a model's fields, as lines that begin with the field's name."""

from collections.abc import Iterator
from typing import Any


def sizes(model: Any, *names: str) -> Iterator[str]:
    """Yields a line for every size under 1; None is none."""
    for name in names:
        value = getattr(model, name)
        if value is not None and value < 1:
            yield f"{name}={value}: expected at least 1"


def classes(model: Any) -> Iterator[str]:
    """Yields a line for an impossible number of classes; 0 is a model without a head."""
    if model.num_classes < 0:
        yield f"num_classes={model.num_classes}: expected at least 1, or 0 for a model without a head"


def stages(model: Any) -> Iterator[str]:
    """Yields a line for an impossible number of blocks in a stage."""
    if not model.stage_sizes or min(model.stage_sizes) < 1:
        yield f"stage_sizes={list(model.stage_sizes)}: expected at least one stage of at least one block"


def rates(model: Any, *names: str) -> Iterator[str]:
    """Yields a line for every rate that is no share."""
    for name in names:
        if not 0 <= getattr(model, name) < 1:
            yield f"{name}={getattr(model, name)}: expected a rate of at least 0 and less than 1"


def heads(model: Any) -> Iterator[str]:
    """Yields a line for every number of heads that does not fit the width, or the others."""
    yield from sizes(model, "width", "num_heads")
    if model.num_heads > 0 and getattr(model, "head_dim", None) is None and model.width % model.num_heads:
        near = [n for n in range(1, 2 * model.num_heads) if model.width % n == 0][-1]
        yield f"num_heads={model.num_heads} does not divide width={model.width}: use one that does, as {near}"
    kv_heads = getattr(model, "num_kv_heads", None)
    if kv_heads and model.num_heads > 0 and model.num_heads % kv_heads:
        yield f"num_kv_heads={kv_heads} does not divide num_heads={model.num_heads}: use one that does"
