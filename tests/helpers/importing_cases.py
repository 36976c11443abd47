"""What the tests of importing share."""

import os
from pathlib import Path
from typing import Any

import pytest

from jaxformer.errors import UserError
from jaxformer.importing import Imported, import_dataset

SHARED = Path(__file__).parents[3] / "shared" / "tensorflow_datasets"


def bring(sources: Any, folder: Path, kind: str, name: str = "mine", **options: Any) -> Imported:
    """Imports files as a user would."""
    return import_dataset(kind, sources, name, str(folder / "tfds"), **options)


def examples(imported: Imported, split: str) -> list[dict[str, Any]]:
    """What TFDS reads of a split, with text as str and sequences as lists."""
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(imported.folder).as_data_source(split)
    assert len(source) == imported.splits[split]
    return [plain(source[index]) for index in range(len(source))]


def plain(value: Any) -> Any:
    """NumPy's scalars and bytes as Python's."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.tolist() if hasattr(value, "tolist") else value


def refusal(sources: Any, folder: Path, kind: str, **options: Any) -> str:
    """The message of an import that is refused and leaves nothing behind."""
    before = sorted(os.listdir(folder / "tfds")) if (folder / "tfds").exists() else []
    with pytest.raises(UserError) as error:
        bring(sources, folder, kind, **options)
    after = sorted(os.listdir(folder / "tfds")) if (folder / "tfds").exists() else []
    assert before == after
    assert len(error.value.lines) <= 2
    return str(error.value)


def write(path: Path, content: str | bytes) -> Path:
    """A file with exactly this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def real(name: str) -> Any:
    """TFDS's builder of a real dataset; skips the test where it is not prepared."""
    import tensorflow_datasets as tfds

    for folder in (os.environ.get("TFDS_DATA_DIR"), SHARED):
        if folder and (Path(folder) / name).is_dir():
            return tfds.builder_from_directory(next((Path(folder) / name).glob("*.*.*")))
    pytest.skip(f"needs {name}, prepared as array_record, in TFDS_DATA_DIR")
