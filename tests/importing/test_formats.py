"""Every format of the table goes through the same tests; a toy one is a function and a row."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from helpers.annotated_cases import NAMES, coco, mask_of, png, save, text, voc, yolo
from helpers.importing_cases import bring, examples, refusal, write

from jaxformer.errors import UserError
from jaxformer.importing.contents import Contents, Example
from jaxformer.importing.formats import FORMATS, Format
from jaxformer.importing.sources import Sources

SEEDS = (0, 1, 3)


@dataclass(frozen=True)
class Case:
    """Files of a format."""

    make: Callable[[Path], Any]
    """Writes good files into a folder and returns the sources."""
    count: int
    """How many examples they hold."""
    spoilt: tuple[str, str]
    """A file, and what breaks it: it is added, stands in the place of all JSON, or cuts an image short."""
    named: str
    """What the message about it begins with, or holds."""
    left: int
    """How many examples are left without what is broken."""
    encoded: str
    """A file that has to be UTF-8; "" where none is a text."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the format."""


def in_images(root: Path) -> Path:
    for number in range(4):
        save(root / f"{number}.png", number)
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(4))
    return text(root / "labels.csv", f"path,label\n{rows}")


def in_captions(root: Path) -> Path:
    for number in range(4):
        save(root / f"{number}.png", number)
    rows = "".join(f"{number % 4}.png,caption {number}\n" for number in range(5))
    return text(root / "rows.csv", f"path,caption\n{rows}")


def in_coco(root: Path) -> Path:
    return coco(root / "a.json", SEEDS, root)


def in_voc(root: Path) -> Path:
    for seed in SEEDS:
        voc(root / f"{seed}.xml", seed, root / f"{seed}.png")
    return root


def in_yolo(root: Path) -> Path:
    for seed in SEEDS:
        yolo(root / f"{seed}.txt", seed, root / f"{seed}.png")
    text(root / "classes.txt", "\n".join(NAMES))
    return root


def in_masks(root: Path) -> Path:
    for seed in SEEDS:
        save(root / "images" / f"{seed}.png", seed)
        write(root / "masks" / f"{seed}.png", png(mask_of(seed)))
    text(root / "classes.txt", "\n".join(["ground", *NAMES]))
    return root


def in_parquet(root: Path) -> Path:
    root.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"t": ["x", "z"], "u": ["y", "w"]}), root / "a.parquet")
    return root / "a.parquet"


def of(name: str, content: str) -> Callable[[Path], Path]:
    """One file."""
    return lambda root: write(root / name, content)


QUESTION = {"id": "1", "question": "What?", "answers": [{"text": "b", "answer_start": 0}]}
WRONG = QUESTION | {"id": "2", "answers": [{"text": "z", "answer_start": 0}]}


def squad(*questions: dict) -> str:
    return json.dumps({"data": [{"paragraphs": [{"context": "b", "qas": questions}]}]}, indent=1)


CASES = {
    "images": Case(in_images, 4, ("labels.csv", "9.png,a\n"), "labels.csv, line 6: ", 4, "labels.csv"),
    "detection": Case(in_voc, 3, ("3.xml", "<a/>"), "3.xml, line 2: is not XML", 2, "3.xml"),
    "coco": Case(in_coco, 3, ("3.png", ""), "3.png: not a readable image", 2, "a.json"),
    "voc": Case(in_voc, 3, ("3.xml", "<a/>"), "3.xml, line 2: is not XML", 2, "3.xml"),
    "yolo": Case(in_yolo, 3, ("3.txt", "0 1 x 1 1\n"), "3.txt, line 3: ", 3, "3.txt"),
    "segmentation": Case(in_masks, 3, ("masks/3.png", ""), "3.png: not a readable mask", 2, "classes.txt"),
    "image-text": Case(in_captions, 4, ("rows.csv", "9.png,x\n"), "rows.csv, line 7: ", 4, "rows.csv"),
    "text": Case(of("a.txt", "one\ntwo\n"), 2, ("b.pdf", "%"), "b.pdf: ", 2, "a.txt", {"unit": "line"}),
    "csv": Case(of("a.csv", "t,u\nx,y\nz,w\n"), 2, ("a.csv", "x\n"), "a.csv, line 4: ", 2, "a.csv"),
    "jsonl": Case(of("a.jsonl", '{"t": "x"}\n'), 1, ("a.jsonl", "{\n"), "a.jsonl, line 2: ", 1, "a.jsonl"),
    "parquet": Case(in_parquet, 2, ("b.parquet", "PAR1"), "b.parquet: is no table of Parquet", 2, ""),
    "pairs": Case(of("a.tsv", "1\ta\n2\tb\n"), 2, ("a.tsv", "3\n"), "a.tsv, line 3: ", 2, "a.tsv"),
    "conll": Case(of("a.conll", "a O\nb X\n"), 1, ("a.conll", "\nc\n"), "a.conll, line 4: ", 1, "a.conll"),
    "squad": Case(
        of("a.json", squad(QUESTION)),
        1,
        ("a.json", squad(QUESTION, WRONG)),
        "a.json, line 19: question '2'",
        1,
        "a.json",
    ),
}


def spoil(case: Case, root: Path) -> None:
    name, more = case.spoilt
    path = root / name
    if path.suffix == ".png":
        path.write_bytes(path.read_bytes()[:60])
    else:
        before = path.read_text() if path.exists() and path.suffix != ".json" else ""
        path.write_text(before + more)


def sources_of(case: Case, root: Path) -> Any:
    """The sources: the folder where `spoilt` names another file than the one that was given."""
    made = case.make(root)
    return root if case.spoilt[0] in ("b.pdf", "b.parquet") else made


def test_every_format_has_a_case():
    assert set(CASES) == set(FORMATS)


@pytest.mark.parametrize("kind", CASES)
def test_good_files_are_imported_once(kind, tmp_path):
    case = CASES[kind]
    sources = case.make(tmp_path / "files")
    options = case.options | {"test_share": 0}
    made = bring(sources, tmp_path, kind, **options)
    assert made.splits == {"train": case.count}
    assert len(examples(made, "train")) == case.count
    assert "is there already; remove it, or choose another name" in refusal(
        sources, tmp_path, kind, **case.options
    )


@pytest.mark.parametrize("kind", CASES)
def test_what_is_broken_is_named_with_its_place_or_left_out(kind, tmp_path):
    case = CASES[kind]
    sources = sources_of(case, tmp_path / "files")
    spoil(case, tmp_path / "files")
    said = refusal(sources, tmp_path, kind, **case.options)
    assert case.named in said
    assert said.endswith("repair it, or leave out what is broken with `skip_broken=True`")
    made = bring(sources, tmp_path, kind, **case.options, test_share=0, skip_broken=True)
    assert made.splits == {"train": case.left}
    assert len(made.broken) == 1


@pytest.mark.parametrize("kind", CASES)
def test_empty_folders_are_named(kind, tmp_path):
    (tmp_path / "void").mkdir()
    assert f"{tmp_path / 'void'}: " in refusal(tmp_path / "void", tmp_path, kind)
    said = refusal(tmp_path / "nowhere", tmp_path, kind)
    assert said == f"{tmp_path / 'nowhere'}: there is no such folder or file"


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.encoded])
def test_another_encoding_is_named_with_its_line(kind, tmp_path):
    case = CASES[kind]
    sources = case.make(tmp_path / "files")
    path = tmp_path / "files" / case.encoded
    line = len(path.read_bytes().rstrip().split(b"\n")) + 1
    path.write_bytes(path.read_bytes().rstrip() + b"\nsch\xf6n\n")
    assert f"{path}, line {line}: byte " in refusal(sources, tmp_path, kind, **case.options)


@pytest.mark.parametrize("kind", CASES)
def test_a_folder_that_cannot_be_written_is_named(kind, tmp_path):
    case = CASES[kind]
    sources = case.make(tmp_path / "files")
    (tmp_path / "tfds").write_text("a file")
    with pytest.raises(UserError, match=r"tfds: cannot write there \(.*\); name another folder"):
        bring(sources, tmp_path, kind, **case.options)


@pytest.mark.parametrize("kind", CASES)
def test_options_of_other_formats_are_refused(kind, tmp_path):
    known = {name for format in FORMATS.values() for name in format.options}
    for name in known - set(FORMATS[kind].options):
        said = refusal(tmp_path, tmp_path, kind, **{name: "x"})
        assert f"not for {kind}; leave it out" in said
    assert "is an option of no format" in refusal(tmp_path, tmp_path, kind, lable="x")


def read_shouts(sources: Sources, mark: str = "!") -> Contents:
    """A toy format: what ends with a mark, one a line."""
    import tensorflow_datasets as tfds

    found = []
    for file, content in sources.texts():
        for line, shout in enumerate(content.splitlines(), 1):
            if shout.endswith(mark):
                found.append(Example({"text": shout.removesuffix(mark)}, file))
            else:
                sources.broken.append((file.path, f"line {line}: is no shout"))
    return Contents({"text": tfds.features.Text()}, found)


def test_a_format_is_a_function_and_a_row(tmp_path, monkeypatch):
    row = Format(f"{__name__}:read_shouts", ("mark",), frozenset({".shout"}))
    monkeypatch.setitem(FORMATS, "shouts", row)
    write(tmp_path / "files" / "train.shout", "one!\ntwo!\n")
    write(tmp_path / "files" / "test.shout", "three!\nfour\n")
    said = refusal(tmp_path / "files", tmp_path, "shouts")
    assert "test.shout, line 2: is no shout; repair it" in said
    assert "line 1: is no shout (and 3 more: line 2, train.shout)" in refusal(
        tmp_path / "files", tmp_path, "shouts", mark="?"
    )
    made = bring(tmp_path / "files", tmp_path, "shouts", skip_broken=True)
    assert made.splits == {"train": 2, "test": 1}
    assert examples(made, "test") == [{"text": "three"}]


def test_a_kind_that_is_not_there(tmp_path):
    assert "`kind` 'jsnl': is no format; did you mean 'jsonl'?" in refusal(tmp_path, tmp_path, "jsnl")
