"""Examples and batches: TFDS datasets, transforms, and Grain pipelines on the host. NumPy only, no jax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxformer.data.batches import Batches, make_batches
    from jaxformer.data.config import DataConfig

__all__ = ["Batches", "DataConfig", "make_batches"]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: grain, tfds and cv2 take a second or two."""
    if name in __all__:
        file = "config" if name == "DataConfig" else "batches"
        return getattr(importlib.import_module(f"jaxformer.data.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
