"""Examples and batches: TFDS datasets, transforms, and Grain pipelines on the host. NumPy only, no jax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxformer.data.batches import Batches, make_batches
    from jaxformer.data.config import TRANSFORMS, DataConfig

__all__ = [
    "TRANSFORMS",
    "Batches",
    "DataConfig",
    "make_batches",
]

# Imported when first used: grain, tfds and cv2 take a second or two.
MODULES = {
    "TRANSFORMS": "config",
    "Batches": "batches",
    "DataConfig": "config",
    "make_batches": "batches",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(importlib.import_module(f"jaxformer.data.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
