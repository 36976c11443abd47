"""The supervisor rehearses a new training first; trainings are small scripts that need no JAX."""

import sys
import textwrap

import pytest

from jaxformer.launching import ATTEMPTS
from jaxformer.launching.attempts import append, read
from jaxformer.launching.decisions import Budgets
from jaxformer.launching.supervisor import Supervisor
from jaxformer.observe.goodput import goodput

# `rehearsal`, the number of `times` that this was started so, and `save` a checkpoint.
START = """
import os, sys
from pathlib import Path
run, rehearsal = Path(sys.argv[1]), sys.argv[2:] == ["--rehearse"]
with (run / "started").open("a+") as file:
    print("rehearsal" if rehearsal else "training", file=file)
times = (run / "started").read_text().split().count("rehearsal" if rehearsal else "training")
def save(step):
    (run / "checkpoints" / str(step)).mkdir(parents=True)
    (run / "checkpoints" / str(step) / "digests.json").write_text("{}")
"""


@pytest.fixture
def supervise(tmp_path):
    """Supervises a script; returns the exit code and what was said."""

    def supervised(script, **options):
        said = []
        words = [sys.executable, "-S", "-c", START + textwrap.dedent(script), str(tmp_path)]
        options = {"rehearses": True, "say": said.append, **options}
        return Supervisor(words, tmp_path, Budgets(shortest=0.01), **options).run(), "\n".join(said)

    return supervised


@pytest.fixture
def started(tmp_path):
    return lambda: (tmp_path / "started").read_text().split()


def test_a_rehearsal_comes_first_and_is_no_attempt(supervise, started, tmp_path):
    code, said = supervise("if not rehearsal: save(times); times == 2 or os.kill(os.getpid(), 9)")
    assert (code, started()) == (0, ["rehearsal", "training", "training"])
    assert said.startswith("jaxformer: attempt 1 ended at ")
    assert [(each.rehearsal, each.exit) for each in read(tmp_path / ATTEMPTS)] == [
        (True, 0),
        (False, 137),
        (False, 0),
    ]
    assert goodput(read(tmp_path / ATTEMPTS)).attempts == 2


@pytest.mark.parametrize("code", [1, 2])
def test_where_it_fails_nothing_is_trained(supervise, started, code):
    found, said = supervise(f"sys.exit({code})")
    assert (found, started()) == (code, ["rehearsal"])
    assert "the rehearsal ended at " in said
    assert f", exit code {code}: " in said


def test_one_that_is_killed_is_repeated_and_costs_the_training_nothing(supervise, started):
    script = """
    if rehearsal and times == 1 or not rehearsal and times < 3:
        rehearsal or times == 1 or save(1)
        os.kill(os.getpid(), 9)
    """
    code, said = supervise(script)
    assert (code, started()) == (0, ["rehearsal"] * 2 + ["training"] * 3)
    assert "jaxformer: the rehearsal ended at " in said
    assert "attempt 2 ended" in said


def test_one_that_is_always_killed_is_given_up(supervise, started):
    code, said = supervise("os.kill(os.getpid(), 9)")
    assert (code, started()) == (137, ["rehearsal"] * 2)
    assert "it is not started again: the rehearsal failed in 2 attempts: " in said


def test_a_training_that_was_begun_is_not_rehearsed(supervise, started, tmp_path):
    supervise("rehearsal or sys.exit(2)")
    assert started() == ["rehearsal", "training"]
    supervise("rehearsal or save(5)")  # after a supervisor has stopped, all begins anew
    assert started()[2:] == ["rehearsal", "training"]
    supervise("")
    assert started()[4:] == ["training"]


def test_after_a_restart_of_the_supervisor_it_is_not_repeated(supervise, started, tmp_path):
    append(tmp_path / ATTEMPTS, "start", start=1.0, rehearsal=True)
    append(tmp_path / ATTEMPTS, "end", end=2.0, exit=0)
    assert supervise("")[0] == 0
    assert started() == ["training"]


def test_a_rehearsal_whose_supervisor_was_killed_is_repeated(supervise, started, tmp_path):
    append(
        tmp_path / ATTEMPTS,
        "start",
        start=1.0,
        rehearsal=True,
        process={"number": 1, "identity": "", "boot": ""},
    )
    assert supervise("")[0] == 0
    assert started() == ["rehearsal", "training"]


def test_all_hosts_ask_the_first_ones_ledger(supervise, started, tmp_path):
    append(tmp_path / ATTEMPTS, "start", start=1.0, rehearsal=True)
    assert supervise("", ledger="attempts-1.jsonl")[0] == 0
    assert started() == ["rehearsal", "training"]
    append(tmp_path / ATTEMPTS, "end", end=2.0, exit=0)
    assert supervise("", ledger="attempts-2.jsonl")[0] == 0
    assert started()[2:] == ["training"]


def test_without_it_nothing_is_rehearsed(supervise, started):
    assert supervise("", rehearses=False)[0] == 0
    assert started() == ["training"]


def test_the_time_of_a_rehearsal_is_part_of_the_start(tmp_path):
    path = tmp_path / ATTEMPTS
    append(path, "start", start=0.0, rehearsal=True)
    append(path, "end", end=20.0, exit=0)
    append(path, "start", start=21.0)
    append(
        path,
        "train",
        step=1,
        began=25.0,
        first=0,
        devices=4,
        seconds={"startup": 5.0, "train": 10.0, "total": 15.0},
    )
    append(path, "end", end=40.0, exit=0)
    found = goodput(read(path))
    assert {name: value for name, value in found.seconds.items() if value} == {
        "start": 29.0,
        "between": 1.0,
        "steps": 10.0,
    }
    assert found.device_hours == 4 * 40 / 3600
