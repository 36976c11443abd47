"""Images with captions: a CSV or JSON Lines of path and caption, or COCO's JSON of captions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents, Example, random_share
from jaxformer.importing.formats import csv, jsonl
from jaxformer.importing.formats.coco import image_folders, split_of_words
from jaxformer.importing.formats.detection import find_image
from jaxformer.importing.formats.images import size_note
from jaxformer.importing.formats.tables import Row, storable
from jaxformer.importing.images import open_all, open_image
from jaxformer.importing.sources import SPLIT_NAMES, File, Sources, unless_all_train
from jaxformer.reading import parse_json, read_text

EXPECTED = "a CSV or JSON Lines of path and caption, or COCO's JSON of captions"
# What a column, or a key, may be called: as Hugging Face's "metadata.jsonl" has it, too.
PATHS, CAPTIONS = ("path", "file_name", "image"), ("caption", "captions", "text")
OTHER = "caption_"  # how the names of columns with other captions begin


@dataclass(frozen=True)
class Said:
    """One or several captions of an image."""

    source: Path
    """The file that says it."""
    where: str
    """Its place in there: "line 3", "annotations[17]"."""
    name: Any
    """The image's name."""
    captions: Mapping[str, Any]
    """By the feature's name a text, or a list of them."""
    split: Any = None
    """The split's name; None where nothing tells it."""


@dataclass
class Pictures:
    """The images that have captions, in the order in which they are first named."""

    sources: Sources
    found: dict[Path, tuple[File, dict[str, dict[str, None]]]] = field(default_factory=dict)
    """The captions of each image, by feature."""
    twice: int = 0
    """Captions that are there before, of the same image."""

    def add(self, said: Said, folders: list[Path]) -> None:
        """Takes captions whose image is in one of `folders`; what is wrong goes to `sources.broken`."""
        with self.sources.checking(said.source, said.where):
            checked = {name: texts_of(name, given) for name, given in said.captions.items()}
            if not isinstance(said.name, str) or not said.name.strip():
                raise ValueError("names no image")
            if (path := find_image(said.name.strip(), folders)) is None:
                raise ValueError(f"there is no image {said.name!r} in {folders[0]}")
            split = said.split
            if split is not None and (split := SPLIT_NAMES.get(str(split).strip().lower())) is None:
                raise ValueError(f"split {said.split!r} is not train, validation or test")
            file, captions = self.found.setdefault(path, (File(path, said.name.strip(), split), {}))
            if file.split != split:
                raise ValueError(
                    f"{said.name!r} is in the split {file.split!r} before, and here in {split!r}"
                )
            self.twice += sum(text in captions.get("caption", ()) for text in checked["caption"])
            for name, texts in checked.items():
                captions.setdefault(name, {}).update(dict.fromkeys(texts))


def texts_of(name: str, given: Any) -> list[str]:
    """The captions of a feature; raises ValueError."""
    texts = given if isinstance(given, list) else [given]
    if not texts or any(text is None or text == "" or str(text).isspace() for text in texts):
        raise ValueError(f"has an empty {name}" if texts else f"has no {name}")
    return [storable(text, f"its {name}") for text in texts]


def read(sources: Sources) -> Contents:
    """Reads images with their captions; an image that is named several times has several.

    Tables have the columns, or objects the keys, `path` (or `file_name`, `image`; relative to the file, and not out of
    its folder), `caption` (or `captions`, `text`; in JSON a list, too) and perhaps `split`; others whose names begin
    with "caption_", such as `caption_de`, are features of their own. Files named train, validation or test tell the
    splits, too. Each example has `image`, `caption` (a list of texts) and `path`; those that cannot be read, and
    captions that are empty, are refused.

    Raises:
      UserError: a file is not like that; says where.
    """
    pictures = Pictures(sources)
    reader = reader_of(sources)
    for said, folders in reader(sources):
        pictures.add(said, folders)
    found = list(pictures.found.values())
    opened = open_all(found, lambda item: (*item, open_image(item[0].path)), sources)
    grey = all(image.grey for *_, image in opened)
    sizes = {image.size for *_, image in opened}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    names = sorted({name for _, captions, _ in opened for name in captions})
    texts = {name: tfds.features.Sequence(tfds.features.Text()) for name in names}
    shape = (height, width, 1 if grey else 3)
    features = {"image": tfds.features.Image(shape=shape), **texts, "path": tfds.features.Text()}
    examples = []
    for file, captions, image in opened:
        told = {name: list(captions.get(name, ())) for name in names}
        values = {"image": partial(image.stored, shape[2]), **told, "path": file.name}
        annotation = sorted(text for texts in told.values() for text in texts)
        examples.append(Example(values, file, image=image, annotation=annotation))
    notes = [size_note(sizes, grey)] if sizes else []
    counts = {name: sum(len(captions.get(name, ())) for _, captions, _ in opened) for name in names}
    for name, count in counts.items():
        notes.append(f"{name}: {counted(count, 'caption')}" if len(names) > 1 else counted(count, "caption"))
    if pictures.twice:
        notes.append(f"left out: {counted(pictures.twice, 'caption')} that the same image has before")
    return Contents(features, examples, notes=notes, hold_out=random_share)


