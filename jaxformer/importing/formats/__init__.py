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
    find: str | None = None
    """Finds the format's files of annotations ("package.module:function"); the format "detection" goes by it."""


def _format(module: str, function: str, sources: str = TEXT_FILES, *options: str, **fields) -> Format:
    return Format(f"jaxformer.importing.formats.{module}:{function}", sources, options, **fields)


def _boxes(name: str, sources: str) -> Format:
    return _format(name, f"read_{name}", sources, find=f"jaxformer.importing.formats.{name}:find")


TABLE_OPTIONS = ("label", "regression", "text", "classes")
CONLL = ".conll .txt .tsv .bio .iob .iob2 .train .dev .test .testa .testb"

FORMATS: dict[str, Format] = {
    "images": _format("images", "read_images", "one folder a class, or a CSV of path,label"),
    "detection": _format("detection", "read_detection", "what coco, voc or yolo take"),
    "coco": _boxes("coco", "JSON files of COCO, or a folder with them"),
    "voc": _boxes("voc", "a folder of Pascal VOC's XML files"),
    "yolo": _boxes("yolo", "YOLO's data.yaml or classes.txt, or a folder with one"),
    "segmentation": _format(
        "masks", "read_masks", "a folder with images, masks and classes.txt; or two folders", "classes"
    ),
    "text": _format(
        "text",
        "read_texts",
        TEXT_FILES,
        "unit",
        extensions=frozenset({".txt", ".text", ".md"}),
        test_share=0.1,
    ),
    "csv": _format("csv", "read_csv", TEXT_FILES, *TABLE_OPTIONS, extensions=frozenset({".csv"})),
    "jsonl": _format(
        "jsonl", "read_jsonl", TEXT_FILES, *TABLE_OPTIONS, extensions=frozenset({".jsonl", ".ndjson"})
    ),
    "pairs": _format("pairs", "read_pairs", "two files side by side, one with tabs, or folders of them"),
    "conll": _format(
        "conll", "read_conll", TEXT_FILES, "columns", "classes", extensions=frozenset(CONLL.split())
    ),
    "squad": _format("squad", "read_squad", TEXT_FILES, extensions=frozenset({".json"})),
}
