"""The ledger of a run: what is written comes back, and what is cut short costs no more than itself."""

import json
import os

from jaxformer.launching.attempts import append, newest_checkpoint, read, since_stop

SECONDS = {"startup": 1.0, "compile": 2.0, "total": 3.0}


def supervised(path, start, before=0):
    append(path, "start", start=start, host="here", process={"number": 1}, before=before)


def trained(path, began, step, first=0, **seconds):
    append(path, "train", began=began, first=first, step=step, devices=8, seconds={**SECONDS, **seconds})


def ended(path, end, code=137, saved=0):
    append(path, "end", end=end, exit=code, why="killed", steps=3, saved=saved)


def test_an_attempt_comes_back(tmp_path):
    path = tmp_path / "attempts.jsonl"
    supervised(path, 100.0, before=10)
    trained(path, 101.0, 11, first=10)
    trained(path, 101.0, 20, first=10, total=9.0)
    ended(path, 120.0, saved=20)
    (found,) = read(path)
    assert (found.start, found.end, found.exit, found.host) == (100.0, 120.0, 137, "here")
    assert (found.first, found.before, found.saved, found.devices) == (10, 10, 20, 8)
    assert [(mark.step, mark.seconds["total"]) for mark in found.marks] == [(11, 3.0), (20, 9.0)]
    assert found.progress
    assert found.ended == 120.0


def test_trainings_without_a_supervisor_are_attempts(tmp_path):
    path = tmp_path / "attempts.jsonl"
    for began in (100.0, 200.0):
        trained(path, began, 1)
        trained(path, began, 5, total=30.0)
    found = read(path)
    assert [(each.start, each.ended, each.supervised) for each in found] == [
        (100.0, 130.0, False),
        (200.0, 230.0, False),
    ]
    assert since_stop(path) == []


def test_a_training_after_a_supervised_one_is_another_attempt(tmp_path):
    path = tmp_path / "attempts.jsonl"
    supervised(path, 100.0)
    trained(path, 101.0, 1)
    trained(path, 300.0, 1)  # the supervisor was killed, and saw no end
    supervised(path, 400.0)
    ended(path, 401.0)
    trained(path, 500.0, 1)
    assert [each.start for each in read(path)] == [100.0, 300.0, 400.0, 500.0]


def test_nothing_is_there_yet(tmp_path):
    assert read(tmp_path / "attempts.jsonl") == []


def test_a_line_cut_anywhere_costs_that_line_alone(tmp_path):
    whole = tmp_path / "whole"
    supervised(whole, 100.0)
    trained(whole, 101.0, 1)
    ended(whole, 110.0)
    content = whole.read_bytes()
    last = content[:-1].rindex(b"\n") + 1
    for cut in range(last, len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        supervised(path, 200.0)
        found = read(path)
        assert [each.start for each in found] == [100.0, 200.0]
        assert found[0].end == (110.0 if cut >= len(content) - 1 else None)
        os.remove(path)


def test_lines_of_others_are_passed_over(tmp_path):
    path = tmp_path / "attempts.jsonl"
    path.write_bytes(
        b'\x00\x00\xff\n[1]\n{}\n"event"\n' + json.dumps({"event": "later version"}).encode() + b"\n"
    )
    supervised(path, 100.0)
    assert [each.start for each in read(path)] == [100.0]


def test_a_stop_ends_what_budgets_count(tmp_path):
    path = tmp_path / "attempts.jsonl"
    for start in (100.0, 200.0):
        supervised(path, start)
        ended(path, start + 1)
    assert [each.start for each in since_stop(path)] == [100.0, 200.0]
    append(path, "stop", why="no progress")
    assert since_stop(path) == []
    supervised(path, 300.0)
    assert [each.start for each in since_stop(path)] == [300.0]
    assert len(read(path)) == 3


def test_only_committed_checkpoints_count(tmp_path):
    assert newest_checkpoint(tmp_path) == 0
    for name in ("5", "20", "20.corrupt", "30.orbax-checkpoint-tmp-1", "40"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    for name in ("5", "20", "20.corrupt", "30.orbax-checkpoint-tmp-1"):
        (tmp_path / "checkpoints" / name / "digests.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == 20
