"""Turns a user's pictures with masks into a TFDS dataset, which `data.examples` "segmentation" then reads."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxformer.data.annotated.annotations import lines_in, pictures_below, split_of_folders
from jaxformer.data.annotated.boxes import ImportedAnnotations
from jaxformer.data.annotated.splits import held_out, without_copies
from jaxformer.data.catalog import data_folder
from jaxformer.data.decoding import decode_mask
from jaxformer.data.importing import VERSION, Checked, as_png, check, check_name
from jaxformer.data.scanning import Picture
from jaxformer.data.text.formats import Broken, check_classes, refuse
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError

IMAGE_FOLDERS = {"images", "image", "imgs", "img", "jpegimages"}
MASK_FOLDERS = {"masks", "mask", "labels", "annotations", "annot", "segmentation", "segmentationclass", "gt"}
SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_L", "_labelIds")  # of masks' names
CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt")
IGNORED = 255


@dataclass(frozen=True)
class Pair:
    """A picture and its mask."""

    image: Path
    """The picture's file."""
    mask: Path
    """The mask's file."""
    name: str
    """How the dataset calls it."""
    split: str | None
    """Its split, or None if no folder says."""


@dataclass(frozen=True)
class Opened:
    """A pair that can be written."""

    pair: Pair
    """Its files."""
    checked: Checked
    """The picture."""
    ids: frozenset[int]
    """That the mask holds."""
    digest: bytes
    """SHA-256 of the mask's ids."""


def import_segmentation(
    sources: str | Path | Sequence[str | Path],
    name: str,
    data_dir: str | None = None,
    test_share: float = 0.2,
    skip_broken: bool = False,
    classes: Sequence[str] | None = None,
) -> ImportedAnnotations:
    """Makes the TFDS dataset `name` of pictures with masks; it is there completely, or not at all.

    A mask has its picture's name, perhaps with a suffix such as "_mask", and is grey or has a palette: its values are
    class ids, 255 for none. Folders named train, validation (val), test tell the splits; else always the same random
    share becomes "test". Each example has `image`, `segmentation_mask` and `path`.

    Args:
      sources: a folder that holds the folders images and masks; or two folders, of pictures and of masks.
      name: the new dataset's name: lower-case letters, digits and underscores.
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      test_share: the share of the pictures that is held out, if there are no splits; 0 holds nothing out.
      skip_broken: leave out pictures that cannot be used, instead of refusing.
      classes: the names of the classes in the order of their ids, from 0 on; None reads them from classes.txt, one a
        line, in or beside the folders.

    Raises:
      UserError: the name is taken or impossible, or something is wrong with a file; says what and where.
    """
    paths = [Path(s) for s in ([sources] if isinstance(sources, (str, Path)) else sources)]
    folder, _ = data_folder(data_dir)
    check_name(name, folder)
    if not 0 <= test_share < 1:
        raise UserError(f"test share {test_share}: must be at least 0 and less than 1")
    class_names = list(classes) if classes is not None else read_classes(paths)
    for problem in check_classes(class_names):
        raise UserError(f"{paths[0]}: {problem}")
    if not 1 <= len(class_names) <= IGNORED:
        raise UserError(f"{paths[0]}: has {len(class_names)} classes; there may be 1 to {IGNORED}")
    broken: list[Broken] = []
    pairs = find_pairs(paths, broken)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda pair: check_pair(pair, len(class_names)), pairs))
    broken += [result for result in results if isinstance(result, tuple)]
    opened = [result for result in results if isinstance(result, Opened)]
    good, copies, otherwise = without_copies(opened, lambda o: o.checked, lambda o: o.digest)
    if not skip_broken:
        refuse(broken + otherwise)
    splits = held_out(good, [item.pair.split for item in good], test_share, paths[0])
    notes = list(unseen_classes(splits["train"], class_names, paths[0]))
    place = write(splits, class_names, name, folder)
    counts = {split: len(members) for split, members in splits.items()}
    return ImportedAnnotations(name, place, counts, class_names, broken + otherwise, copies, notes)


def unseen_classes(members: Sequence[Opened], class_names: Sequence[str], source: Path) -> Iterator[str]:
    """Yields a line if classes are in no mask for training.

    Raises:
      UserError: there is one class at most, and there should be more.
    """
    ids = frozenset().union(*(item.ids for item in members))
    unseen = [name for label, name in enumerate(class_names) if label not in ids]
    if unseen and len(unseen) >= len(class_names) - 1:
        binary = f", which means none; write 1 for {class_names[1]}" if ids == {0, IGNORED} else ""
        held = " and ".join(map(str, sorted(ids)))
        raise UserError(
            f"{source}: the masks in train hold nothing but {held}{binary}",
            f"no pixel is of the class {', '.join(unseen)}, so that there is nothing to tell apart",
        )
    if unseen:
        yield f"no pixel in train is of the class {', '.join(unseen)}"


