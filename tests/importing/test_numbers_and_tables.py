"""Numbers in files of text, tables that are other files than their names say, and names of Windows."""

import pytest
from helpers.annotated_cases import refusal as refused
from helpers.annotated_cases import save, text, voc
from helpers.importing_cases import refusal, write

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
