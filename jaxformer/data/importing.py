"""Turns a user's own pictures into a TFDS dataset, which any config can then name."""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jaxformer.data.catalog import data_folder
from jaxformer.data.digits import NAME as DIGITS
from jaxformer.data.scanning import Picture, listing, scan
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError

VERSION = "1.0.0"
EXIF_ORIENTATION = 0x0112
GREY_MODES = {"1", "L", "LA", "I", "I;16"}


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    name: str
    """The dataset's name, for `data.name`."""
    folder: Path
    """Where it is."""
    splits: dict[str, int]
    """Pictures by split."""
    class_names: list[str]
    """The classes, in the order of their labels."""
    broken: list[tuple[Path, str]]
    """Files that were left out, and why (only with `skip_broken`)."""
    duplicates: list[Path]
    """Files that were left out because another of the same class has the same bytes."""


@dataclass(frozen=True)
class Checked:
    """A picture that was opened."""

    picture: Picture
    """The file and its label."""
    size: tuple[int, int]
    """Height and width, upright."""
    grey: bool
    """Whether it has no colour."""
    as_is: bool
    """Whether the file's bytes can be stored: an 8-bit RGB or grey JPEG or PNG that stands upright."""
    digest: bytes
    """SHA-256 of the file."""


def import_images(
    source: str | Path,
    name: str,
    data_dir: str | None = None,
    test_share: float = 0.2,
    skip_broken: bool = False,
) -> Imported:
    """Makes the TFDS dataset `name` of labelled pictures; it is there completely, or not at all.

    JPEG and PNG files are stored byte by byte; others, and those that a camera turned, are stored upright as
    PNG. Without colour in any of them the dataset is grey. Where the source has no splits, a fixed random
    share of every class becomes the split "test". Each example has `image`, `label` and `path` (relative to
    the source's folder).

    Args:
      source: a folder of class folders, perhaps inside folders train, val, test; or a CSV (`scanning.scan`).
      name: the new dataset's name: lower-case letters, digits and underscores.
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      test_share: the share of each class that is held out, if the source has no splits; 0 holds nothing out.
      skip_broken: leave out files that are not readable pictures, instead of refusing.

    Raises:
      UserError: the name is taken or impossible, or something is wrong with the source; says what and where.
    """
    source = Path(source)
    folder, _ = data_folder(data_dir)
    check_name(name, folder)
    if not 0 <= test_share < 1:
        raise UserError(f"test share {test_share}: must be at least 0 and less than 1")
    found = scan(source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, found.pictures))
    broken = [(path, "not a picture by its name") for path in found.others]
    broken += [(p.path, r) for p, r in zip(found.pictures, results) if isinstance(r, str)]
    if broken and not skip_broken:
        path, reason = broken[0]
        more = (
            f" (and {len(broken) - 1} more: {listing([p for p, _ in broken[1:]])})" if len(broken) > 1 else ""
        )
        raise UserError(
            f"{path}: {reason}{more}; repair or remove such files, or leave them out with --skip-broken"
        )
    checked, duplicates = without_duplicates([r for r in results if isinstance(r, Checked)])
    class_names = sorted({c.picture.label for c in checked}, key=natural)
    splits = into_splits(checked, test_share)
    check_classes(splits, class_names, source)
    root = source if source.is_dir() else source.parent.resolve()
    folder = write(splits, class_names, name, folder, root)
    counts = {split: len(members) for split, members in splits.items()}
    return Imported(name, folder, counts, class_names, broken, duplicates)


