"""What a process that hangs does, and what one that does not hang does not."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxformer.config.sections import WatchdogConfig

ROOT = Path(__file__).parent.parent.parent
# A clock as the training's, in a process that is up in a moment.
START = """
import ctypes, os, sys, threading, time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from jaxformer.launching import watchdog
from jaxformer.launching.watchdog import Watchdog

assert not {"jax", "numpy"} & set(sys.modules)
folder = Path(sys.argv[1])
watchdog.BEAT = 0.1
clock = SimpleNamespace(counts=Counter(), pace=SimpleNamespace(median=None))
LIMITS = {"train": 1.0}
limits = SimpleNamespace(seconds=lambda phase, median: LIMITS.get(phase))
def enter(phase):
    clock.current = (phase, time.monotonic())
enter("other")
"""


def start(folder, script, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", START + textwrap.dedent(script), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, script, **environment):
    process = start(folder, script, **environment)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said


def test_a_phase_that_takes_too_long_ends_the_process_and_shows_all_threads(tmp_path):
    script = """
    def reads_for_ever():
        time.sleep(600)
    def waits_for_the_reader(thread):
        thread.join()
    with Watchdog(limits, clock, folder):
        enter("train")
        reader = threading.Thread(target=reads_for_ever)
        reader.start()
        waits_for_the_reader(reader)
    """
    begun = time.monotonic()
    code, said = run(tmp_path, script)
    assert code == 124
    assert time.monotonic() - begun < 20
    stacks = (tmp_path / "stacks.txt").read_text()
    for text in (said, stacks):
        assert "'train' took longer than 1 s: the training hangs and is ended" in text
        assert "in reads_for_ever" in text
        assert "in waits_for_the_reader" in text


def test_phases_that_end_in_time_and_those_without_a_limit_are_left_alone(tmp_path):
    script = """
    with Watchdog(limits, clock, folder):
        for phase in ("train", "train", "train", "startup"):
            enter(phase)
            time.sleep(0.6)
        time.sleep(1.0)
    assert threading.active_count() == 1
    """
    assert run(tmp_path, script) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_stopped_is_not_blamed_for_that(tmp_path):
    script = """
    watchdog.LATE = 0.5
    with Watchdog(limits, clock, folder):
        enter("train")
        (folder / "ready").touch()
        while not (folder / "done").exists():
            time.sleep(0.05)
    """
    process = start(tmp_path, script)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    (tmp_path / "done").touch()
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said


# PyDLL keeps the lock of the interpreter while C sleeps.
STUCK = """
watchdog.GRACE = 0.2
def stands_still():
    ctypes.PyDLL(None).sleep(SECONDS)
with Watchdog(limits, clock, folder):
    enter("train")
    (folder / "ready").touch()
    time.sleep(0.5)
    stands_still()
    os._exit(7)
"""


def test_the_stacks_are_written_even_while_python_stands_still(tmp_path):
    code, said = run(tmp_path, STUCK.replace("SECONDS", "3"))
    assert code in (7, 124)  # it goes on in the end; whichever thread is first
    assert "Timeout (0:00:0" in said
    assert "in stands_still" in said.partition("took longer")[0]


def test_sigabrt_shows_the_stacks_while_python_stands_still(tmp_path):
    process = start(tmp_path, STUCK.replace("SECONDS", "60"))
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    time.sleep(0.8)
    process.send_signal(signal.SIGABRT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGABRT
    assert "in stands_still" in said


def test_the_heart_beats_and_tells_of_the_steps(tmp_path):
    beats = tmp_path / "beats"
    beats.mkdir()
    script = """
    beats = Path(os.environ["JAXFORMER_HEARTBEATS"])
    with Watchdog(limits, clock, folder):
        seen = set()
        for n in range(5):
            clock.counts["train"] = n
            file = beats / str(os.getpid())
            while not (file.exists() and file.read_text() == str(n)):
                time.sleep(0.02)
            seen.add(file.stat().st_mtime_ns)
    assert len(seen) == 5
    """
    assert run(tmp_path, script, JAXFORMER_HEARTBEATS=str(beats)) == (0, "")
    assert list(beats.iterdir()) == []


def test_a_supervisor_that_is_gone_costs_nothing(tmp_path):
    script = "with Watchdog(limits, clock, folder):\n    time.sleep(0.5)"
    assert run(tmp_path, script, JAXFORMER_HEARTBEATS=str(tmp_path / "gone")) == (0, "")


LIMITS = [
    ("compile", None, 1800.0),
    ("evaluate", 1.0, 1800.0),
    ("restore", None, 900.0),
    ("checkpoint", 1.0, 900.0),
    ("data", 1.0, 900.0),
    ("train", None, 1800.0),
    ("train", 0.01, 60.0),
    ("train", 3.0, 60.0),
    ("train", 10.0, 200.0),
    ("startup", None, None),
    ("report", 1.0, None),
    ("other", 1.0, None),
]


@pytest.mark.parametrize(("phase", "median", "limit"), LIMITS)
def test_the_limits_by_default(phase, median, limit):
    assert WatchdogConfig().seconds(phase, median) == limit


def test_none_of_a_limit_lets_a_phase_take_any_time():
    fields = ("compile_minutes", "save_minutes", "data_minutes", "step_seconds")
    config = WatchdogConfig(**dict.fromkeys(fields))
    assert {config.seconds(phase, median) for phase, median, _ in LIMITS} == {None}
