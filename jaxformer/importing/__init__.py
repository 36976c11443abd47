"""Datasets of a user's own files, and what is in the prepared ones: not needed to train, and not imported there.

`import_dataset` finds the files, reads them by a format, checks what was read, divides it into splits, and writes.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxformer.importing.pipeline import Imported, import_dataset
    from jaxformer.importing.show import contact_sheet, dataset_table

__all__ = ["Imported", "contact_sheet", "dataset_table", "import_dataset"]


def __getattr__(name: str) -> Any:
    """Imports what is used first: the command line reads the table of formats, and answers at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "pipeline" if name in ("Imported", "import_dataset") else "show"
    return getattr(importlib.import_module(f"jaxformer.importing.{module}"), name)