def check_name(name: str, folder: Path) -> None:
    """Refuses names that TFDS does not take, or that are taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"name {name!r}: use lower-case letters, digits and underscores, as in 'my_flowers'")
    if name == DIGITS:
        raise UserError(f"name {name!r}: is the embedded dataset's; choose another")
    if (folder / name).exists():
        raise UserError(f"name {name!r}: {folder / name} is there already; remove it, or choose another name")


def check(picture: Picture) -> Checked | str:
    """Opens and decodes a file; a text says why it cannot be used."""
    content = b""
    try:
        content = picture.path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            kind, mode = image.format, image.mode
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
            image.load()
            height, width = image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        system = error.strerror if isinstance(error, OSError) else None
        reason = system or (str(error).split("<")[0].strip() if content else "empty file")
        return f"not a readable picture ({reason})"
    if orientation >= 5:  # lies on its side
        height, width = width, height
    as_is = kind in ("JPEG", "PNG") and mode in ("L", "RGB") and orientation == 1
    return Checked(picture, (height, width), mode in GREY_MODES, as_is, hashlib.sha256(content).digest())


def without_duplicates(checked: list[Checked]) -> tuple[list[Checked], list[Path]]:
    """Keeps the first of identical files; refuses them in two classes or two splits."""
    first: dict[bytes, Checked] = {}
    duplicates = []
    for item in checked:
        other = first.setdefault(item.digest, item)
        if other is item:
            continue
        ours, theirs = item.picture, other.picture
        for what in ("label", "split"):
            if getattr(ours, what) != getattr(theirs, what):
                values = f"{getattr(theirs, what)!r} and {getattr(ours, what)!r}"
                raise UserError(
                    f"{theirs.path} and {ours.path} are the same picture, with {what}s {values}; remove one"
                )
        duplicates.append(ours.path)
    return list(first.values()), duplicates


def into_splits(checked: list[Checked], test_share: float) -> dict[str, list[Checked]]:
    """The source's splits; or train and test, `test_share` of each class (rounded), always the same."""
    splits: dict[str, list[Checked]] = {}
    if any(item.picture.split for item in checked):
        for split in ("train", "validation", "test"):
            members = [item for item in checked if item.picture.split == split]
            if members:
                splits[split] = members
        return splits
    rng = np.random.Generator(np.random.PCG64(0))
    held_out: set[int] = set()
    labels = [item.picture.label for item in checked]
    for label in sorted(set(labels)):
        places = [place for place, other in enumerate(labels) if other == label]
        order = np.argsort(rng.random(len(places)), kind="stable")
        count = min(round(len(places) * test_share), len(places) - 1)
        held_out.update(places[number] for number in order[:count])
    splits["train"] = [item for index, item in enumerate(checked) if index not in held_out]
    if held_out:
        splits["test"] = [checked[index] for index in sorted(held_out)]
    return splits


def check_classes(splits: dict[str, list[Checked]], class_names: list[str], source: Path) -> None:
    """Refuses a dataset that nothing can be learnt from."""
    if not class_names:
        raise UserError(f"{source}: no readable pictures are left")
    if len(class_names) == 1:
        raise UserError(f"{source}: there is only the class {class_names[0]!r}; two are needed at least")
    if "train" not in splits:
        raise UserError(f"{source}: has the splits {', '.join(splits)}, but no train")
    missing = [name for name in class_names if name not in {c.picture.label for c in splits["train"]}]
    if missing:
        raise UserError(
            f"{source}: no picture in train for {', '.join(missing)}; check how classes are spelt"
        )


def write(
    splits: dict[str, list[Checked]], class_names: list[str], name: str, folder: Path, root: Path
) -> Path:
    """Writes the dataset; reads each file a second time, so that memory stays small."""
    import tensorflow_datasets as tfds

    everything = [item for members in splits.values() for item in members]
    sizes = {item.size for item in everything}
    grey = all(item.grey for item in everything)
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)

    def examples(members: list[Checked]) -> Iterator[dict[str, Any]]:
        for item in members:
            path = item.picture.path
            yield {
                "image": path.read_bytes() if item.as_is else as_png(path, "L" if grey else "RGB"),
                "label": class_names.index(item.picture.label),
                "path": path.relative_to(root).as_posix(),
            }

    try:
        return write_dataset(
            folder,
            name,
            VERSION,
            features={
                "image": tfds.features.Image(shape=(height, width, 1 if grey else 3)),
                "label": tfds.features.ClassLabel(names=class_names),
                "path": tfds.features.Text(),
            },
            splits={split: examples(members) for split, members in splits.items()},
            description=f"Pictures imported by jaxformer: {len(everything)} of {len(class_names)} classes.",
        )
    except OSError as error:
        raise UserError(f"cannot write the dataset into {folder}: {error.strerror or error}") from error


def as_png(path: Path, mode: str) -> bytes:
    """A file's picture, upright, as PNG."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips them
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    buffer = io.BytesIO()
    upright.convert(mode).save(buffer, format="PNG")
    return buffer.getvalue()


def natural(name: str) -> tuple[bool, int, str]:
    """Orders numbers by value, before words."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
