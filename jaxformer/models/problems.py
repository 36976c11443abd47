"""What is wrong with a model's fields, as lines that begin with the field's name."""

from collections.abc import Iterator
from typing import Any


def sizes(model: Any, *names: str) -> Iterator[str]:
    """Yields a line for every size, or tuple of sizes, that is under 1; None is none."""
    for name in names:
        value = getattr(model, name)
        if isinstance(value, tuple):
            if min(value, default=1) < 1:
                yield f"{name}={list(value)}: expected at least 1 each"
        elif value is not None and value < 1:
            yield f"{name}={value}: expected at least 1"


def epsilons(model: Any) -> Iterator[str]:
    """Yields a line for an epsilon that keeps nothing from division by zero."""
    if model.norm_epsilon <= 0:
        yield f"norm_epsilon={model.norm_epsilon}: expected more than 0, such as 1e-6"


def classes(model: Any) -> Iterator[str]:
    """Yields a line for an impossible number of classes; 0 is a model without a head."""
    if model.num_classes < 0:
        yield f"num_classes={model.num_classes}: expected at least 1, or 0 for a model without a head"


def stages(model: Any, *names: str) -> Iterator[str]:
    """Yields a line for an impossible number of blocks in a stage, and where a field has not one value for each."""
    if not model.stage_sizes or min(model.stage_sizes) < 1:
        yield f"stage_sizes={list(model.stage_sizes)}: expected at least one stage of at least one block"
    for name in names:
        if len(getattr(model, name)) != len(model.stage_sizes):
            yield f"{name}={list(getattr(model, name))}: expected one for each of {len(model.stage_sizes)} stages"


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
