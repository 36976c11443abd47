"""What `jaxformer data list` and `jaxformer data show` put before people."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxformer.data.catalog import data_folder, find_dataset, find_datasets, open_builder
from jaxformer.data.config import DataConfig
from jaxformer.data.digits import NAME as DIGITS
from jaxformer.data.examples import Detection, Segmentation
from jaxformer.data.making import readable, transformed
from jaxformer.data.sources import Source, open_source
from jaxformer.errors import UserError

CELL = 96  # pixels of a picture on a contact sheet
LABEL = 18  # pixels of the line under it
GAP = 8
COLUMNS = 10


@dataclass(frozen=True)
class DatasetRow:
    """A prepared dataset, as it describes itself."""

    name: str
    """For `data.name`."""
    version: str
    """For `data.version`."""
    splits: dict[str, int]
    """Examples by split."""
    size: int
    """Bytes of its files."""
    features: dict[str, str]
    """Features by name, as TFDS writes them: "Image(shape=(32, 32, 3), dtype=uint8)"."""
    problem: str | None
    """Why it cannot be read, or None."""


def list_datasets(data_dir: str | None = None) -> list[DatasetRow]:
    """The datasets that are prepared, by name and version.

    Args:
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    rows = []
    for dataset in find_datasets(data_folder(data_dir)[0]):
        try:
            info = open_builder(dataset).info
        except UserError as error:
            rows.append(DatasetRow(dataset.name, dataset.version, {}, 0, {}, error.lines[0]))
            continue
        splits = {name: split.num_examples for name, split in info.splits.items()}
        features = {name: repr(feature) for name, feature in info.features.items()}
        file_format = info.file_format.value
        problem = None if file_format == "array_record" else f"stored as {file_format}, needs TensorFlow"
        rows.append(
            DatasetRow(dataset.name, dataset.version, splits, int(info.dataset_size), features, problem)
        )
    return rows


def dataset_table(data_dir: str | None = None) -> str:
    """The same as a table for people, with where it was looked for."""
    rows = list_datasets(data_dir)
    cells = [("name", "version", "examples", "size", "features")]
    for row in rows:
        splits = ", ".join(f"{split} {count:,}" for split, count in row.splits.items())
        features = ", ".join(f"{name} {short(feature)}" for name, feature in row.features.items())
        cells.append((row.name, row.version, splits, data_size(row.size), row.problem or features))
    if not any(row.name == DIGITS for row in rows):
        cells.append((DIGITS, "1.0.0", "train 1,438, test 359", "", "embedded: prepared on first use"))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = ["  ".join([c.ljust(w) for c, w in zip(line, widths)] + [line[4]]).rstrip() for line in cells]
    folder, reason = data_folder(data_dir)
    return "\n".join([f"{folder} ({reason})", *lines])


