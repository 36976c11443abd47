"""The formats of files that can be imported: one row for each, without importing any of them.

A format is a function that takes `sources.Sources` and its own options as keyword arguments, and returns
`contents.Contents`: features, examples, classes. What cannot be used, and can be left out, goes to `sources.broken`.
"""

from dataclasses import dataclass

TEXT_FILES = "files, or folders of them"


@dataclass(frozen=True)
class Format:
    """A row of the table."""

    read: str
    """The function, as "package.module:function"."""
    sources: str
    """What the user gives, in words."""
    options: tuple[str, ...] = ()
    """The keyword arguments of the function that the user may give."""
    extensions: frozenset[str] = frozenset()
    """The files that `Sources.files` takes from folders; none: all files."""
    test_share: float = 0.2
    """What is held out if the files have no splits and nobody says how much."""
    has_boxes: bool = False
    """Whether its module also has `find`, which finds files of annotations; the format "detection" goes by that."""


def _row(
    name: str, sources: str = TEXT_FILES, *options: str, extensions: str = "", **fields
) -> tuple[str, Format]:
    """The row of a format whose module has its name."""
    read = f"jaxformer.importing.formats.{name}:read"
    return name, Format(read, sources, options, frozenset(extensions.split()), **fields)


TABLE_OPTIONS = ("label", "regression", "text", "classes")
CONLL = ".conll .txt .tsv .bio .iob .iob2 .train .dev .test .testa .testb"
MASKS = "a folder with images, masks and classes.txt; or two folders, one of images and one of masks"

FORMATS = dict(
    [
        _row("images", "one folder a class, or a CSV of path,label"),
        _row("detection", "what coco, voc or yolo take"),
        _row("coco", "JSON files of COCO, or a folder with them", has_boxes=True),
        _row("voc", "a folder of Pascal VOC's XML files", has_boxes=True),
        _row("yolo", "YOLO's data.yaml or classes.txt, or a folder with one", has_boxes=True),
        _row("segmentation", MASKS, "classes"),
        _row("text", TEXT_FILES, "unit", extensions=".txt .text .md", test_share=0.1),
        _row("csv", TEXT_FILES, *TABLE_OPTIONS, extensions=".csv"),
        _row("jsonl", TEXT_FILES, *TABLE_OPTIONS, extensions=".jsonl .ndjson"),
        _row("pairs", "two files side by side, one with tabs, or folders of them"),
        _row("conll", TEXT_FILES, "columns", "classes", extensions=CONLL),
        _row("squad", extensions=".json"),
    ]
)
