"""A dataset of a user's own files."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from jaxformer.config.fields import length
from jaxformer.errors import UserError
from jaxformer.verbs.data_list import OfData
from jaxformer.verbs.options import COMMAS, Names, argument, flag

MOST_LEFT_OUT = 20  # lines about what an import left out
OPTIONS = ("unit", "label", "regression", "text", "classes", "columns")  # of some kinds of files alone


@dataclass(frozen=True, kw_only=True)
class DataImport(OfData):
    """Make a dataset of your own files."""

    kind: Literal[
        "images", "detection", "segmentation", "text", "csv", "jsonl", "pairs", "conll", "squad"
    ] = argument("KIND")
    """What the files are: images, detection, segmentation, text, csv (commas between columns, and a header line),
    jsonl, pairs, conll or squad."""
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
        from jaxformer.data.annotated.boxes import ImportedAnnotations
        from jaxformer.data.text.formats import located
        from jaxformer.data.text.importing import ImportedText

        made = self.imported()
        splits = ", ".join(f"{name}: {count:,}" for name, count in made.splits.items())
        count = len(made.class_names)
        classes = f"; {count} class{'' if count == 1 else 'es'}" if count else ""
        lines = [f"{made.folder}: {splits}{classes}"]
        if isinstance(made, ImportedText):
            lines.append(f"data.name={made.name!r} has the features {', '.join(made.features)}")
        if isinstance(made, (ImportedText, ImportedAnnotations)):
            lines += made.notes
        lines += [f"left out: {located(path, reason)}" for path, reason in made.broken[:MOST_LEFT_OUT]]
        if len(made.broken) > MOST_LEFT_OUT:
            lines.append(f"left out: {len(made.broken) - MOST_LEFT_OUT:,} more")
        if made.duplicates:
            copies = "1 copy" if len(made.duplicates) == 1 else f"{len(made.duplicates):,} copies"
            lines.append(f"left out: {copies} of other images")
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return 0

    def imported(self) -> Any:
        """The dataset that was made.

        Raises:
          UserError: an option is of another kind of files, or the files cannot be used.
        """
        from jaxformer.data.annotated.boxes import import_detection
        from jaxformer.data.annotated.masks import import_segmentation
        from jaxformer.data.importing import import_images
        from jaxformer.data.text.importing import FORMATS, given_options, import_text, make_format

        options = {name: getattr(self, name) or None for name in OPTIONS}
        common: dict[str, Any] = {
            "name": self.name,
            "data_dir": self.data_dir,
            "skip_broken": self.skip_broken,
        }
        if self.test_share is not None:
            common["test_share"] = self.test_share
        if self.kind not in FORMATS:
            given_options(self.kind, options)
        if self.kind == "segmentation":
            return import_segmentation(self.source, classes=self.classes, **common)
        if self.kind == "detection":
            return import_detection(self.source, **common)
        if self.kind != "images":
            return import_text(self.source, format=make_format(self.kind, options), **common)
        if len(self.source) > 1:
            raise UserError(f"{self.source[1]}: is one source too many; images come from one folder or CSV")
        return import_images(self.source[0], **common)
