"""Files of text from anywhere: every kind of line end and encoding is read right, or refused with its line."""

import pytest
from helpers.annotated_cases import save, yolo
from helpers.importing_cases import bring, examples, refusal, write

ROWS = [("a b", "x"), ("c d", "y"), ("e", "x"), ("f", "y")]
TABLE = "text,label\n" + "".join(f"{one},{two}\n" for one, two in ROWS)
FILES = {
    "csv": ("a.csv", TABLE, {"label": "label"}),
    "tsv": ("a.tsv", TABLE.replace(",", "\t"), {"label": "label"}),
    "jsonl": (
        "a.jsonl",
        "".join(f'{{"text": "{a}", "label": "{b}"}}\n' for a, b in ROWS),
        {"label": "label"},
    ),
    "conll": ("a.conll", "".join(f"{one.split()[0]} {two}\n" for one, two in ROWS), {}),
    "text": ("a.txt", "".join(f"{one}\n" for one, _ in ROWS), {"unit": "line"}),
    "pairs": ("a.tsv", "".join(f"{one}\t{two}\n" for one, two in ROWS), {}),
}
RIGHT = {
    "csv": [{"text": one, "label": "xy".index(two)} for one, two in ROWS],
    "conll": [{"tokens": [one.split()[0] for one, _ in ROWS], "tags": [0, 1, 0, 1]}],
    "text": [{"text": one, "path": "a.txt"} for one, _ in ROWS],
    "pairs": [{"source": one, "target": two} for one, two in ROWS],
}
RIGHT |= {"tsv": RIGHT["csv"], "jsonl": RIGHT["csv"]}


def imported(tmp_path, kind: str, content: bytes):
    name, _, options = FILES[kind]
    path = write(tmp_path / name, content)
    return bring(path, tmp_path, "csv" if kind == "tsv" else kind, test_share=0, **options)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_every_kind_of_line_end_is_read(tmp_path, kind, ends, mark, last):
    content = FILES[kind][1] if last else FILES[kind][1].removesuffix("\n")
    made = imported(tmp_path, kind, (mark + content.replace("\n", ends)).encode())
    assert examples(made, "train") == RIGHT[kind]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_named_with_their_line(tmp_path, kind, encoding):
    name, content, options = FILES[kind]
    path = write(tmp_path / name, content.encode(encoding))
    said = refusal(path, tmp_path, "csv" if kind == "tsv" else kind, **options)
    assert said.startswith(f"{path}, line 1: ")
    assert "save the file as UTF-8" in said


def test_a_csv_with_line_ends_of_several_kinds_is_read(tmp_path):
    content = 'text,label\ra,x\r\n"b\nc",y\n"d\re",x\rf,y\n'
    made = imported(tmp_path, "csv", content.encode())
    assert [row["text"] for row in examples(made, "train")] == ["a", "b\nc", "d\re", "f"]
    path = write(tmp_path / "b.csv", "text,label\ra,x\rb\n")
    assert "b.csv, line 3: has 1 value for 2 columns" in refusal(path, tmp_path / "other", "csv")


@pytest.mark.parametrize("kind", ["jsonl", "conll", "pairs"])
def test_a_stray_carriage_return_among_other_line_ends_is_named_with_its_line(tmp_path, kind):
    name, content, options = FILES[kind]
    path = write(tmp_path / name, content.replace("\n", "\r", 1))
    line = 2 if kind == "conll" else 1  # the first line of words says how many columns there are
    assert f"{path}, line {line}: " in refusal(path, tmp_path, kind, **options)


def test_a_stray_carriage_return_is_part_of_a_text(tmp_path):
    assert examples(imported(tmp_path, "text", b"a\rb\nc\n"), "train") == [
        {"text": "a\rb", "path": "a.txt"},
        {"text": "c", "path": "a.txt"},
    ]


@pytest.mark.parametrize("ends", ["\r", "\r\n"])
def test_files_of_class_names_and_of_labels_have_any_line_end(tmp_path, ends):
    root = tmp_path / "files"
    yolo(root / "0.txt", 2, root / "0.png")
    (root / "0.txt").write_bytes(f"0 0.5 0.5 0.2 0.2{ends}1 0.2 0.2 0.1 0.1".encode())
    (root / "classes.txt").write_bytes(f"cat{ends}dog{ends}{ends}".encode())
    made = bring(root, tmp_path, "yolo", test_share=0)
    assert made.class_names == ["cat", "dog"]
    assert examples(made, "train")[0]["objects"]["label"] == [0, 1]


def test_a_csv_of_images_has_any_line_end_and_names_paths_that_no_file_can_have(tmp_path):
    for seed in range(3):
        save(tmp_path / f"{seed}.png", seed)
    path = write(tmp_path / "a.csv", b"path,label\r0.png,a\r1.png,b\r2.png,a")
    assert bring(path, tmp_path, "images", test_share=0).splits == {"train": 3}
    path = write(tmp_path / "b.csv", b"path,label\n0.png,a\n1\x00.png,b\n")
    assert "b.csv, line 3: there is no file '1\\x00.png' in" in refusal(path, tmp_path / "other", "images")
    long = write(tmp_path / "c.csv", f"path,label\n0.png,a\n{'x' * 5000}.png,b\n")
    assert "c.csv, line 3: there is no file 'xxx" in refusal(long, tmp_path / "other", "images")


def test_all_lines_that_are_broken_are_counted_and_the_first_few_named(tmp_path):
    lines = ['{"text": "a"}' if number % 4 else "{" for number in range(40)]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    said = refusal(path, tmp_path, "jsonl")
    assert f"{path}, line 1: not JSON (" in said
    assert "(and 9 more: line 5, line 9, line 13, line 17, line 21, ...); repair it, or" in said
