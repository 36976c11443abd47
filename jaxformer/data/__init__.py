"""Examples and batches: TFDS datasets, transforms, and Grain pipelines on the host. NumPy only, no jax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxformer.data.annotated.boxes import import_detection
    from jaxformer.data.annotated.masks import import_segmentation
    from jaxformer.data.batches import Batches, make_batches
    from jaxformer.data.config import TRANSFORMS, DataConfig
    from jaxformer.data.importing import import_images
    from jaxformer.data.listing import contact_sheet, dataset_table, list_datasets

__all__ = [
    "TRANSFORMS",
    "Batches",
    "DataConfig",
    "contact_sheet",
    "dataset_table",
    "import_detection",
    "import_images",
    "import_segmentation",
    "list_datasets",
    "make_batches",
]

# Imported when first used: grain, tfds and cv2 take a second or two.
MODULES = {
    "TRANSFORMS": "config",
    "Batches": "batches",
    "DataConfig": "config",
    "contact_sheet": "listing",
    "dataset_table": "listing",
    "import_detection": "annotated.boxes",
    "import_images": "importing",
    "import_segmentation": "annotated.masks",
    "list_datasets": "listing",
    "make_batches": "batches",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(importlib.import_module(f"jaxformer.data.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
