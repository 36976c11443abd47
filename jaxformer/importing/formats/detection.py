"""Images with boxes in any of the formats that have them: whichever the files are of."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from jaxformer.config.schema import load
from jaxformer.errors import UserError
from jaxformer.importing.contents import Contents
from jaxformer.importing.formats import FORMATS
from jaxformer.importing.sources import Sources, listing

EXPECTED = "COCO's JSON, VOC's XML, or YOLO's data.yaml or classes.txt"


def read_detection(sources: Sources) -> Contents:
    """Reads the sources by the one format that finds its files of annotations in them.

    Raises:
      UserError: no format does, or two of them do.
    """
    found: dict[str, list[Path]] = {}
    for name, format in FORMATS.items():
        if format.find is not None:
            files = cast(Callable[[Sequence[Path]], list[Path]], load(format.find))(sources.paths)
            if files:
                found[name] = files
    if not found:
        raise UserError(f"{sources.paths[0]}: holds no annotations; expected {EXPECTED}")
    if len(found) > 1:
        kinds, shown = (
            " and ".join(names) for names in (map(str.upper, found), (listing(f, 1) for f in found.values()))
        )
        raise UserError(
            f"{sources.paths[0]}: holds annotations of {kinds} ({shown}); name the file or folder to import, or import "
            f"it as {' or '.join(found)}"
        )
    return cast(Callable[[Sources], Contents], load(FORMATS[next(iter(found))].read))(sources)
