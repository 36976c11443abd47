"""What is known of a dataset that is not here: of its batches' arrays, not of what is in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class NominalBatches:
    """Enough of `Batches` to build and to compile an experiment, and to predict with its model."""

    num_examples: int
    batch_size: int
    element_spec: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    facts: tuple[str, ...] = ()
    class_names: list[str] | None = None
    tokenizer: Any = None
    source: None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    typical_length: None = None


def record(batches: Any) -> dict[str, Any]:
    """What there is to know of `Batches`, as JSON values."""
    arrays = {
        name: [list(shape), np.dtype(dtype).name] for name, (shape, dtype) in batches.element_spec.items()
    }
    return {
        "examples": batches.num_examples,
        "arrays": arrays,
        "class_names": batches.class_names,
        "sizes": dict(batches.sizes),
    }


def recorded(known: Mapping[str, Any], batch_size: int) -> NominalBatches:
    """The batches that `record` told of."""
    spec = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in known["arrays"].items()}
    return NominalBatches(
        known["examples"], batch_size, spec, class_names=known["class_names"], sizes=known["sizes"]
    )