def data_size(size: int) -> str:
    """Bytes in powers of 1024: "12 B", "3.4 KiB", "162.2 MiB"."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} B"


def short(feature: str) -> str:
    """A feature in few words: "Image 32x32x3", "ClassLabel of 10"."""
    kind, _, arguments = " ".join(feature.split()).partition("(")
    if kind == "Image" and "shape=(" in arguments:
        shape = arguments.split("shape=(")[1].split(")")[0]
        return "Image " + "x".join("?" if side == "None" else side for side in shape.split(", "))
    if kind == "ClassLabel" and "num_classes=" in arguments:
        return f"ClassLabel of {arguments.split('num_classes=')[1].rstrip(')')}"
    return kind


def contact_sheet(
    config: DataConfig,
    split: str,
    path: str | Path,
    count: int = 64,
    views: int = 0,
    seed: int = 0,
) -> Path:
    """Draws pictures of a split, with their labels under them, into a PNG.

    Args:
      config: the data config.
      split: a split, with TFDS's slices if wanted.
      path: the file to write.
      count: how many pictures; they are taken at even distances from the whole split.
      views: how many times each picture is shown again after `config.transforms`, to the right of itself.
      seed: of the transforms.

    Returns:
      The file.

    Raises:
      UserError: the dataset cannot be read, or the file not written.
    """
    if count < 1:
        raise UserError(f"count {count}: must be at least 1")
    if config.examples.text:
        raise UserError(f"data.examples: {type(config.examples).__name__.lower()!r} have no pictures to draw")
    source = open_source(config, split)
    assert isinstance(source, Source)
    indices = [int(index) for index in np.linspace(0, len(source) - 1, min(count, len(source))).round()]
    cells = [
        (image, caption)
        for index in indices
        for image, caption in pictures(source, index, config, views, seed)
    ]
    columns = (1 + views) * max(1, COLUMNS // (1 + views))  # an example's views stay in one row
    sheet = draw(cells, min(columns, len(cells)))
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, format="PNG")
    except OSError as error:
        raise UserError(f"{path}: cannot write the contact sheet: {error.strerror or error}") from error
    return path


def with_examples(config: DataConfig) -> DataConfig:
    """The config with the kind of examples that a dataset of pictures seems made for.

    Raises:
      UserError: the dataset is not there.
    """
    import tensorflow_datasets as tfds

    features = dict(open_builder(find_dataset(config)).info.features.items())
    masks = [name for name, f in features.items() if isinstance(f, tfds.features.LabeledImage)]
    if "label" not in features and masks:
        none = () if (features[masks[0]].num_classes or 0) > 255 else (255,)
        return replace(config, examples=Segmentation(size=CELL, mask_feature=masks[0], ignore_labels=none))
    if "label" not in features and "objects" in features:
        return replace(config, examples=Detection(size=CELL))
    return config


def pictures(
    source: Source, index: int, config: DataConfig, views: int, seed: int
) -> list[tuple[np.ndarray, str]]:
    """An example as it is, and `views` times transformed, with captions; boxes and masks are drawn into it."""
    example = readable(source, index)
    shown = [(annotated(example), in_words(example, source.class_names))]
    for view in range(views):
        rng = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, view, index]))
        changed = transformed(example, config.transforms, rng, source, index)
        shown.append((annotated(changed), f"view {view + 1}"))
    return shown


def in_words(example: Mapping[str, Any], names: list[str] | None) -> str:
    """The class of a picture; of one with many, how many objects or classes there are."""
    if "boxes" in example:
        count = len(example["boxes"])
        return f"{count} object{'' if count == 1 else 's'}"
    if "segmentation" in example:
        return f"{len(np.unique(example['segmentation'][example['segmentation'] >= 0]))} classes"
    label = int(example["labels"])
    return names[label] if names and 0 <= label < len(names) else str(label)


def annotated(example: Mapping[str, Any]) -> np.ndarray:
    """The picture with boxes in its classes' colours, or under a veil of them; uint8 [H, W, C]."""
    image = np.ascontiguousarray(example["image"])
    if "segmentation" in example:
        classes = example["segmentation"]
        veiled = (image * 0.4 + 0.6 * palette()[classes % len(palette())]).astype(np.uint8)
        return np.where((classes >= 0)[:, :, None], veiled, image)
    if "boxes" in example:
        image = image.copy()
        width = max(1, max(image.shape) // 100)
        for box, label in zip(example["boxes"].round().astype(int).tolist(), example["labels"].tolist()):
            colour = palette()[label % len(palette())].tolist()
            cv2.rectangle(image, (box[0], box[1]), (box[2] - 1, box[3] - 1), colour, width)
    return image


@cache
def palette() -> np.ndarray:
    """uint8 [20, 3]: Matplotlib's colours for classes, the strong ones first."""
    return (
        (matplotlib.colormaps["tab20"]([*range(0, 20, 2), *range(1, 20, 2)])[:, :3] * 255)
        .round()
        .astype(np.uint8)
    )


def draw(cells: list[tuple[np.ndarray, str]], columns: int) -> Image.Image:
    """Pictures uint8 [H, W, C] with captions, in rows, on white."""
    rows = -(-len(cells) // columns)
    width, height = columns * (CELL + GAP) + GAP, rows * (CELL + LABEL + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, face = ImageDraw.Draw(sheet), font(12)
    for place, (image, caption) in enumerate(cells):
        row, column = divmod(place, columns)
        left, top = GAP + column * (CELL + GAP), GAP + row * (CELL + LABEL + GAP)
        picture = Image.fromarray(fit(image))
        sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
        while caption and pen.textlength(caption, face) > CELL + GAP // 2:
            caption = caption.removesuffix("…")[:-1] + "…"
        pen.text((left + CELL / 2, top + CELL + 1), caption, fill="black", font=face, anchor="ma")
    return sheet


def fit(image: np.ndarray) -> np.ndarray:
    """Scales a picture to fill a cell, keeping its aspect ratio; small pixels stay sharp squares."""
    scale = CELL / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB) if resized.ndim == 2 else resized


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib and has more than Latin letters."""
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )
