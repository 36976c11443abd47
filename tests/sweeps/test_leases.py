"""A trial is in the hands of one worker, and goes to another when that one is dead."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from jaxformer.sweeps import leases as module
from jaxformer.sweeps.leases import Leases, this_process


def planted(folder, name, **changes):
    (folder / name).write_text(json.dumps({**this_process(), **changes}))


def ended_process():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_has_it_and_gives_it_back(tmp_path):
    one, two = Leases(tmp_path), Leases(tmp_path)
    with one.claimed("0001-seed0") as mine:
        assert mine
        assert two.held(["0001-seed0"])
        with two.claimed("0001-seed0") as also, two.claimed("0002-seed0") as other:
            assert (also, other) == (False, True)
    assert not two.held(["0001-seed0"])
    with two.claimed("0001-seed0") as mine:
        assert mine
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0001-seed0.0",
        "0001-seed0.1",
        "0002-seed0.0",
    ]


def test_many_ask_at_once_and_one_gets_it(tmp_path):
    planted(tmp_path, "a.0", pid=ended_process())
    got, barrier = [], threading.Barrier(8)

    def ask():
        barrier.wait()
        with Leases(tmp_path).claimed("a") as mine:
            got.append(mine)
            barrier.wait()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, False),  # this process
        ({"pid": os.getppid()}, False),  # another one that runs
        ({"pid": "dead"}, True),
        ({"boot": "another"}, True),  # this machine was started anew
        ({"host": "another", "pid": "dead"}, False),  # nothing is known of processes elsewhere
    ],
)
def test_who_is_dead(tmp_path, changes, free):
    if changes.get("pid") == "dead":
        changes = {**changes, "pid": ended_process()}
    planted(tmp_path, "a.0", **changes)
    assert bool(Leases(tmp_path).held(["a"])) != free


def test_another_machine_counts_as_dead_when_it_gives_no_sign_for_long(tmp_path, monkeypatch):
    planted(tmp_path, "a.0", host="another")
    leases, now = Leases(tmp_path), 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    assert leases.held(["a"])
    now += module.EXPIRES - 1
    assert leases.held(["a"])
    os.utime(tmp_path / "a.0", (5, 5))  # a sign of life, by a clock that is years behind
    now += 2
    assert leases.held(["a"])
    now += module.EXPIRES + 1
    assert not leases.held(["a"])


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOUCHED", 0.02)
    with Leases(tmp_path).claimed("a"):
        os.utime(tmp_path / "a.0", (5, 5))
        end = time.monotonic() + 10
        while (tmp_path / "a.0").stat().st_mtime < 1000 and time.monotonic() < end:
            time.sleep(0.01)
        assert (tmp_path / "a.0").stat().st_mtime > 1000


def test_who_has_lost_its_lease_ends_before_it_writes_anything(tmp_path):
    code = f"""
import pathlib, time
from jaxformer.sweeps import leases
leases.TOUCHED = 0.05
with leases.Leases(pathlib.Path({str(tmp_path)!r})).claimed("a"):
    print("has it", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "has it\n"
    planted(tmp_path, "a.1")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "another worker has taken over" in said