def reader_of(sources: Sources) -> Callable[[Sources], Iterator[tuple[Said, list[Path]]]]:
    """How all sources are read, by their extension."""
    known = {".csv": table, ".tsv": table, ".jsonl": lines, ".ndjson": lines, ".json": coco}
    readers = {}
    for path in sources.paths:
        if path.is_dir() or path.suffix.lower() not in known:
            raise UserError(f"{path}: expected {EXPECTED}")
        readers[known[path.suffix.lower()]] = path
    if len(readers) > 1:
        one, other, *_ = readers.values()
        raise UserError(f"{one} and {other}: are of two kinds; name files of one kind")
    return next(iter(readers))


def table(sources: Sources) -> Iterator[tuple[Said, list[Path]]]:
    """What the rows of CSV files say."""
    return of_rows(csv.rows(sources), "column")


def lines(sources: Sources) -> Iterator[tuple[Said, list[Path]]]:
    """What the objects of JSON Lines say."""
    return of_rows(jsonl.rows(sources), "key")


def of_rows(rows: Iterator[Row], what: str) -> Iterator[tuple[Said, list[Path]]]:
    """What rows say of images beside their file.

    Raises:
      UserError: a row has no column, or no key, for the image or the caption.
    """
    for row in rows:
        found: list[Any] = []
        for names in (PATHS, CAPTIONS):
            if (column := next((each for each in names if each in row.cells), None)) is None:
                there = ", ".join(row.cells)
                wanted = f"no {what} {names[0]!r} (nor {' or '.join(map(repr, names[1:]))})"
                raise UserError(f"{row.file.path}, line {row.line}: has {wanted}; there are: {there}")
            found.append(row.cells[column])
        split = row.cells.get("split", row.file.split)
        name, caption = found
        captions = {"caption": caption} | {key: row.cells[key] for key in row.cells if key.startswith(OTHER)}
        yield Said(row.file.path, f"line {row.line}", name, captions, split), [row.file.path.parent]


def coco(sources: Sources) -> Iterator[tuple[Said, list[Path]]]:
    """What the annotations of COCO's files of captions say.

    Raises:
      UserError: a file is not COCO's JSON of captions.
    """
    for file in unless_all_train([File(path, path.name, split_of_words(path)) for path in sources.paths]):
        try:
            content = parse_json(read_text(file.path))
        except ValueError as error:
            raise UserError(f"{file.path}: {error}") from error
        images, annotations = (
            content.get(k) if isinstance(content, dict) else None for k in ("images", "annotations")
        )
        if not isinstance(images, list) or not isinstance(annotations, list):
            raise UserError(
                f"{file.path}: is not COCO's JSON of captions; it has no lists images and annotations"
            )
        names: dict[Any, Any] = {}
        for place, image in enumerate(images):
            with sources.checking(file.path, f"images[{place}]"):
                key, name = (image.get(k) if isinstance(image, dict) else None for k in ("id", "file_name"))
                if not isinstance(name, str) or type(key) not in (int, str):
                    raise ValueError("has no id and file_name")
                if key in names:
                    raise ValueError(f"the id {key} is there twice")
                names[key] = name
        folders, bare = image_folders(file.path), dict.fromkeys(names)
        for place, annotation in enumerate(annotations):
            where = f"annotations[{place}]"
            with sources.checking(file.path, where):
                key, caption = (
                    annotation.get(k) if isinstance(annotation, dict) else None
                    for k in ("image_id", "caption")
                )
                if type(key) not in (int, str) or key not in names:
                    raise ValueError(f"there is no image of the id {key!r}")
                bare.pop(key, None)
                yield Said(file.path, where, names[key], {"caption": caption}, file.split), folders
        for key in bare:
            sources.broken.append((file.path, f"the image {names[key]!r} has no caption"))
