"""What `jaxformer data list` and `jaxformer data show` print and draw."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from jaxformer.data.base import Source, open_source
from jaxformer.data.catalog import EMBEDDED, Prepared, data_folder, find_dataset, find_datasets, open_builder
from jaxformer.data.collate import readable, transformed
from jaxformer.data.config import DataConfig
from jaxformer.data.kinds.detection import Detection
from jaxformer.data.kinds.segmentation import Segmentation
from jaxformer.data.records import Records, class_names, inner
from jaxformer.drawing import SIZE, draw_boxes, font, over_image, shorten
from jaxformer.errors import UserError, counted
from jaxformer.files import incomplete, put_in_place, writing_to
from jaxformer.observe.text import data_size, table

CELL = 96  # pixels of an image on a contact sheet
LABEL = 18  # pixels of the line under it
GAP = 8
COLUMNS = 10
LONGEST = 1000  # characters of a text that are shown


def dataset_table(data_dir: str | None = None) -> str:
    """The prepared datasets as a table for people, below the folder in which they are.

    Args:
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    folder, reason = data_folder(data_dir)
    rows = [described(dataset) for dataset in find_datasets(folder)]
    there = [name for name, *_ in rows]
    for name, (version, splits, _) in EMBEDDED.items():
        if name not in there:
            rows.append((name, version, of_splits(splits), "", "embedded: prepared on first use"))
    return f"{folder} ({reason})\n{table(('name', 'version', 'examples', 'size', 'features'), rows)}"


def of_splits(splits: Mapping[str, int]) -> str:
    """Splits in words: "train 1,438, test 359"."""
    return ", ".join(f"{name} {count:,}" for name, count in splits.items())


def described(dataset: Prepared) -> tuple[str, str, str, str, str]:
    """The row of a dataset: its name, version, examples by split, size and features, or why it cannot be read."""
    try:
        info = open_builder(dataset).info
    except UserError as error:
        return dataset.name, dataset.version, "", data_size(0), error.lines[0]
    splits = of_splits({name: split.num_examples for name, split in info.splits.items()})
    features = ", ".join(f"{name} {short(feature)}" for name, feature in info.features.items())
    if (stored := info.file_format.value) != "array_record":
        features = f"stored as {stored}, needs TensorFlow"
    return dataset.name, dataset.version, splits, data_size(int(info.dataset_size)), features


def short(feature: Any) -> str:
    """A TFDS feature in few words: "Image 32x32x3", "ClassLabel of 10"."""
    kind = type(feature).__name__
    if kind == "Image":
        return f"Image {'x'.join('?' if side is None else str(side) for side in feature.shape)}"
    return f"{kind} of {feature.num_classes}" if kind == "ClassLabel" else kind


def with_examples(config: DataConfig) -> DataConfig | None:
    """The config with the kind of examples that a dataset of images seems made for; None if it has no images.

    Raises:
      UserError: the dataset is not there.
    """
    import tensorflow_datasets as tfds

    features = dict(open_builder(find_dataset(config)).info.features.items())
    if not any(isinstance(feature, tfds.features.Image) for feature in features.values()):
        return None
    masks = [name for name, f in features.items() if isinstance(f, tfds.features.LabeledImage)]
    if "label" not in features and masks:
        none = () if (features[masks[0]].num_classes or 0) > 255 else (255,)
        return replace(config, examples=Segmentation(size=CELL, mask_feature=masks[0], ignore_labels=none))
    if "label" not in features and "objects" in features:
        return replace(config, examples=Detection(size=CELL))
    return config


def evenly(length: int, count: int) -> list[int]:
    """At most `count` indices at even distances, the first and the last among them.

    Raises:
      UserError: the count is 0 or less.
    """
    if count < 1:
        raise UserError(f"`count` {count}: must be at least 1")
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


