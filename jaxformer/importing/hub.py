"""Datasets of the Hugging Face Hub as files, by the package `datasets` (extra `hub`): Parquet, or class folders."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.files import incomplete, put_in_place
from jaxformer.importing.sources import NAMED
from jaxformer.reading import IMAGE_EXTENSIONS

logger = logging.getLogger("jaxformer")
FORM = "hf:OWNER/NAME, hf:OWNER/NAME:CONFIG, with @REVISION behind it if wanted"


def files_of(name: str, folder: Path) -> Path:
    """The folder of a dataset's files, which is made once for each name: a Parquet file a split; of pictures a folder a
    split, with a folder a class.

    Args:
      name: "OWNER/NAME", "OWNER/NAME:CONFIG", either with "@REVISION"; or a folder that `datasets` reads.
      folder: where such folders are.

    Raises:
      UserError: `datasets` is not installed, the dataset cannot be had, none of its splits is for training or tests, or
        its pictures have not one class each.
    """
    made = folder / hashlib.sha256(name.encode()).hexdigest()[:16]
    if made.exists():
        return made
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"data.name: hf:{name}: needs the package `datasets`", "pip install 'jaxformer[hub]'"
        ) from error
    rest, _, revision = name.partition("@")
    repository, _, config = rest.partition(":")
    try:
        found = datasets.load_dataset(repository, config or None, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = f"is there a network, and such a dataset? The form is {FORM}"
        raise UserError(f"data.name: hf:{name}: cannot be had ({said})", remedy) from error
    known = [split for split in found if NAMED.fullmatch(split)]
    if others := [split for split in found if split not in known]:
        logger.info("hf:%s: left out: %s", name, ", ".join(others))
    if not known:
        raise UserError(
            f"data.name: hf:{name}: has no split of train, validation or test, but {', '.join(others)}"
        )
    made.parent.mkdir(parents=True, exist_ok=True)
    with incomplete(made) as hidden:
        hidden.mkdir()
        for split in known:
            pictures, classes = columns_of(found[split], datasets)
            if not pictures:
                found[split].to_parquet(str(hidden / f"{split}.parquet"))
            elif len(classes) == 1:
                stored = found[split].cast_column(pictures[0], datasets.Image(decode=False))
                write_pictures(stored, pictures[0], classes[0], hidden / split)
            else:
                told = f"its pictures have {', '.join(classes) or 'none'}"
                raise UserError(f"data.name: hf:{name}: expected one column of classes, and {told}")
        if not made.exists():  # another process was quicker
            put_in_place(hidden, made)
    return made


def columns_of(split: Any, datasets: Any) -> tuple[list[str], list[str]]:
    """The columns of pictures and of classes of a split of `datasets`, the package."""
    kinds = datasets.Image, datasets.ClassLabel
    pictures, classes = ([name for name, of in split.features.items() if isinstance(of, k)] for k in kinds)
    return pictures, classes


def write_pictures(split: Any, picture: str, label: str, folder: Path) -> None:
    """Writes a folder of pictures for each class, as they are stored; those without a class (-1) are left out.

    Args:
      split: rows of `datasets`, whose pictures are dicts of "bytes" and "path".
      picture: the column of pictures.
      label: the column of their classes.
      folder: of the split.
    """
    names = [re.sub(r"^\.|/", "_", name) for name in split.features[label].names]
    for number, row in enumerate(split):
        stored = row[picture]
        if stored is None or row[label] not in range(len(names)):
            continue
        suffix = Path(stored["path"] or "").suffix.lower()
        place = folder / names[row[label]] / f"{number}{suffix if suffix in IMAGE_EXTENSIONS else '.png'}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(stored["bytes"] or Path(stored["path"]).read_bytes())
