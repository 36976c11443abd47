"""Damaged checkpoints, full disks and disks that cannot be written: nothing good is lost."""

import contextlib
import errno
import gc
import json
import logging
import os
import re
import resource
import shutil
import time
from concurrent.futures import wait

import pytest
from helpers.saved import assert_same, data_file, flip, make_items, remove, save, targets_of

from jaxformer import checkpoint_items
from jaxformer.checkpoint_items import damage
from jaxformer.errors import NoRoom, UserError

DAMAGES = {
    "empty folder": lambda step: [remove(path) for path in step.iterdir()],
    "truncated data": lambda step: os.truncate(
        data_file(step / "params"), data_file(step / "params").stat().st_size // 2
    ),
    "flipped bit in the data": lambda step: flip(data_file(step / "optimizer")),
    "flipped bit in the progress": lambda step: flip(step / "progress" / "metadata"),
    "flipped bit in the metrics": lambda step: flip(step / "metrics" / "metrics"),
    "missing item": lambda step: remove(step / "optimizer"),
    "missing file": lambda step: remove(data_file(step / "params")),
    "missing digests": lambda step: remove(step / "digests.json"),
    "truncated digests": lambda step: os.truncate(step / "digests.json", 100),
}


@pytest.mark.parametrize("damaged", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_said(opened, damaged, caplog):
    first = opened(keep=3)
    for step in (1, 2, 3):
        save(first, step, 0.1 * step)
    damaged(first.directory / "3")
    checkpoints = opened(keep=3)
    with caplog.at_level(logging.WARNING, "jaxformer"):
        restored, progress = checkpoints.restore(targets_of(make_items(0)))
    assert progress["step"] == 2
    assert_same(restored, make_items(2))
    assert "3 is damaged" in caplog.text
    assert "going on from checkpoint 2" in caplog.text
    assert (checkpoints.directory / "3.corrupt").is_dir()
    save(checkpoints, 3, 0.3)  # the same step is reached again
    assert checkpoints.steps() == [1, 2, 3]
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 3


def test_every_file_of_an_item_is_watched(opened):
    checkpoints = opened()
    save(checkpoints, 1, 0.5)
    folder = checkpoints.directory / "1"
    parts = ("params", "optimizer", "progress", "metrics")
    files = [
        path
        for part in parts
        for path in (folder / part).rglob("*")
        if path.is_file() and path.stat().st_size
    ]
    assert damage(folder, parts) is None
    noticed = set()
    for path in files:
        flip(path)
        if damage(folder, parts):
            noticed.add(path)
        flip(path)
    assert {path.name for path in files if path not in noticed} <= {"commit_success.txt"}
    assert damage(folder, parts) is None


def test_a_damaged_best_gives_way_to_the_next_best(opened, caplog):
    checkpoints = opened(keep_best=2)
    for step, metric in enumerate([0.8, 0.9, 0.1, 0.2], start=1):
        save(checkpoints, step, metric)
    flip(data_file(checkpoints.directory / "2" / "params"))
    _, progress = opened(keep_best=2).restore_best(targets_of(make_items(0)))
    assert progress["step"] == 1


def test_old_damage_does_not_stop_saving(opened, caplog):
    """Orbax reads the metrics of every step when it starts, and fails on one that is not JSON."""
    checkpoints = opened(keep=3)
    save(checkpoints, 1, 0.1)
    save(checkpoints, 2, 0.2)
    (checkpoints.directory / "1" / "metrics" / "metrics").write_text("{")
    again = opened(keep=3)
    save(again, 3, 0.3)
    assert again.steps() == [2, 3]


def test_nothing_good_left_is_an_error_that_changes_nothing(opened):
    checkpoints = opened()
    for step in (1, 2):
        save(checkpoints, step)
        flip(data_file(checkpoints.directory / str(step) / "params"))
    for _ in range(2):  # and again, when it is started again
        with pytest.raises(UserError, match=r"no good checkpoint: 1: .*; 2: .*") as caught:
            opened().restore(targets_of(make_items(0)))
        assert len(caught.value.lines) == 2
    assert checkpoints.steps() == [1, 2]


def test_read_only_passes_over_damage_without_touching_it(opened, caplog):
    writer = opened()
    for step in (1, 2):
        save(writer, step)
    flip(data_file(writer.directory / "2" / "params"))
    _, progress = opened(read_only=True).restore(targets_of(make_items(0)))
    assert progress["step"] == 1
    assert writer.steps() == [1, 2]


def test_left_over_temporary_folders_are_ignored_and_cleaned_up(opened):
    checkpoints = opened()
    save(checkpoints, 1)
    left_over = checkpoints.directory / "2.orbax-checkpoint-tmp"
    shutil.copytree(checkpoints.directory / "1", left_over)
    again = opened()
    assert again.restore(targets_of(make_items(0))).progress["step"] == 1
    save(again, 2)
    assert again.steps() == [1, 2]
    assert not left_over.exists()


@contextlib.contextmanager
def full_disk():
    """The operating system refuses files over 2 kB; unlike a permission, root is refused, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the other writes that failed
def test_a_full_disk_stops_with_a_clear_line_and_costs_no_checkpoint(opened):
    checkpoints = opened(keep=1)
    save(checkpoints, 1, 0.9)
    with full_disk():
        checkpoints.save(2, make_items(2), {})  # fails in the background
        with pytest.raises(UserError, match=r"checkpoint 2 could not be saved: File too large\n") as caught:
            checkpoints.wait()
    assert len(caught.value.lines) == 2
    assert "good ones there: 1;" in caught.value.lines[1]
    assert checkpoints.steps() == [1]
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 1
    save(checkpoints, 3)  # there is room again
    assert checkpoints.steps() == [1, 3]
    time.sleep(0.5)  # the other writes end while their errors are expected
    gc.collect()


def test_a_full_disk_is_told_at_the_next_step_with_what_is_free(opened, monkeypatch):
    checkpoints = opened(keep=1)
    save(checkpoints, 1, 0.9)
    checkpoints.check()  # all is well

    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_items, "write_digests", full)
        checkpoints.save(2, make_items(2), {})
        wait([checkpoints._kept], timeout=20)
        with pytest.raises(NoRoom) as caught:
            checkpoints.check()
    (line,) = caught.value.lines
    assert re.fullmatch(
        r".*/checkpoints: checkpoint 2 could not be saved: No space left on device, [\d.]+ \w+ of [\d.]+ \w+ are free;"
        r" it takes 12.\d KiB and more; make room, and train again in the same folder",
        line,
    )
    checkpoints.check()  # it is told once
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 1
    save(checkpoints, 3)
    assert checkpoints.steps() == [1, 3]


def test_a_read_only_disk_stops_with_a_clear_line_and_costs_no_checkpoint(opened, monkeypatch):
    checkpoints = opened(keep=1)
    save(checkpoints, 1, 0.9)
    real = os.mkdir

    def refused(path, *args, **kwargs):
        if str(path).startswith(str(checkpoints.directory)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refused)
        with pytest.raises(UserError, match="checkpoint 2 could not be saved: Read-only file system"):
            save(checkpoints, 2)
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 1
    save(checkpoints, 3)
    assert checkpoints.steps() == [1, 3]


DEEP = "[" * 50_000
NO_METRICS = {
    "null": "null",
    "a list": "[]",
    "a text for a number": '{"accuracy": "x"}',
    "nested deeply": DEEP,
}


@pytest.mark.parametrize("content", NO_METRICS.values(), ids=NO_METRICS)
def test_a_checkpoint_whose_metrics_are_damaged_is_not_the_best_and_the_log_says_so(opened, content, caplog):
    checkpoints = opened(keep=3)
    for step, score in ((1, 0.9), (2, 0.5)):
        save(checkpoints, step, score)
    (checkpoints.directory / "1" / "metrics" / "metrics").write_text(content)
    with caplog.at_level(logging.WARNING, "jaxformer"):
        assert opened(keep=3).by_rank() == [2]
    assert "1/metrics/metrics: is damaged" in caplog.text


@pytest.mark.parametrize("content", ["null", "[1, 2]", "{", DEEP], ids=["null", "list", "cut", "deep"])
def test_progress_that_is_no_object_is_not_good(opened, content):
    checkpoints = opened(keep=3)
    for step in (1, 2):
        save(checkpoints, step, 0.5)
    (checkpoints.directory / "1" / "progress" / "metadata").write_text(content)
    assert opened(keep=3).good_steps() == [2]


@pytest.mark.parametrize("content", [DEEP, '[["a"]]', "null", None], ids=["deep", "lists", "null", "objects"])
def test_digests_of_another_kind_are_damage(opened, content):
    checkpoints = opened()
    save(checkpoints, 1, 0.5)
    digests = checkpoints.directory / "1" / "digests.json"
    content = content or json.dumps({name: {} for name in json.loads(digests.read_text())})
    digests.write_text(content)
    assert damage(digests.parent, ["params"]) == "digests.json is not what was written"