def contact_sheet(
    config: DataConfig, split: str, path: str | Path, count: int = 64, views: int = 0, seed: int = 0
) -> Path:
    """Draws images of a split, with their labels under them, into a PNG.

    Args:
      config: the data config.
      split: a split, with TFDS's slices if wanted.
      path: the file to write.
      count: how many images; they are taken at even distances from the whole split.
      views: how many times each image is shown again after `config.transforms`, to the right of itself.
      seed: the seed of the transforms.

    Returns:
      The file.

    Raises:
      UserError: the dataset cannot be read, or the file not written.
    """
    if config.examples.modality == "text":
        raise UserError(f"data.examples: {type(config.examples).__name__.lower()!r} have no images to draw")
    source = open_source(config, split)
    assert isinstance(source, Source)
    cells = []
    for index in evenly(len(source), count):
        example = readable(source, index)
        cells.append((drawn(example), in_words(example, source.class_names)))
        for view in range(views):
            rng = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, view, index]))
            changed = transformed(example, config.transforms, rng, partial(source.where, index), source)
            cells.append((drawn(changed), f"view {view + 1}"))
    columns = (1 + views) * max(1, COLUMNS // (1 + views))  # an example's views stay in one row
    path = Path(path)
    with writing_to(path, "name another file with `output`"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with incomplete(path) as hidden:
            sheet_of(cells, min(columns, len(cells))).save(hidden, format="PNG")
            put_in_place(hidden, path)
    return path


def in_words(example: Mapping[str, Any], names: list[str] | None) -> str:
    """The class of an image; of one with many, how many objects or classes there are."""
    if "boxes" in example:
        return counted(len(example["boxes"]), "object")
    if "segmentation" in example:
        classes = np.unique(example["segmentation"])
        return counted(int((classes >= 0).sum()), "class", "classes")
    label = int(example["labels"])
    return names[label] if names and 0 <= label < len(names) else str(label)


def drawn(example: Mapping[str, Any]) -> Image.Image:
    """The image as it fills a cell: with boxes in its classes' colours, or under them; small pixels stay sharp."""
    image = np.broadcast_to(example["image"], (*example["image"].shape[:2], 3))
    if "boxes" in example:
        pairs = zip(example["boxes"].tolist(), example["labels"].tolist())
        objects = [{"label": "", "index": label, "box": box} for box, label in pairs]
        return Image.fromarray(draw_boxes(image, objects, CELL, font(SIZE)))
    if "segmentation" in example:
        image = over_image(image, example["segmentation"])
    scale = CELL / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    return Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method)


def sheet_of(cells: list[tuple[Image.Image, str]], columns: int) -> Image.Image:
    """Images with captions, in rows, on white."""
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (CELL + GAP) + GAP, rows * (CELL + LABEL + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (image, caption) in enumerate(cells):
        row, column = divmod(place, columns)
        left, top = GAP + column * (CELL + GAP), GAP + row * (CELL + LABEL + GAP)
        sheet.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
        below = (left + CELL / 2, top + CELL + 1)
        pen.text(below, shorten(caption, CELL + GAP // 2), fill="black", font=font(SIZE), anchor="ma")
    return sheet


def examples_as_text(config: DataConfig, split: str, count: int) -> str:
    """Some examples of a split, at even distances from the whole of it: a line a feature, an empty line between.

    Raises:
      UserError: the dataset or the split cannot be read.
    """
    records = Records(config, split)
    shown = []
    for index in evenly(len(records), count):
        record = records.read([index])[0]
        lines = [f"  {name}: {value_of(records, record[name], name)}" for name in sorted(record)]
        shown.append("\n".join([f"{records.name}, {split}, index {index}", *lines]))
    return "\n\n".join(shown)


def value_of(records: Records, value: Any, name: str) -> str:
    """A feature's value of one example: texts as they are, classes by their names."""
    feature = dict(records.features.items()).get(name)
    numbers = [*value.int64_list.value, *value.float_list.value]
    names, _ = class_names(inner(feature) or feature)
    if names is not None:
        shown = [names[number] if 0 <= number < len(names) else str(number) for number in numbers]
    else:
        shown = [f"{number:g}" if isinstance(number, float) else str(number) for number in numbers]
    text = " ".join([*(part.decode("utf-8", "replace") for part in value.bytes_list.value), *shown])
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    return text.strip("\n").replace("\n", "\n    ")
