"""Numbers in files of text, tables that are other files than their names say, and names of Windows."""

import json

import pytest
from helpers.annotated_cases import refusal as refused
from helpers.annotated_cases import save, text, voc
from helpers.importing_cases import bring, examples, refusal, write

OTHER_NUMBERS = ["1_0.2e-1_0", "\u0661", "\uff11", "0x1", "inf", "nan", "1e", "--1"]


@pytest.mark.parametrize("word", OTHER_NUMBERS)
def test_numbers_are_written_in_the_digits_0_to_9(tmp_path, word):
    save(tmp_path / "yolo" / "0.png", 0)
    text(tmp_path / "yolo" / "classes.txt", "a\nb\n")
    text(tmp_path / "yolo" / "0.txt", f"0 0.5 0.5 {word} 0.2\n")
    assert "0.txt, line 1: " in (said := refused(tmp_path / "yolo", tmp_path))
    assert "is not a class and numbers" in said
    text(tmp_path / "yolo" / "0.txt", f"{word} 0.5 0.5 0.2 0.2\n")
    assert "is not a class and numbers" in refused(tmp_path / "yolo", tmp_path)
    bounds = f"<bndbox><xmin>{word}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    voc(tmp_path / "voc" / "0.xml", 0, tmp_path / "voc" / "0.png", f"<object><name>a</name>{bounds}</object>")
    assert "has no <bndbox> of xmin, ymin, xmax, ymax" in refused(tmp_path / "voc", tmp_path)
    table = write(tmp_path / "a.csv", f"text,label\na,1\nb,{word}\n")
    assert "which is no number" in refusal(table, tmp_path, "csv", label="label", regression=True)


@pytest.mark.parametrize("begins", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"])
def test_a_workbook_is_named(tmp_path, begins):
    table = write(tmp_path / "a.csv", begins + bytes(range(256)))
    assert "a.csv: is an Excel workbook or another archive; export it as CSV" in refusal(
        table, tmp_path, "csv"
    )


@pytest.mark.parametrize(("line", "between"), [("sep=,", ","), ("sep=;", ";"), ('"sep=\t"', "\t")])
def test_a_first_line_that_names_what_is_between_columns_is_no_row(tmp_path, line, between):
    rows = "\r\n".join(between.join(row) for row in (("text", "label"), ("a", "x"), ("b", "y")))
    made = bring(
        write(tmp_path / "a.csv", f"{line}\r\n{rows}\r\n"), tmp_path, "csv", label="label", test_share=0
    )
    assert made.class_names == ["x", "y"]
    assert made.splits == {"train": 2}
    broken = write(tmp_path / "b.csv", f"{line}\r\n{rows}\r\nc\r\n")
    assert "line 5: has 1 value for 2 columns" in refusal(broken, tmp_path / "two", "csv")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_named(tmp_path, indent):
    table = write(tmp_path / "a.jsonl", json.dumps([{"text": "a"}, {"text": "b"}], indent=indent))
    said = refusal(table, tmp_path, "jsonl")
    assert said.endswith('as pandas writes by to_json(path, orient="records", lines=True)')
    assert "a.jsonl: is a JSON array; expected one object a line" in said


@pytest.mark.parametrize("digits", [20, 400, 6000])
def test_whole_numbers_that_are_too_large_are_refused(tmp_path, digits):
    number = "9" * digits
    table = write(tmp_path / "a.csv", f"text,n\na,1\nb,{number}\n")
    said = [refusal(table, tmp_path, "csv")]
    for other in ("1", "1.5"):
        lines = write(
            tmp_path / "a.jsonl", f'{{"text": "a", "n": {other}}}\n{{"text": "b", "n": {number}{number}}}\n'
        )
        said.append(refusal(lines, tmp_path, "jsonl"))
    for message in said:
        assert "line 3" in message or "line 2" in message
        assert "is too large" in message or "has more than 4,300 digits" in message
        assert "sys." not in message


def test_whole_numbers_up_to_63_bits_are_kept(tmp_path):
    table = write(tmp_path / "a.csv", f"text,n\na,{2**63 - 1}\nb,{1 - 2**63}\n")
    made = bring(table, tmp_path, "csv", test_share=0)
    assert {int(row["n"]) for row in examples(made, "train")} == {2**63 - 1, 1 - 2**63}
    assert "is too large" in refusal(
        write(tmp_path / "b.csv", f"text,n\na,{2**63}\n"), tmp_path / "two", "csv"
    )
