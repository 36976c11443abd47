"""Parameter table, start and end of a run, and numbers as text."""

import jax
import numpy as np
import pytest

from jaxformer.observe import text
from jaxformer.observe.summary import end_summary, parameter_rows, parameter_table

PARAMS = {
    "patch_embedding": {"kernel": np.zeros((4, 4, 3, 8), np.float32), "bias": np.zeros(8, np.float32)},
    "encoder": {
        "block_0": {"mlp": {"up": {"kernel": jax.ShapeDtypeStruct((8, 16), "bfloat16")}}},
        "block_1": {
            "mlp": {"up": {"kernel": np.zeros((8, 16), np.float32), "bias": np.zeros(16, np.float32)}}
        },
    },
}


def test_rows_add_up_whatever_the_depth():
    whole = 4 * 4 * 3 * 8 + 8 + 8 * 16 + 8 * 16 + 16
    for depth in (1, 2, 3, None):
        assert sum(row.count for row in parameter_rows(PARAMS, depth)) == whole
    assert [row.path for row in parameter_rows(PARAMS, 1)] == ["patch_embedding", "encoder"]
    rows = {row.path: row for row in parameter_rows(PARAMS, 2)}
    assert rows["patch_embedding/kernel"].shape == "4 x 4 x 3 x 8"
    assert (rows["encoder/block_1"].shape, rows["encoder/block_1"].count) == ("2 arrays", 144)
    assert rows["encoder/block_0"].dtype == "bfloat16"


def test_the_table_is_aligned_and_ends_with_the_total():
    lines = parameter_table(PARAMS).splitlines()
    assert lines[-1].split() == ["total", "664"]
    column = lines[0].index("shape")
    assert all(line[column - 1] == " " for line in lines if "─" not in line and len(line) > column)


def test_names_in_a_table_are_not_markup_and_hold_no_control_characters():
    lines = text.table(
        ("[b]name", "n"), [("[red]x[/red] :smile:", "1"), ("\x1b[31m日本\x9b", "23")], right=("n",)
    )
    assert lines.splitlines()[2:] == [
        "[red]x[/red] :smile:   1",
        r"\u001b[31m日本\u009b  23",
    ]
    assert lines.startswith("[b]name")


def test_a_value_is_one_line_whatever_is_in_it():
    assert text.notes({"report": "new\nline/report.html", "b": "\x1b[2J"}) == (
        "report  new\\nline/report.html\nb       \\u001b[2J"
    )


def test_the_end_states_the_mfu_with_its_formula():
    result = {
        "status": "completed",
        "step": 600,
        "final": {"accuracy": 0.98},
        "best": {"step": 550, "accuracy": 0.99},
        "seconds": {"train": 50.0, "total": 80.0},
        "examples_per_second": 1536.0,
        "mfu": 0.412,
        "peak": "H100, vendor's dense peak",
    }
    said = end_summary(result)
    assert "completed at step 600" in said
    assert "accuracy 0.9900 at step 550" in said
    assert "1:20 min (train 50 s)" in said
    assert (
        "41.2% = model FLOPs per example (forward + backward) x examples/s / (devices x peak FLOP/s)" in said
    )
    assert said.endswith("; peak: H100, vendor's dense peak")
    preempted = result | {"final": {}, "best": None, "examples_per_second": None, "mfu": None}
    assert end_summary(preempted).splitlines()[0].endswith("completed at step 600")
    assert "MFU" not in end_summary(preempted)


@pytest.mark.parametrize(
    ("function", "value", "said"),
    [
        (text.number, 0.98611, "0.9861"),
        (text.number, 2.3e-7, "2.3e-07"),
        (text.number, 0, "0"),
        (text.number, float("nan"), "NaN"),
        (text.number, -float("inf"), "-inf"),
        (text.number, 5213.4, "5,213"),
        (text.number, 12.3456, "12.35"),
        (text.engineering, 5_717_416, "5.72M"),
        (text.engineering, 999.9e9, "1T"),
        (text.engineering, 12, "12"),
        (text.data_size, 312 * 2**20, "312 MiB"),
        (text.data_size, 12, "12 B"),
        (text.data_size, 1010 * 2**10, "0.986 MiB"),
        (text.duration, 0.52, "0.52 s"),
        (text.duration, 42, "42 s"),
        (text.duration, 59.7, "1:00 min"),
        (text.duration, 187, "3:07 min"),
        (text.duration, 7391, "2:03:11 h"),
        (text.duration, 274200, "3 d 04:10 h"),
    ],
)
def test_numbers_as_text(function, value, said):
    assert function(value) == said
