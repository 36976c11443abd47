"""Where every second of a run went: worked out by hand, and always as many as have passed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxformer import cli
from jaxformer.launching.attempts import Attempt, Mark, append
from jaxformer.observe.goodput import BUCKETS, goodput, goodput_of
from jaxformer.runs import Run


def mark(step, **seconds):
    known = {"startup": 2.0, "compile": 10.0, **seconds}
    return Mark(step, {**known, "total": sum(known.values())})


def close(found, expected):
    assert {name: round(value, 6) for name, value in found.seconds.items() if value} == expected


def test_one_attempt_that_was_left_alone():
    marks = [
        mark(1, train=0.0),
        mark(50, train=40.0, data=1.0, checkpoint=2.0, evaluate=4.0, report=3.0, other=0.5),
    ]
    alone = Attempt(100.0, began=100.0, first=0, devices=4, marks=marks)
    found = goodput([alone])
    close(
        found, {"start": 2, "compile": 10, "steps": 40, "data": 1, "saving": 2, "evaluation": 4, "other": 3.5}
    )
    assert found.total == 62.5
    assert found.share == 40 / 62.5
    assert found.device_hours == 4 * 62.5 / 3600


def supervised(start, end, exit_code=137, **values):
    return Attempt(start, supervised=True, end=end, exit=exit_code, **values)


def test_what_was_done_after_the_save_from_which_the_next_went_on_is_lost():
    killed = supervised(
        100.0,
        200.0,
        began=105.0,
        first=0,
        devices=8,
        marks=[
            mark(1),
            mark(10, train=20.0, checkpoint=1.0),
            mark(20, train=45.0, evaluate=5.0, checkpoint=2.0),  # whose save was never committed
        ],
    )
    again = supervised(
        210.0, 260.0, 0, began=215.0, first=10, devices=4,
        marks=[mark(30, restore=3.0, train=28.0, report=1.0)],
    )  # fmt: skip
    found = goodput([killed, again])
    # Of the first, 100 s: 5 before it began, 12, 20 of steps, 1 saving; the rest is lost. Then 10 s until the second.
    close(
        found,
        {"start": 9 + 5, "compile": 20, "steps": 48, "saving": 1, "lost": 62, "between": 10, "restore": 3, "other": 2},
    )  # fmt: skip
    assert found.total == 160
    assert found.device_hours == pytest.approx((8 * 110 + 4 * 50) / 3600)
    lines = found.lines(price=3.6)
    assert lines["goodput"].startswith("30% of 2:40 min: lost 1:02 min, steps 48 s, ")
    assert lines["attempts"] == "2; 1:12 min lost after saves and between attempts"
    assert lines["money"] == "1.08, of which train steps that count 0.32"


def test_an_attempt_that_never_began_and_one_that_died_before_it_saved():
    dead = supervised(0.0, 30.0)
    unsaved = supervised(40.0, 100.0, began=45.0, first=0, devices=1, marks=[mark(1)])
    done = supervised(100.0, 145.0, 0, began=105.0, first=0, devices=1, marks=[mark(9, train=27.0)])
    close(
        goodput([dead, unsaved, done]),
        {"start": 30 + 7 + 7, "compile": 20, "lost": 43, "between": 10, "steps": 27, "other": 1},
    )


def test_a_checkpoint_that_was_damaged_loses_an_attempt_before_the_last():
    first = Attempt(
        0.0, began=0.0, first=0, devices=1, marks=[mark(1), mark(10, train=10.0), mark(20, train=20.0)]
    )
    second = Attempt(40.0, began=40.0, first=20, devices=1, marks=[mark(30, train=10.0)])
    third = Attempt(70.0, began=70.0, first=10, devices=1, marks=[mark(30, train=20.0)])
    close(
        goodput([first, second, third]),
        {"start": 6, "compile": 30, "steps": 10 + 20, "lost": 10 + 10, "between": 8 + 8},
    )


def test_no_attempt():
    assert goodput([]) is None


SECONDS = st.floats(0, 1000)
NAMES = ("startup", "compile", "restore", "data", "train", "evaluate", "checkpoint", "report", "other")


@st.composite
def attempts(draw):
    made, now = [], draw(SECONDS)
    for _ in range(draw(st.integers(1, 5))):
        start = now = now + draw(SECONDS)
        trains, marks, seconds = draw(st.booleans()), [], dict.fromkeys(NAMES, 0.0)
        began, first = start + draw(SECONDS), draw(st.integers(0, 20))
        for step in range(first + 1, first + 1 + draw(st.integers(1, 4))):
            seconds = {name: value + draw(SECONDS) for name, value in seconds.items()}
            marks.append(Mark(step, {**seconds, "total": sum(seconds.values())}))
        if trains:
            now = began + marks[-1].seconds["total"]
        end = now = now + draw(SECONDS)
        trained = {"began": began, "first": first, "devices": 2, "marks": marks} if trains else {}
        made.append(supervised(start, end, draw(st.sampled_from([0, 1, 75, 137])), **trained))
    return made


@given(attempts())
def test_buckets_add_up_to_the_time_that_has_passed(made):
    found = goodput(made)
    assert found.total == pytest.approx(made[-1].end - made[0].start, abs=1e-6)
    assert found.seconds.keys() == BUCKETS.keys()
    assert min(found.seconds.values()) >= -1e-6
    assert 0 <= found.share <= 1 + 1e-9


def test_the_verb_says_it_and_what_it_cost(make_run, capsys):
    folder = make_run("vit_digits")
    assert cli.main(["goodput", str(folder)]) == 2
    assert "no attempt is noted there" in capsys.readouterr().err
    path = folder / "attempts.jsonl"
    seconds = {"startup": 600.0, "train": 3000.0, "total": 3600.0}
    append(path, "train", began=1.0, first=0, step=50, devices=4, seconds=seconds)
    assert cli.main(["goodput", str(folder), "--price", "2.5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "goodput       83% of 1:00:00 h: steps 50:00 min, start 10:00 min",
        "device-hours  4 (4 devices)",
        "money         10.00, of which train steps that count 8.33",
    ]
    assert cli.main(["goodput", str(folder), "--price", "2.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["money"] == 10.0
    assert found["goodput"] == 3000 / 3600
    assert found["seconds"]["GOODPUT"] == 3000
    assert found["seconds"]["TRAINING_PREP"] == 600
    assert sum(found["seconds"].values()) == found["total"] == 3600


def test_the_report_has_a_bar_of_all_attempts(make_run):
    from jaxformer.observe.report import write_report

    folder = make_run("vit_digits")
    for began, first, step in ((100.0, 0, 20), (200.0, 10, 40)):
        for steps in (step - 10, step):
            seconds = {"startup": 10.0, "train": 1.0 * (steps - first), "total": 10.0 + steps - first}
            append(
                folder / "attempts.jsonl",
                "train",
                began=began,
                first=first,
                step=steps,
                devices=1,
                seconds=seconds,
            )
    page = write_report(folder).read_text()
    assert "goodput: 29% of 2:20 min: between 1:10 min, steps 40 s, start 20 s, lost 10 s" in page
    assert 'title="lost 10 s"' in page
    assert "compile 5.2 s" not in page  # what result.json says of the last attempt alone


def test_who_died_first_is_told_of_several_machines(tmp_path):
    """Machine b is killed twice, and the others end by that; a dies once of its own. SIGTERM to all is no death."""
    ends = {
        "attempts.jsonl": (
            "a",
            [(100, 212, 134), (220, 300.2, 134), (310, 400, 1), (410, 500, 75), (510, 520, 0)],
        ),
        "attempts-1.jsonl": ("b", [(101, 212.5, 137), (221, 300, 137), (311, 401, 134), (410, 499, 75)]),
        "attempts-2.jsonl": ("c", [(100, 212.1, 69), (221, 300.1, 134), (311, 402, 134), (410, 501, 75)]),
    }
    for name, (host, attempts) in ends.items():
        for start, end, code in attempts:
            values = {"host": host, "process": {}, "before": 0, "rehearsal": False}
            append(tmp_path / name, "start", start=float(start), **values)
            append(tmp_path / name, "end", end=float(end), exit=code, why="", steps=0, saved=0)
    found = goodput_of(Run(tmp_path))
    assert found.died_first == {"1 (b)": 2, "0 (a)": 1}
    assert found.lines()["died first"] == "1 (b) 2 times, 0 (a) 1 time"
    assert found.to_json()["died_first"] == {"1 (b)": 2, "0 (a)": 1}
    for path in tmp_path.glob("attempts-*"):
        path.unlink()
    assert "died first" not in goodput_of(Run(tmp_path)).lines()  # alone it is always the first
