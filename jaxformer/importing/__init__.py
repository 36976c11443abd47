"""Datasets of a user's own files, and what is in the prepared ones: not needed to train, and not imported there.

`import_dataset` finds the files, reads them by a format, checks what was read, divides it into splits, and writes.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxformer.importing.pipeline import Imported, import_dataset
    from jaxformer.importing.show import contact_sheet, dataset_table, list_datasets

__all__ = ["Imported", "contact_sheet", "dataset_table", "import_dataset", "list_datasets"]

# Imported when first used: the command line reads the table of formats, and answers at once.
MODULES = {
    "Imported": "pipeline",
    "contact_sheet": "show",
    "dataset_table": "show",
    "import_dataset": "pipeline",
    "list_datasets": "show",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(importlib.import_module(f"jaxformer.importing.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
