"""What is written is whole, and JSON that every reader takes."""

import contextlib
import errno
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxformer.errors import NoRoom, UserError
from jaxformer.files import naming_files, put_in_place, write_atomically, write_json, write_to, writing_to


def test_numbers_that_are_not_finite_are_strings_that_float_reads(tmp_path):
    values = {"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": {"d": "text", "e": None, "f": 3}}
    write_json(tmp_path / "x.json", values)

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert math.isnan(float(read["a"]))
    assert [float(v) for v in read["b"]] == values["b"]
    assert read["c"] == values["c"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(TypeError):
        write_atomically(path, None)  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_takes_no_more_is_named():
    full = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left on device") as error:
        write_to(full, "a line\n")
    assert error.value.filename == "/dev/full"
    with contextlib.suppress(OSError):
        full.close()


@pytest.mark.parametrize("naming", [naming_files, writing_to])
def test_a_full_disk_is_named_with_the_room_that_is_left(tmp_path, naming):
    place = tmp_path / "run" / "not" / "there"
    with pytest.raises(NoRoom) as error, naming(place, "make room"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    free = r"Disk quota exceeded, [\d.]+ \wi?B of [\d.]+ \wiB are free"
    assert re.fullmatch(rf"{place}: (cannot write there \()?{free}\)?; make room", str(error.value))
    assert error.value.code == 74
    with pytest.raises(UserError) as error, naming(place, "mend it"):
        raise OSError(errno.EACCES, "Permission denied")
    assert error.value.code == 2


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        write_atomically(tmp_path / "pipe", "a report")
        assert read.result() == "a report"
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_no_device_and_no_pipe_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "new").write_text("x")
    with pytest.raises(OSError, match="is a device or a pipe"):
        put_in_place(tmp_path / "new", tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
