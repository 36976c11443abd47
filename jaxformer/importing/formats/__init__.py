"""The formats of files that can be imported: one row for each, without importing any of them.

A format is a function that takes `sources.Sources` and its own options as keyword arguments, and returns
`contents.Contents`: features, examples, classes. What cannot be used, and can be left out, goes to `sources.broken`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A row of the table."""

    read: str
    """The function, as "package.module:function"."""
    options: tuple[str, ...] = ()
    """The keyword arguments of the function that the user may give."""
    extensions: frozenset[str] = frozenset()
    """The extensions of the files that `Sources.files` takes from folders; an empty set takes all files."""
    test_share: float = 0.2
    """The share that is held out if the files have no splits and the user names no share."""
    has_boxes: bool = False
    """Whether its module also has `find`, which finds files of annotations; the format "detection" goes by that."""


def _row(name: str, *options: str, extensions: str = "", **fields) -> tuple[str, Format]:
    """The row of a format whose module has its name."""
    read = f"jaxformer.importing.formats.{name}:read"
    return name, Format(read, options, frozenset(extensions.split()), **fields)


TABLE_OPTIONS = ("label", "regression", "text", "classes")
CONLL = ".conll .txt .tsv .bio .iob .iob2 .train .dev .test .testa .testb"

FORMATS = dict(
    [
        _row("images"),
        _row("detection"),
        _row("coco", has_boxes=True),
        _row("voc", has_boxes=True),
        _row("yolo", has_boxes=True),
        _row("segmentation", "classes"),
        ("image-text", Format("jaxformer.importing.formats.image_text:read")),
        _row("text", "unit", extensions=".txt .text .md", test_share=0.1),
        _row("csv", *TABLE_OPTIONS, extensions=".csv .tsv"),
        _row("jsonl", *TABLE_OPTIONS, extensions=".jsonl .ndjson"),
        _row("parquet", *TABLE_OPTIONS, extensions=".parquet .arrow"),
        _row("pairs"),
        _row("conll", "columns", "classes", extensions=CONLL),
        _row("squad", "answerable", extensions=".json"),
    ]
)
