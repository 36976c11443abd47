"""Datasets: which are there, what is in them, and a new one of a user's own files."""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxformer.config.fields import FOLDER, Constraint, at_most
from jaxformer.errors import UserError, counted
from jaxformer.importing.formats import FORMATS
from jaxformer.verbs.common import print_line, print_text
from jaxformer.verbs.options import Names, Verb, argument, flag, in_flags

if TYPE_CHECKING:
    from jaxformer.importing import Imported

OWN_IMAGES = "own_images"  # the config for images of a user's own
IMAGES, TEXTS = 64, 5  # examples that are shown
TWO = Constraint("two numbers, as in 1,4", lambda text: bool(re.fullmatch("[0-9]{1,9} *, *[0-9]{1,9}", text)))
MOST_LEFT_OUT = 20  # lines about what an import left out
OPTIONS = dict.fromkeys(name for format in FORMATS.values() for name in format.options)


@dataclass(frozen=True, kw_only=True)
class OfData(Verb):
    """A verb that looks for datasets."""

    data_dir: Annotated[str, FOLDER] | None = flag(None, "DIR")
    """The TFDS folder (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)."""


@dataclass(frozen=True, kw_only=True)
class DataList(OfData):
    """List the datasets that are prepared."""

    def __call__(self) -> None:
        from jaxformer.importing import dataset_table

        print_text(dataset_table(self.data_dir) + "\n")


@dataclass(frozen=True, kw_only=True)
class DataShow(OfData):
    """Show some examples: texts, or a contact sheet of images with their labels (PNG)."""

    name: str = argument("NAME")
    """A dataset: digits, cifar10, ..."""
    split: str = "train"
    """A TFDS split."""
    count: Annotated[int, at_most(10_000)] | None = None
    """How many (default: 64 images, 5 texts)."""
    output: Path | None = None
    """The file of the contact sheet (default: NAME.png)."""

    def __call__(self) -> None:
        from jaxformer.data import DataConfig
        from jaxformer.importing.show import contact_sheet, examples_as_text, with_examples

        config = DataConfig(name=self.name, data_dir=self.data_dir)
        of_images = with_examples(config)
        if of_images is not None:
            output = self.output or Path(f"{self.name.replace('/', '-')}.png")
            count = IMAGES if self.count is None else self.count
            print_line(str(contact_sheet(of_images, self.split, output, count)))
        elif self.output is not None:
            raise UserError(f"--output: {self.name} has no images to draw; leave it out, texts are printed")
        else:
            count = TEXTS if self.count is None else self.count
            print_text(examples_as_text(config, self.split, count) + "\n")


@dataclass(frozen=True, kw_only=True)
class DataImport(OfData):
    """Make a dataset of your own files; `data import KIND --help` shows the options of one kind of files alone."""

    kind: Literal[tuple(FORMATS)] = argument("KIND")  # type: ignore[valid-type]
    """What the files are; "detection" finds out whether they are coco, voc or yolo."""
    source: tuple[Path, ...] = argument("SOURCE")
    """images: one folder a class, or a CSV of path,label. detection: COCO's JSON, a folder of VOC's XML, or YOLO's
    data.yaml. segmentation: a folder with images, masks and classes.txt. image-text: a CSV or JSON Lines of path and
    caption, or COCO's JSON of captions. pairs: two files side by side, or one with
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
    columns: Annotated[str, TWO] | None = flag(None, "WORD,TAG")
    """conll: these columns, from 1 (default: the first and the last)."""
    answerable: bool = False
    """squad: leave out the questions that have no answer in their text (SQuAD 2.0)."""

    @classmethod
    def beside_the_point(cls, words: Sequence[str]) -> Collection[str]:
        """The options of other kinds of files than the one that is named."""
        kind = next((word for word in words if word in FORMATS), None)
        return () if kind is None else OPTIONS.keys() - set(FORMATS[kind].options)

    def __call__(self) -> None:
        from jaxformer.importing import import_dataset
        from jaxformer.reading import located

        options: dict[str, Any] = {name: getattr(self, name) or None for name in OPTIONS}
        options["columns"] = self.columns and tuple(map(int, self.columns.split(",")))
        options |= {"test_share": self.test_share, "skip_broken": self.skip_broken}
        made = import_dataset(self.kind, self.source, self.name, self.data_dir, **options)
        splits = ", ".join(f"{name}: {count:,}" for name, count in made.splits.items())
        count = len(made.class_names)
        lines = [f"{made.folder}: {splits}" + (f"; {counted(count, 'class', 'classes')}" if count else "")]
        if "image" not in made.features:
            lines.append(f"data.name={made.name!r} has the features {', '.join(made.features)}")
        left_out = [located(path, reason) for path, reason in made.broken[:MOST_LEFT_OUT]]
        if more := made.broken[MOST_LEFT_OUT:]:
            left_out.append(f"{len(more):,} more")
        if copies := len(made.duplicates):
            left_out.append(f"{counted(copies, 'copy', 'copies')} of other images")
        lines += [in_flags(type(self), note) for note in made.notes]
        lines += [*(f"left out: {what}" for what in left_out), *self.next_step(made)]
        for line in lines:
            print_line(line)

    def next_step(self, made: "Imported") -> Iterator[str]:
        """Yields the command that trains on images with labels, and how it sees them."""
        if not {"image", "label"} <= set(made.features):
            return
        from jaxformer.config.files import read

        config = read(OWN_IMAGES)
        side = config["data"]["eval_transforms"][0]["size"]
        (mean,), (std,) = config["task"]["mean"], config["task"]["std"]
        yield f"to train on them, at {side}x{side} pixels, with the mean {mean:g} and the deviation {std:g}:"
        words = ["jaxformer", "train", "--config", OWN_IMAGES, f"--config.data.name={made.name}"]
        words += [f"--config.data.data_dir={self.data_dir}"] if self.data_dir else []
        words += [] if "test" in made.splits else [f"--config.eval.split={list(made.splits)[-1]}"]
        yield f"  {shlex.join([*words, '--workdir', f'runs/{made.name}'])}"
