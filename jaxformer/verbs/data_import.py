"""A dataset of a user's own files."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxformer.config.fields import length
from jaxformer.importing.formats import FORMATS
from jaxformer.verbs.data_list import OfData
from jaxformer.verbs.options import COMMAS, Names, argument, flag

MOST_LEFT_OUT = 20  # lines about what an import left out
OPTIONS = ("unit", "label", "regression", "text", "classes", "columns")  # of some kinds of files alone


@dataclass(frozen=True, kw_only=True)
class DataImport(OfData):
    """Make a dataset of your own files."""

    kind: Literal[tuple(FORMATS)] = argument("KIND")  # type: ignore[valid-type]
    """What the files are; "detection" finds out whether they are coco, voc or yolo."""
    source: tuple[Path, ...] = argument("SOURCE")
    """images: one folder a class, or a CSV of path,label. detection: COCO's JSON, a folder of VOC's XML, or YOLO's
    data.yaml. segmentation: a folder with images, masks and classes.txt. pairs: two files side by side, or one with
    tabs. Others: files, or folders of them. Files or folders named train, validation (val, dev) or test are these
    splits."""
    name: str
    """The dataset's name, for data.name in configs."""
    test_share: float | None = flag(None, "SHARE")
    """What is held out if there are no splits: at random (default: 0.2), or a text's tail (0.1)."""
    skip_broken: bool = False
    """Leave out what cannot be used instead of stopping."""
    unit: Literal["file", "paragraph", "line"] | None = None
    """text: what an example is (default: file)."""
    label: str | None = flag(None, "COLUMN")
    """csv, jsonl: what is to be predicted."""
    regression: bool = False
    """csv, jsonl: the label is a number, not a class."""
    text: Names | None = flag(None, "COLUMN,...")
    """csv, jsonl: the texts to keep (default: all)."""
    classes: Names | None = flag(None, "A,B,...")
    """csv, jsonl, conll, segmentation: all classes, in their order."""
    columns: Annotated[tuple[int, ...], COMMAS, length(2, expected="two numbers, as in 1,4")] | None = flag(
        None, "WORD,TAG"
    )
    """conll: these columns, from 1 (default: the first and the last)."""

    def __call__(self) -> int:
        from jaxformer.files import located
        from jaxformer.importing import import_dataset

        options = {name: getattr(self, name) or None for name in OPTIONS}
        made = import_dataset(
            self.kind, self.source, self.name, self.data_dir, self.test_share, self.skip_broken, **options
        )
        splits = ", ".join(f"{name}: {count:,}" for name, count in made.splits.items())
        count = len(made.class_names)
        classes = f"; {count} class{'' if count == 1 else 'es'}" if count else ""
        lines = [f"{made.folder}: {splits}{classes}"]
        if "image" not in made.features:
            lines.append(f"data.name={made.name!r} has the features {', '.join(made.features)}")
        lines += made.notes
        lines += [f"left out: {located(path, reason)}" for path, reason in made.broken[:MOST_LEFT_OUT]]
        if len(made.broken) > MOST_LEFT_OUT:
            lines.append(f"left out: {len(made.broken) - MOST_LEFT_OUT:,} more")
        if made.duplicates:
            copies = "1 copy" if len(made.duplicates) == 1 else f"{len(made.duplicates):,} copies"
            lines.append(f"left out: {copies} of other images")
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return 0
