"""Images with masks that hold a class for each pixel."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jaxformer.data.decoding import decode_mask
from jaxformer.errors import UserError
from jaxformer.files import BrokenFile
from jaxformer.importing.classes import check_given, read_names
from jaxformer.importing.contents import Contents, Example, Examples, random_share
from jaxformer.importing.images import Opened, as_png, open_all, open_image
from jaxformer.importing.sources import File, Sources, sorted_below, split_of_folders

IMAGE_FOLDERS = {"images", "image", "imgs", "img", "jpegimages"}
MASK_FOLDERS = {"masks", "mask", "labels", "annotations", "annot", "segmentation", "segmentationclass", "gt"}
SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_L", "_labelIds")  # of masks' names
CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt")
IGNORED = 255


@dataclass(frozen=True)
class Mask:
    """A mask that fits its image."""

    image: Opened
    """The image."""
    ids: frozenset[int]
    """The ids that the mask holds."""
    digest: bytes
    """SHA-256 of the mask's ids."""


def read_masks(sources: Sources, classes: Sequence[str] | None = None) -> Contents:
    """Reads a folder that holds the folders images and masks; or two folders, of images and of masks.

    A mask has its image's name, perhaps with a suffix such as "_mask", and is grey or has a palette: its values are
    class ids, 255 for none. Folders named train, validation (val), test tell the splits. Each example has `image`,
    `segmentation_mask` and `path`.

    Args:
      sources: one folder or two.
      classes: the names of the classes in the order of their ids, from 0 on; None reads them from classes.txt, one a
        line, in or beside the folders.
    """
    import tensorflow_datasets as tfds

    class_names = list(classes) if classes is not None else read_classes(sources.paths)
    check_given(class_names)
    if not 1 <= len(class_names) <= IGNORED:
        raise UserError(f"{sources.paths[0]}: has {len(class_names)} classes; there may be 1 to {IGNORED}")
    pairs = find_pairs(sources)
    opened = open_all(pairs, lambda pair: open_mask(*pair, len(class_names)), sources.broken)
    examples = []
    for (file, path), mask in opened:
        values = {
            "image": mask.image.stored,
            "segmentation_mask": partial(grey_png, path),
            "path": file.name,
        }
        examples.append(Example(values, file, digest=mask.image.digest, annotation=(mask.digest, mask.ids)))
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "segmentation_mask": tfds.features.LabeledImage(
            shape=(None, None, 1), labels=class_names, encoding_format="png"
        ),
        "path": tfds.features.Text(),
    }

    def check(train: Examples, source: Path) -> list[str]:
        return unseen_classes(frozenset().union(*(e.annotation[1] for e in train)), class_names, source)

    return Contents(features, examples, class_names, [], random_share, check)


def unseen_classes(ids: frozenset[int], class_names: Sequence[str], source: Path) -> list[str]:
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
            raise UserError(f"{path}: is no folder; give a folder, or one of images and one of masks")
    if len(more) > 1:
        raise UserError(
            f"{more[1]}: is one source too many; give a folder, or one of images and one of masks"
        )
    if more:
        images, masks = ({p: p.relative_to(folder) for p in sorted_below(folder)} for folder in sources.paths)
    else:
        images, masks = below(root, IMAGE_FOLDERS, MASK_FOLDERS), below(root, MASK_FOLDERS, IMAGE_FOLDERS)
    if not images or not masks:
        raise UserError(
            f"{root}: holds no {'masks' if images else 'images'}; expected folders images and masks in it, or give two "
            "folders: one of images, one of masks"
        )
    places = {(relative.parent, relative.stem): path for path, relative in masks.items()}
    pairs = []
    for path, relative in images.items():
        keys = [(relative.parent, relative.stem + suffix) for suffix in SUFFIXES]
        found = next((places[key] for key in keys if key in places), None)
        if found is None:
            sources.broken.append((path, "has no mask of its name"))
        else:
            name = relative.as_posix()
            pairs.append((File(path, name, split_of_folders(name)), found))
    used = {mask for _, mask in pairs}
    sources.broken.extend((path, "is a mask without an image") for path in masks if path not in used)
    return pairs


def below(root: Path, names: set[str], others: set[str]) -> dict[Path, Path]:
    """The images in folders of certain `names` that are not in one of the `others`, with their paths without it."""
    found = {}
    for path in sorted_below(root):
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


def open_mask(file: File, path: Path, num_classes: int) -> Mask:
    """Opens an image and its mask.

    Raises:
      BrokenFile: one of them cannot be used.
    """
    image = open_image(file.path)
    try:
        mask = decode_mask(path.read_bytes())
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenFile(path, f"not a readable mask ({error})") from error
    if mask.shape != image.size:
        sizes = f"{mask.shape[0]}x{mask.shape[1]}, its image {image.size[0]}x{image.size[1]}"
        raise BrokenFile(path, f"the mask is {sizes}")
    ids = np.unique(mask)
    unknown = np.setdiff1d(ids, [*range(num_classes), IGNORED])
    if unknown.size:
        shown = ", ".join(map(str, unknown[:5].tolist())) + (", ..." if unknown.size > 5 else "")
        classes = f"the classes 0 to {num_classes - 1}, and {IGNORED} for none"
        raise BrokenFile(path, f"has the ids {shown}; there are {classes}")
    return Mask(image, frozenset(ids.tolist()), hashlib.sha256(mask.astype(np.uint8).tobytes()).digest())


def grey_png(path: Path) -> bytes:
    """A mask's ids as a grey PNG."""
    return as_png(Image.fromarray(decode_mask(path.read_bytes()).astype(np.uint8)))
