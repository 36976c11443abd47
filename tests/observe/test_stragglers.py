"""Which of several processes is behind, and when that is told."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.several import Several

from jaxformer.observe.stragglers import Said, Stragglers, behind
from jaxformer.observe.timing import Clock

CONFIG = str(Path(__file__).parent.parent.parent / "configs" / "vit_digits.py")
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [{"name": "helpers.slowed:Slowed"}],
    "data.read_threads": 1,
    "eval.split": "test[:16]",
    "eval.every": "2000 steps",
    "train.total": "2000 steps",
    "train.log_every": "50 steps",
    "parallel.timeouts.start": 60,
}


def said(steps=100, phase="train", seconds=0.1, waits=(0.0, 0.01, 0.19)):
    parts = None if waits is None else dict(zip(("data", "dispatch", "the device"), waits))
    return Said(0, steps, phase, seconds, parts)


def test_processes_that_keep_up_are_not_named():
    assert behind({}, {}) == {}
    assert behind({n: said(100 + n % 2, ("train", "data")[n % 2]) for n in range(4)}, {}) == {}


# Seconds of each process for data, dispatch and the device, and what is said of whom.
PACES = {
    "data": (
        [(0.0, 0.01, 0.3), (0.3, 0.01, 0.0)],
        {1: "it takes 0.3 s longer for data in each step of 0.31 s"},
    ),
    "dispatch": (
        [(0.01, 0.12, 0.0), (0.01, 0.02, 0.1), (0.01, 0.02, 0.1)],
        {0: "it takes 0.1 s longer for dispatch in each step of 0.13 s"},
    ),
    "two of five": (
        [(0.0, 0.01, 0.2), (0.2, 0.01, 0.0), (0.0, 0.01, 0.2), (0.0, 0.01, 0.2), (0.2, 0.01, 0.0)],
        dict.fromkeys((1, 4), "it takes 0.2 s longer for data in each step of 0.21 s"),
    ),
    "data that come while the devices compute": ([(0.0, 0.01, 0.3), (0.1, 0.01, 0.2)], {}),
    "all wait for data": ([(0.3, 0.01, 0.0), (0.31, 0.01, 0.0), (0.3, 0.01, 0.0)], {}),
    "milliseconds": ([(0.0, 0.001, 0.01), (0.01, 0.001, 0.0)], {}),
    "one has just begun": ([(0.0, 0.01, 0.3), None], {}),
}


@pytest.mark.parametrize("name", PACES)
def test_a_process_whose_host_is_late_with_every_step_is_named(name):
    waits, expected = PACES[name]
    assert behind({index: said(waits=each) for index, each in enumerate(waits)}, {}) == expected


STANDING = {
    "waits for a batch": ([said(100, "train", 12), said(100, "data", 14)], {1: "'data'"}),
    "saves while the others go on": (
        [said(100, "checkpoint", 30), said(100, "train", 25), said(100, "train", 25)],
        {0: "'checkpoint'"},
    ),
    "has not got the step from its device": (
        [said(101, "train", 12), said(100, "train", 40)],
        {1: "'train'"},
    ),
    "two": ([said(100, "train", 12), *[said(100, "data", 14)] * 2], {1: "'data'", 2: "'data'"}),
    "for a moment": ([said(100, "train", 6), said(100, "data", 40)], {}),
    "all wait on their devices": ([said(100, "train", 40), said(100, "train", 40)], {}),
    "all wait for data": ([said(100, "data", 40), said(100, "data", 40)], {}),
    "process 0 writes its report": ([said(100, "report", 40), said(100, "other", 40)], {}),
}


@pytest.mark.parametrize("name", STANDING)
def test_a_process_for_which_the_others_stand_still_is_named(name):
    processes, expected = STANDING[name]
    found = behind(dict(enumerate(processes)), {})
    assert found.keys() == expected.keys()
    for index, phase in expected.items():
        assert found[index].startswith("the others have waited for it for ")
        assert found[index].endswith(f", it is at {phase}")


def test_silence_comes_first():
    waits = {0: said(100, "train", 40), 1: said(100, "data", 40)}
    assert behind(waits, {1: 35.0}) == {1: "nothing was heard of it for 35 s"}


def beats(number, each):
    return Said(**(vars(each) | {"number": number}))


@pytest.fixture
def told(caplog):
    """What a look at each of several moments tells; a moment has what processes say, of numbers that go on."""
    stragglers = Stragglers(Clock())

    def look(*moments):
        for number, moment in moments:
            stragglers.look({index: beats(number, each) for index, each in enumerate(moment)})
        found = list(caplog.messages)
        caplog.clear()
        return found

    return look


GOOD = [said(), said()]
BAD = [said(waits=(0.0, 0.01, 0.3)), said(waits=(0.3, 0.01, 0.0))]
LINE = "process 1: behind the others; it takes 0.3 s longer for data in each step of 0.31 s"


def test_trouble_is_told_once(told):
    assert told((1, GOOD), (2, BAD)) == []
    assert told((3, BAD)) == [LINE]
    assert told((4, BAD), (5, GOOD), (6, BAD), (7, BAD)) == []
    assert told((8, GOOD), (9, GOOD), (10, GOOD), (11, BAD), (12, GOOD), (13, GOOD)) == []
    assert told((14, BAD), (15, BAD)) == [LINE]


def test_several_are_told_of_in_one_line(told):
    others = [*[said(waits=(0.0, 0.01, 0.3))] * 3, BAD[1], BAD[1]]
    first = LINE.replace("process 1", "processes 3-4").replace("; it", "; process 3: it")
    assert told((1, others), (2, others)) == [first]


def test_a_process_that_says_nothing_new_is_told_of(told):
    assert told(*[(7, GOOD)] * 7) == []
    assert told((7, GOOD)) == [
        "processes 0-1: behind the others; process 0: nothing was heard of it for 35 s"
    ]


@pytest.mark.slow
def test_a_process_is_named_that_is_slow_with_its_data(tmp_path, digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    overrides = [f"--config.{leaf}={value}" for leaf, value in TINY.items()]
    words = ["train", "--config", CONFIG, "--workdir", str(tmp_path / "run"), *overrides]
    with Several(tmp_path) as several:
        started = several.start([words] * 2, devices=1)
        several.wait_for("process 1: behind the others; it takes ")
        begun = time.monotonic()
        os.kill(started[0], signal.SIGTERM)
        assert several.ask(wait=started) == [75, 75], several.said()
        assert time.monotonic() - begun < 30
    assert several.said().count("behind the others") == 1
    assert "longer for data in each step" in several.said()
    assert "behind the others" not in several.said(1)
