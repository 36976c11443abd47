"""What a run promises of its folder: the end is marked last, the place is the locked one, nothing is left over."""

import json
import logging
import os
import re
import shutil
import socket
import sys
import time
from pathlib import Path

import jax
import pytest

from jaxformer import files, reporting
from jaxformer.checkpoints import Checkpoints
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.files import delete_at_once, incomplete, locked, put_in_place, write_atomically, write_json
from jaxformer.observe.report import write_report
from jaxformer.observe.writers import MetricWriter
from jaxformer.reading import read_json
from jaxformer.runs import Run
from jaxformer.train import train

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
TINY = {
    "model.width": 8,
    "model.num_heads": 1,
    "model.depth": 1,
    "model.mlp_dim": 8,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:32]",
    "eval.every": "2 steps",
    "optimizer": {"name": "momentum", "learning_rate": 0.3},
    "schedule": {"name": "constant"},
    "train.total": "6 steps",
    "train.log_every": "1 step",
    "checkpoint.every": "2 steps",
}
DEAD = f"{socket.gethostname()}-4194305-0a1b"  # above Linux's largest number of a process


@pytest.fixture(autouse=True, scope="module")
def environment(digits_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setattr("jaxformer.reporting.write_shown", lambda *_: None)  # tests/test_kills.py has them
        yield


def train_in(folder, **changes):
    return train(Experiment(resolve(configfile.read(CONFIG, {**TINY, **changes}))), folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def begun(tmp_path_factory, environment):
    """A run that has died in step 5, with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_the_fifth(patch, die)
        with pytest.raises(KeyboardInterrupt):
            train_in(folder)
    return folder


@pytest.fixture
def interrupted(tmp_path, begun):
    """A copy of that run."""
    return Path(shutil.copytree(begun, tmp_path / "run"))


def at_the_fifth(patch, act):
    """Has something done when the fifth step is written."""
    write = MetricWriter.write

    def writes(self, step, values):
        write(self, step, values)
        if step == 5:
            act()

    patch.setattr(MetricWriter, "write", writes)


def die():
    raise KeyboardInterrupt


# The end


def test_the_result_is_written_when_all_else_is_there(tmp_path, monkeypatch):
    written = []

    def notes(path, value):
        written.append((path.name, [name for name in names(path.parent) if not name.startswith(".")]))
        write_json(path, value)

    monkeypatch.setattr("jaxformer.reporting.write_json", notes)
    result = train_in(tmp_path)
    assert written[-1][0] == "result.json"
    assert {"report.html", "evaluation.json", "checkpoints"} <= {*written[-1][1]}
    report = (tmp_path / "report.html").read_text()
    write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == report  # with the result that was not there yet
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert ".lock" not in names(tmp_path)


# The place


@pytest.mark.parametrize("how", ["moved", "another training in its place"])
def test_a_folder_that_is_gone_is_noticed_at_the_next_save(tmp_path, monkeypatch, how):
    folder, away = tmp_path / "run", tmp_path / "away"

    def act():
        while not (folder / "checkpoints" / "4").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        folder.rename(away)
        if how != "moved":
            folder.mkdir()
            (folder / ".lock").touch()

    with monkeypatch.context() as patch:
        at_the_fifth(patch, act)
        with pytest.raises(UserError, match=r"run: was moved, removed or replaced while") as refused:
            train_in(folder)
    assert len(refused.value.lines) == 1
    there = None if how == "moved" else [".lock"]
    assert (names(folder) if folder.exists() else None) == there  # nothing was made or taken away
    if how == "moved":
        away.rename(folder)
        assert train_in(folder)["status"] == "completed"


def test_a_lock_is_there_while_it_is_held(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        with pytest.raises(UserError, match="busy"), locked(path, UserError("busy")):
            pass
        assert path.exists()
    assert not path.exists()


# What is left over


def test_what_a_killed_process_left_is_cleared_away_and_nothing_else(interrupted, caplog):
    left = [
        interrupted / f".config.json.incomplete-{DEAD}",
        interrupted / f".report.html.incomplete-another-host-{os.getpid()}-0a1b",
        interrupted / "samples" / f".samples.incomplete-{DEAD}",
        interrupted / "checkpoints" / f".1.incomplete-{DEAD}",
        interrupted / "checkpoints" / "5.orbax-checkpoint-tmp",
    ]
    for path in left:
        (path / "params").mkdir(parents=True)
    old = shutil.copytree(interrupted / "checkpoints" / "2", interrupted / "checkpoints" / "1")
    shutil.rmtree(old / "metrics")  # it is not the best, and was not deleted yet
    mine = interrupted / ".notes"
    mine.touch()
    with caplog.at_level("WARNING"):
        train_in(interrupted)
    assert not [path for path in left if path.exists()]
    assert "records" not in caplog.text
    assert mine.exists()
    assert "1" not in names(interrupted / "checkpoints")
    assert "damaged" not in caplog.text


def test_the_only_good_checkpoint_is_not_deleted_as_an_old_one(interrupted):
    """Where one checkpoint is kept, and the process was killed before it deleted the one before."""
    (interrupted / "checkpoints" / "4" / "digests.json").write_text("")
    shutil.copytree(interrupted / "checkpoints" / "2", interrupted / "checkpoints" / "1")
    train_in(interrupted, **{"checkpoint.keep": 1})
    assert "4.corrupt" in names(interrupted / "checkpoints")
    assert Run.open(interrupted).status == "completed"


def test_only_the_first_process_writes_the_config_and_the_last_evaluation(tmp_path, monkeypatch):
    experiment = Experiment(resolve(configfile.read(CONFIG, TINY)))
    Run(tmp_path / "second").check(experiment.config)
    assert not (tmp_path / "second").exists()
    finish = reporting.finish

    def finish_second(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_index", lambda: 1)
            return finish(*arguments)

    monkeypatch.setattr(sys.modules["jaxformer.train"], "finish", finish_second)
    result = train_in(tmp_path / "run")
    assert result["status"] == "completed"
    assert not {"evaluation.json", "result.json"} & {*names(tmp_path / "run")}


def test_a_run_that_is_refused_late_leaves_no_folder(tmp_path, monkeypatch):
    def refuses(*_):
        raise UserError("the last check")

    monkeypatch.setattr(sys.modules["jaxformer.train"], "announce", refuses)
    with pytest.raises(UserError, match="the last check"):
        train_in(tmp_path / "runs" / "new")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".notes").touch()
    with pytest.raises(UserError, match="the last check"):
        train_in(tmp_path / "mine")
    assert {".notes"} <= {*names(tmp_path / "mine")}
    assert ".lock" not in names(tmp_path / "mine")


def test_a_folder_of_another_experiment_gets_no_lock(interrupted):
    before = names(interrupted)
    with pytest.raises(UserError, match="holds another experiment"):
        train_in(interrupted, seed=7)
    assert names(interrupted) == before


# A power cut


def test_what_gets_its_name_is_on_the_disk_before(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, os.replace

    def flushes(handle):
        done.append(("flush", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def renames(old, new):
        done.append(("rename", str(old), str(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", flushes)
    monkeypatch.setattr(os, "replace", renames)
    write_atomically(tmp_path / "a.json", "{}")
    (_, hidden), renamed, (_, folder) = done
    assert renamed == ("rename", hidden, str(tmp_path / "a.json"))
    assert folder == str(tmp_path)

    done.clear()
    with incomplete(tmp_path / "b") as made:
        (made / "c").mkdir(parents=True)
        (made / "c" / "d").write_text("d")
        put_in_place(made, tmp_path / "b")
    assert {path for kind, path, *_ in done[:3] if kind == "flush"} == {f"{made}", f"{made}/c", f"{made}/c/d"}
    assert done[3:] == [("rename", str(made), str(tmp_path / "b")), ("flush", str(tmp_path))]


def test_every_file_of_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def flushes(handle):
        flushed.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flushes)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"params": {"w": jax.numpy.ones(3)}}, {})
    unsafe = {path.name for path in (tmp_path / "1").rglob("*") if path.stat().st_ino not in flushed}
    assert unsafe <= {"commit_success.txt", "_CHECKPOINT_METADATA"}  # which nothing depends on
    assert tmp_path.stat().st_ino in flushed


def test_a_config_that_a_power_cut_has_emptied_stops_no_run_that_has_saved_nothing(tmp_path):
    (tmp_path / "config.json").touch()
    assert train_in(tmp_path)["status"] == "completed"


def test_broken_files_are_mended_as_the_message_says(interrupted):
    for name in ("result.json", "evaluation.json", "data.json"):
        (interrupted / name).write_text("")
    with pytest.raises(UserError, match=r"result\.json: .*delete it"):
        train_in(interrupted)
    (interrupted / "result.json").unlink()
    assert train_in(interrupted)["status"] == "completed"
    for name in ("result.json", "evaluation.json", "data.json"):
        assert json.loads((interrupted / name).read_text())


@pytest.mark.parametrize("content", ["[]", "null", "3"])
def test_what_should_be_an_object_and_is_not_is_refused(tmp_path, content):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(UserError, match=r"data\.json: lacks a JSON object; restore it"):
        read_json(tmp_path / "data.json", needs=())


# Metrics


@pytest.mark.parametrize(
    ("cut", "missing"),
    [
        (lambda lines: [], "6 of the 6 records until step 4"),
        (lambda lines: lines[:3], "3 of the 6 records until step 4"),
        (lambda lines: [*lines[:5], lines[5][:9]], "1 of the 6 records until step 4"),
        (lambda lines: lines[1:], "1 of the 6 records until step 4"),
        (lambda lines: lines[:6], None),
        (lambda lines: [*lines[:6], lines[6][:9]], None),  # of a step that comes again
        (None, "6 of the 6 records until step 4"),
    ],
)
def test_records_that_are_missing_from_the_curves_are_said(interrupted, caplog, cut, missing):
    metrics = interrupted / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)  # 4 steps, 2 evaluations, and step 5
    metrics.unlink()
    if cut:
        metrics.write_text("".join(cut(lines)))
    expected = json.loads((interrupted / "checkpoints" / "4" / "progress" / "metadata").read_text())[
        "records"
    ]
    with caplog.at_level(logging.WARNING, "jaxformer"):
        MetricWriter(interrupted, 4, expected, tensorboard=False).close()
    said = re.findall(r"metrics\.jsonl: (.+) are missing", caplog.text)
    assert said == ([missing] if missing else [])


def test_tensorboard_has_what_was_written_before_a_checkpoint(interrupted):
    from tensorboardX.proto.event_pb2 import Event

    found = set()
    for path in (interrupted / "tensorboard").iterdir():
        content = path.read_bytes()
        while content:  # TFRecord: length, its check, the event, its check
            size = int.from_bytes(content[:8], "little")
            found.add(Event.FromString(content[12 : 12 + size]).step)
            content = content[16 + size :]
    assert {1, 2, 3, 4} <= found


# Folders that vanish at once


def test_a_folder_is_never_seen_half_deleted(tmp_path, monkeypatch):
    folder = tmp_path / "4"
    folder.mkdir()
    (folder / "file").touch()

    def killed(path):
        assert not folder.exists()
        assert (path / "file").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        delete_at_once(folder)
