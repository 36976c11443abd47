"""Datasets of the Hugging Face Hub as Parquet files, by the package `datasets` (extra `hub`)."""

import hashlib
import logging
from pathlib import Path

from jaxformer.errors import UserError
from jaxformer.files import incomplete, put_in_place
from jaxformer.importing.sources import NAMED

logger = logging.getLogger("jaxformer")
FORM = "hf:OWNER/NAME, hf:OWNER/NAME:CONFIG, with @REVISION behind it if wanted"


def tables_of(name: str, folder: Path) -> Path:
    """The folder of a dataset's Parquet files, one a split, which is made once for each name.

    Args:
      name: "OWNER/NAME", "OWNER/NAME:CONFIG", either with "@REVISION"; or a folder that `datasets` reads.
      folder: where such folders are.

    Raises:
      UserError: `datasets` is not installed, the dataset cannot be had, or none of its splits is for training or tests.
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
            found[split].to_parquet(str(hidden / f"{split}.parquet"))
        if not made.exists():  # another process was quicker
            put_in_place(hidden, made)
    return made
