"""Images with masks that hold a class for each pixel."""

import hashlib
from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxformer.data.decoding import decode_mask
from jaxformer.errors import UserError
from jaxformer.importing.contents import Contents, Example, random_share, read_names
from jaxformer.importing.images import as_png, open_all, open_image
from jaxformer.importing.sources import File, Sources, find_all, split_of_folders
from jaxformer.reading import BrokenFile, regular

IMAGE_FOLDERS = {"images", "image", "imgs", "img", "jpegimages"}
MASK_FOLDERS = {"masks", "mask", "labels", "annotations", "annot", "segmentation", "segmentationclass", "gt"}
SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_L", "_labelIds")  # of masks' names
CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt")
IGNORED = 255
EXPECTED = "give a folder, or one of images and one of masks"


def read(sources: Sources, classes: Sequence[str] | None = None) -> Contents:
    """Reads a folder that holds the folders images and masks; or two folders, of images and of masks.

    A mask has its image's name, perhaps with a suffix such as "_mask", and is grey or has a palette: its values are
    class ids, 255 for none. Folders named train, validation (val), test tell the splits. Each example has `image`,
    `segmentation_mask` and `path`.

    Args:
      sources: one folder or two.
      classes: the names of the classes in the order of their ids, from 0 on; None reads them from classes.txt, one a
        line, in or beside the folders.
    """
    class_names = list(classes or read_classes(sources.paths))
    if len(class_names) > IGNORED:
        raise UserError(f"{sources.paths[0]}: has {len(class_names)} classes; there may be 1 to {IGNORED}")
    examples = open_all(find_pairs(sources), lambda pair: example_of(*pair, len(class_names)), sources)
    image, shape = tfds.features.Image(shape=(None, None, 3)), (None, None, 1)
    mask = tfds.features.LabeledImage(shape=shape, labels=class_names, encoding_format="png")
    features = {"image": image, "segmentation_mask": mask, "path": tfds.features.Text()}
    return Contents(features, examples, class_names, [], random_share, enough_in_train)


def enough_in_train(class_names: list[str], ids: Set[Any], source: Path) -> list[str]:
    """A note if classes are in no mask for training.

    Raises:
      UserError: there is one class at most, and there should be more.
    """
    unseen = [name for label, name in enumerate(class_names) if label not in ids]
    if unseen and len(unseen) >= len(class_names) - 1:
        binary = f", which means none; write 1 for {class_names[1]}" if ids == {0, IGNORED} else ""
        raise UserError(
            f"{source}: the masks in train hold nothing but {' and '.join(map(str, sorted(ids)))}{binary}",
            f"no pixel is of the class {', '.join(unseen)}, so that there is nothing to tell apart",
        )
    return [f"no pixel in train is of the class {', '.join(unseen)}"] if unseen else []


def find_pairs(sources: Sources) -> list[tuple[File, Path]]:
    """Images and their masks; those without go to `sources.broken`."""
    root, *more = sources.paths
    for path in sources.paths:
        if not path.is_dir():
            raise UserError(f"{path}: is no folder; {EXPECTED}")
    if len(more) > 1:
        raise UserError(f"{more[1]}: is one source too many; {EXPECTED}")
    if more:
        images, masks = ({p: p.relative_to(folder) for p in find_all(folder)} for folder in sources.paths)
    else:
        images, masks = below(root, IMAGE_FOLDERS, MASK_FOLDERS), below(root, MASK_FOLDERS, IMAGE_FOLDERS)
    if not images or not masks:
        remedy = "expected folders images and masks in it, or give two folders: one of images, one of masks"
        raise UserError(f"{root}: holds no {'masks' if images else 'images'}; {remedy}")
    places = {(relative.parent, relative.stem): path for path, relative in masks.items()}
    pairs = []
    for path, relative in images.items():
        keys = [(relative.parent, relative.stem + suffix) for suffix in SUFFIXES]
        found = next((places[key] for key in keys if key in places), None)
        name = relative.as_posix()
        if found is None:
            sources.broken.append((path, "has no mask of its name"))
        else:
            pairs.append((File(path, name, split_of_folders(name)), found))
    used = {mask for _, mask in pairs}
    sources.broken.extend((path, "is a mask without an image") for path in masks if path not in used)
    return pairs


def below(root: Path, names: set[str], others: set[str]) -> dict[Path, Path]:
    """The images in folders of certain `names` that are not in one of the `others`, with their paths without it."""
    found = {}
    for path in find_all(root):
        parts = path.relative_to(root).parts
        place = next((n for n, part in enumerate(parts[:-1]) if part.lower() in names | others), None)
        if place is not None and parts[place].lower() in names:
            found[path] = Path(*parts[:place], *parts[place + 1 :])
    return found


def read_classes(paths: Sequence[Path]) -> list[str]:
    """The names of the classes, from a file in the folders or above them."""
    folders = [*paths, *(path.parent for path in paths if len(paths) > 1)]
    file = next((f / name for f in folders for name in CLASS_FILES if (f / name).is_file()), None)
    if file is None:
        raise UserError(
            f"{paths[0]}: holds no classes.txt; write the classes' names into it, one a line, in the order of their "
            "ids from 0 on, or give them with `classes`"
        )
    return read_names(file)


def example_of(file: File, path: Path, num_classes: int) -> Example:
    """An image and its mask, both opened; its classes are the ids that the mask holds.

    Raises:
      BrokenFile: one of them cannot be used.
    """
    image = open_image(file.path)
    try:
        mask = decode_mask(regular(path).read_bytes(), upright=True)
    except (OSError, ValueError) as error:
        raise BrokenFile(path, f"not a readable mask ({error})") from error
    if mask.shape != image.size:
        height, width = image.size
        raise BrokenFile(path, f"the mask is {mask.shape[0]}x{mask.shape[1]}, its image {height}x{width}")
    ids = np.unique(mask)
    unknown = np.setdiff1d(ids, [*range(num_classes), IGNORED])
    if unknown.size:
        shown = ", ".join(map(str, unknown[:5].tolist())) + (", ..." if unknown.size > 5 else "")
        known = f"the classes 0 to {num_classes - 1}, and {IGNORED} for none"
        raise BrokenFile(path, f"has the ids {shown}; there are {known}")
    values = {"image": image.stored, "segmentation_mask": partial(grey_png, path), "path": file.name}
    digest = hashlib.sha256(mask.astype(np.uint8).tobytes()).digest()
    there = frozenset(ids.tolist())
    return Example(values, file, classes=there, image=image, annotation=digest)


def grey_png(path: Path) -> bytes:
    """A mask's ids as a grey PNG."""
    return as_png(decode_mask(path.read_bytes(), upright=True).astype(np.uint8))
