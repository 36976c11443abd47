"""Tables of Parquet and Arrow that were made to do harm, or hold what Python does not have."""

import pyarrow.ipc
import pyarrow.parquet
import pytest
from helpers.importing_cases import bring, examples, refusal

ROWS = 10**6


def arrow(path, table):
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def test_a_wrong_offset_is_refused_before_a_text_is_read(tmp_path):
    offsets = pyarrow.array([0, 2**30, 2], pyarrow.int32()).buffers()[1]
    text = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, pyarrow.py_buffer(b"ab")])
    said = refusal(arrow(tmp_path / "a.arrow", pyarrow.table({"text": text})), tmp_path, "parquet")
    assert "a.arrow: is no table of Parquet or Arrow (" in said


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_small_file_of_rows_without_end_is_refused(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    columns = pyarrow.table({name: pyarrow.nulls(2 * ROWS) for name in "abc"})
    if ending == "parquet":
        pyarrow.parquet.write_table(columns, path)
    else:
        arrow(path, columns)
    assert path.stat().st_size < 30_000
    said = refusal(path, tmp_path, "parquet")
    assert f"a.{ending}: becomes more than 1,000 times as large when it is read" in said


def test_a_text_that_repeats_until_memory_is_full_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * 1000] * 50_000}), path, compression="zstd")
    assert "a.parquet: becomes more than 1,000 times as large" in refusal(path, tmp_path, "parquet")


def test_a_few_rows_that_are_all_alike_are_taken(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["the cat saw a dog"] * 2000}), path)
    assert bring(path, tmp_path, "parquet", test_share=0).splits == {"train": 2000}


@pytest.mark.parametrize(
    "days",
    [
        pyarrow.array([2**62], pyarrow.int64()).cast(pyarrow.timestamp("s")),
        pyarrow.array([0], pyarrow.int64()).cast(pyarrow.timestamp("s", "Nowhere/City")),
        pyarrow.array([{"a": [b"x"]}]),
    ],
)
def test_columns_that_are_left_out_are_not_read(days, tmp_path):
    """Python has no such year and no such time zone."""
    path = arrow(tmp_path / "a.arrow", pyarrow.table({"day": days, "text": ["x"]}))
    made = bring(path, tmp_path, "parquet", test_share=0)
    assert examples(made, "train") == [{"text": "x"}]
    assert "left out: columns 'day'" in made.notes
    said = refusal(path, tmp_path, "parquet", name="other", text=("day",))
    assert f"column 'day' holds {days.type!r}, which is no text" in said
    said = refusal(path, tmp_path, "parquet", name="other", label="day")
    assert f"column 'day': {days.type!r} is no name of a class" in said


@pytest.mark.parametrize("noted", [b"[" * 100_000, b"\xff", b'{"info": {"features": {"text": []}}}'])
def test_notes_that_are_none_of_hugging_face_are_passed_over(noted, tmp_path):
    table = pyarrow.table({"text": ["x"]}).replace_schema_metadata({"huggingface": noted})
    made = bring(arrow(tmp_path / "a.arrow", table), tmp_path, "parquet", test_share=0)
    assert examples(made, "train") == [{"text": "x"}]
