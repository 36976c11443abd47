"""What is written is whole, and JSON that every reader takes."""

import contextlib
import errno
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import jaxformer as jf
from jaxformer.checkpoints import checkpoint_of
from jaxformer.errors import NoRoom, UserError
from jaxformer.files import naming_files, put_in_place, write_atomically, write_json, write_to, writing_to
from jaxformer.inference.inputs import find_images
from jaxformer.inference.texts import read_text
from jaxformer.reading import named
from jaxformer.sweeps.study import Study


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


WITH_PATHS = {
    "load_run": jf.load_run,
    "a sweep": Study.read,
    "start_from": lambda place: checkpoint_of(place, 10),
    "an image": lambda place: find_images([place]),
    "a text": read_text,
}


@pytest.mark.parametrize("name", WITH_PATHS)
def test_no_path_in_python_may_be_an_address_but_a_file_of_that_name(name, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^gs://bucket/x is an address, and no path; mount the bucket"):
        WITH_PATHS[name]("gs://bucket/x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b.png").write_bytes(b"")
    assert named("a:b.png") == Path("a:b.png")