def find_pairs(paths: Sequence[Path], broken: list[Broken]) -> list[Pair]:
    """Pictures and their masks; those without go to `broken`."""
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: there is no such folder")
    if len(paths) > 2:
        raise UserError(
            f"{paths[2]}: is one source too many; give a folder, or one of pictures and one of masks"
        )
    if len(paths) == 2:
        images = {p: p.relative_to(paths[0]) for p in pictures_below(paths[0])}
        masks = {p: p.relative_to(paths[1]) for p in pictures_below(paths[1])}
    else:
        images, masks = sorted_out(paths[0])
    if not images or not masks:
        missing = "pictures" if not images else "masks"
        raise UserError(
            f"{paths[0]}: holds no {missing}; expected folders images and masks in it, or give two folders: one of "
            "pictures, one of masks"
        )
    places = {(relative.parent, relative.stem): path for path, relative in masks.items()}
    pairs = []
    for path, relative in images.items():
        keys = [(relative.parent, relative.stem + suffix) for suffix in SUFFIXES]
        found = next((places[key] for key in keys if key in places), None)
        if found is None:
            broken.append((path, "has no mask of its name"))
        else:
            pairs.append(Pair(path, found, relative.as_posix(), split_of_folders(relative.as_posix())))
    used = {pair.mask for pair in pairs}
    broken += [(path, "is a mask without a picture") for path in masks if path not in used]
    splits = {pair.split for pair in pairs}
    if None in splits and len(splits) > 1:
        pair = next(pair for pair in pairs if pair.split is None)
        raise UserError(
            f"{pair.image}: is in no split, and others are; put all into train, validation and test, or none"
        )
    return pairs


def sorted_out(root: Path) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Pictures and masks below a folder, with their paths without the folder that says what they are."""
    images: dict[Path, Path] = {}
    masks: dict[Path, Path] = {}
    for path in pictures_below(root):
        parts = path.relative_to(root).parts
        for place, part in enumerate(parts[:-1]):
            kind = (
                images if part.lower() in IMAGE_FOLDERS else masks if part.lower() in MASK_FOLDERS else None
            )
            if kind is not None:
                kind[path] = Path(*parts[:place], *parts[place + 1 :])
                break
    return images, masks


def read_classes(paths: Sequence[Path]) -> list[str]:
    """The names of the classes, from a file in the folders or above them."""
    folders = [*paths, *(path.parent for path in paths if len(paths) > 1)]
    file = next((f / name for f in folders for name in CLASS_FILES if (f / name).is_file()), None)
    if file is None:
        raise UserError(
            f"{paths[0]}: holds no classes.txt; write the classes' names into it, one a line, in the order of "
            "their ids from 0 on, or give them with --classes"
        )
    return lines_in(file)


def check_pair(pair: Pair, num_classes: int) -> Opened | Broken:
    """Opens a picture and its mask; says what is wrong with one of them."""
    checked = check(Picture(pair.image, "", pair.split))
    if isinstance(checked, str):
        return pair.image, checked
    try:
        mask = decode_mask(pair.mask.read_bytes())
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return pair.mask, f"not a readable mask ({error})"
    if mask.shape != checked.size:
        sizes = f"{mask.shape[0]}x{mask.shape[1]}, its picture {checked.size[0]}x{checked.size[1]}"
        return pair.mask, f"the mask is {sizes}"
    ids = np.unique(mask)
    unknown = np.setdiff1d(ids, [*range(num_classes), IGNORED])
    if unknown.size:
        shown = ", ".join(map(str, unknown[:5].tolist())) + (", ..." if unknown.size > 5 else "")
        return (
            pair.mask,
            f"has the ids {shown}; there are the classes 0 to {num_classes - 1}, and {IGNORED} for none",
        )
    digest = hashlib.sha256(mask.astype(np.uint8).tobytes()).digest()
    return Opened(pair, checked, frozenset(ids.tolist()), digest)


def write(splits: dict[str, list[Opened]], class_names: Sequence[str], name: str, folder: Path) -> Path:
    """Writes the dataset; reads each file a second time, so that memory stays small."""
    import tensorflow_datasets as tfds

    def examples(members: list[Opened]) -> Iterator[dict[str, Any]]:
        for item in members:
            pair = item.pair
            yield {
                "image": pair.image.read_bytes() if item.checked.as_is else as_png(pair.image, "RGB"),
                "segmentation_mask": grey_png(pair.mask),
                "path": pair.name,
            }

    count = sum(map(len, splits.values()))
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "segmentation_mask": tfds.features.LabeledImage(
            shape=(None, None, 1), labels=list(class_names), encoding_format="png"
        ),
        "path": tfds.features.Text(),
    }
    description = f"Pictures with masks imported by jaxformer: {count:,} with {len(class_names)} classes."
    try:
        return write_dataset(
            folder, name, VERSION, features, {split: examples(m) for split, m in splits.items()}, description
        )
    except OSError as error:
        raise UserError(f"cannot write the dataset into {folder}: {error.strerror or error}") from error


def grey_png(path: Path) -> bytes:
    """A mask's ids as a grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(decode_mask(path.read_bytes()).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
