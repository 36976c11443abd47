"""The cache: made once, by one process, and never read before it is complete."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxformer.data.text.cache import ENTRY, Writer, cache_folder, cached, read_entry
from jaxformer.errors import UserError

# A process that makes an entry of 3 x 4 numbers slowly, noting each time that it builds and each part that it writes.
SLOW = """
import os, sys, time
from pathlib import Path
from jaxformer.data.text.cache import cached

log, pause = Path(sys.argv[1]), float(sys.argv[2])

def note(line):
    with open(log, "a") as file:
        file.write(f"{line}\\n")

def build(writer):
    note("build")
    column = writer.column("numbers", "int32")
    for part in range(3):
        column.append(range(4 * part, 4 * part + 4))
        note(f"part {part}")
        time.sleep(pause)

note("start")
print(cached({"what": "numbers"}, build).arrays["numbers"].tolist())
"""


def start(log, pause: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(log), str(pause)], stdout=subprocess.PIPE, text=True
    )


def wait_for(log, line: str) -> None:
    deadline = time.monotonic() + 60
    while not (log.exists() and line in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def numbers(writer: Writer) -> None:
    writer.column("numbers", np.int32).append(range(12))
    writer.notes["count"] = 12


def test_an_entry_is_made_once_and_is_what_was_written(cache):
    calls = []

    def build(writer: Writer) -> None:
        calls.append(1)
        numbers(writer)
        pairs = writer.column("pairs", np.uint16, (2,))
        pairs.append([[1, 2], [3, 65535]])
        pairs.append([[5, 6]])
        writer.column("empty", np.int64)

    for _ in range(2):
        entry = cached({"what": 1}, build)
        assert entry.arrays["numbers"].tolist() == list(range(12))
        assert entry.arrays["pairs"].tolist() == [[1, 2], [3, 65535], [5, 6]]
        assert entry.arrays["empty"].shape == (0,)
        assert entry.notes == {"count": 12}
        assert not entry.arrays["numbers"].flags.writeable
    assert len(calls) == 1
    np.testing.assert_array_equal(np.load(cache / entry.digest / "pairs.npy"), entry.arrays["pairs"])
    assert cached({"what": 2}, build).digest != entry.digest
    assert len(calls) == 2


def test_a_number_beyond_the_dtype_is_refused():
    for bad in (65536, -1):
        with pytest.raises(OverflowError, match="out of bounds for uint16"):
            cached({"what": bad}, lambda writer, bad=bad: writer.column("ids", np.uint16).append([bad]))


def test_two_processes_at_once_one_makes_it_and_the_other_waits(tmp_path):
    log = tmp_path / "log"
    both = [start(log, 0.3) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in both]
    assert outputs == [str(list(range(12)))] * 2
    lines = log.read_text().split("\n")
    assert lines.count("start") == 2
    assert lines.count("build") == 1


def test_what_a_killed_process_leaves_is_not_believed_and_is_cleared_away(tmp_path, cache):
    log = tmp_path / "log"
    process = start(log, 60)
    wait_for(log, "part 0")
    waiting = start(log, 0)  # waits for the first one's lock
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert waiting.communicate(timeout=60)[0].strip() == str(list(range(12)))
    assert log.read_text().split("\n").count("build") == 2
    folders = [path.name for path in cache.iterdir() if path.is_dir()]
    assert len(folders) == 1
    assert not folders[0].startswith(".")


@pytest.mark.parametrize("damage", ["truncated", "longer", "missing", "entry", "no entry"])
def test_a_damaged_entry_is_made_again(cache, damage):
    entry = cached({"what": damage}, numbers)
    folder = cache / entry.digest
    file = folder / "numbers.npy"
    if damage == "truncated":
        os.truncate(file, file.stat().st_size - 4)
    elif damage == "longer":
        file.write_bytes(file.read_bytes() + b"0000")
    elif damage == "missing":
        file.unlink()
    elif damage == "entry":
        (folder / ENTRY).write_text('{"files"')
    else:
        (folder / ENTRY).unlink()
    assert read_entry(folder) is None
    assert cached({"what": damage}, numbers).arrays["numbers"].tolist() == list(range(12))


def test_a_build_that_fails_leaves_nothing(cache):
    def fail(writer: Writer) -> None:
        numbers(writer)
        raise UserError("broken text")

    with pytest.raises(UserError, match="broken text"):
        cached({"what": "fails"}, fail)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache" / "text"
    monkeypatch.delenv("JAXFORMER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "jaxformer" / "text"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "jaxformer" / "text"


def test_a_cache_that_cannot_be_written_is_answered_with_the_remedy(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError) as error:
        cached({"what": 1}, numbers)
    assert str(tmp_path / "file") in error.value.lines[0]
    assert "JAXFORMER_CACHE" in error.value.lines[1]


def test_tokens_are_made_anew_when_something_that_decides_them_changes(written, batches, cache):
    def entries() -> int:
        return sum((path / ENTRY).exists() for path in cache.iterdir())

    values = {"data_dir": written(train=["abc", "cba"] * 5, test=["cab"] * 3)}
    windows = {"examples": {"name": "windows", "length": 4}}
    batches(**values, **windows)
    batches(**values, **windows)
    assert entries() == 1
    batches(**values, examples={"name": "windows", "length": 8})  # the same tokens, cut otherwise
    batches(**values, examples={"name": "documents", "length": 8})
    assert entries() == 2  # and a packing
    batches("train[:5]", **values, **windows)
    batches("test", train=False, **values, **windows)
    batches(**values, **windows, tokenizer={"name": "bytes", "template": "gpt"})
    assert entries() == 5
    batches(**values, **windows, tokenizer="characters")
    assert entries() == 7  # the tokenizer, too
    batches("test", train=False, **values, **windows, tokenizer="characters")
    assert entries() == 8  # learnt from "train", as before
    before = batches(**values, **windows).source.records.digest()
    shutil.rmtree(values["data_dir"])
    written(train=["abc", "cbb"] * 5, test=["cab"] * 3)  # files of the same names and sizes
    assert batches(**values, **windows).source.records.digest() != before
    assert entries() == 9


def test_notes_are_json(cache):
    entry = cached({"what": "notes"}, numbers)
    assert json.loads((cache / entry.digest / ENTRY).read_text())["notes"] == {"count": 12}
