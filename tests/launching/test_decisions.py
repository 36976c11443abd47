"""Whether a training is started again: the table of exit codes, and what must hold of every history."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxformer.launching.attempts import Attempt
from jaxformer.launching.decisions import EXITS, Budgets, Restart, Stop, decide, meaning

ROOT = Path(__file__).parent.parent.parent
ACTIONS = {"over": "ends", "saved": "at once", "infrastructure": "later", "failed": "later"}
INFRASTRUCTURE = (69, 74, 134, 137, 139, 143, 124, 255)
FAILED = (1, 3, 70, 126, 127, 132, 254)


def attempt(exit_code, before=0, saved=0, steps=5):
    return Attempt(
        0.0, before=before, saved=saved, steps=steps, exit=exit_code, end=1.0, why=meaning(exit_code)
    )


def rehearsal(exit_code):
    return Attempt(0.0, rehearsal=True, exit=exit_code, end=1.0, why=meaning(exit_code))


PROGRESS = {"before": 10, "saved": 20}
NONE = {"before": 20, "saved": 20}
NO_STEP = {"steps": 0}
TABLE = [
    ("done", [attempt(0, **PROGRESS)], "done"),
    ("a mistake of the user's", [attempt(2)], "a mistake of the user's"),
    ("a mistake after progress", [attempt(137, **PROGRESS), attempt(2, **NONE)], "a mistake of the user's"),
    ("interrupted", [attempt(130, **PROGRESS)], "interrupted"),
    ("saved", [attempt(75, **PROGRESS)], 0.0),
    ("saved, again and again", [attempt(75, before=n, saved=n + 1) for n in range(50)], 0.0),
    ("told to end before anything new was saved", [attempt(75, **NONE)], 5.0),
    ("killed after progress", [attempt(137, **PROGRESS)], 5.0),
    ("killed after 50 kills with progress", [attempt(137, before=n, saved=n + 1) for n in range(50)], 5.0),
    ("killed without progress", [attempt(137, **NONE)], 5.0),
    ("killed twice without progress", [attempt(137, **NONE)] * 2, 10.0),
    ("killed three times without progress", [attempt(137, **NONE)] * 3, "no progress in 3 attempts: .*step 20"),
    ("killed before the first checkpoint", [attempt(137)] * 3, "no progress in 3 attempts: there is no check"),
    ("progress refunds", [attempt(137, **NONE)] * 2 + [attempt(137, before=20, saved=30)], 5.0),
    ("the wait begins anew", [attempt(137, **NONE)] * 2 + [attempt(137, **PROGRESS), attempt(1, **NONE)], 5.0),
    ("failed after progress", [attempt(1, **PROGRESS)], 5.0),
    ("failed", [attempt(1)], 5.0),
    ("failed twice", [attempt(1)] * 2, 10.0),
    ("failed three times", [attempt(1)] * 3, "no progress in 3 attempts"),
    ("no step yet", [attempt(1, **NO_STEP)], 5.0),
    ("never a step", [attempt(137, **NO_STEP), attempt(1, **NO_STEP)], "no train step was reached in 2 attem"),
    ("no step any more", [attempt(137, **PROGRESS)] + [attempt(1, **NONE, **NO_STEP)] * 2, 10.0),
    ("no step, but one before", [attempt(1), attempt(1, **NO_STEP)], 10.0),
    ("rehearsed", [rehearsal(0)], 0.0),
    ("a rehearsal that fails", [rehearsal(1)], "the program failed"),
    ("a mistake that a rehearsal finds", [rehearsal(2)], "a mistake of the user's"),
    ("a rehearsal that is killed", [rehearsal(137)], 5.0),
    ("two that are killed", [rehearsal(137), rehearsal(134)], "rehearsal failed in 2 attempts: aborted .SIGABRT"),
    ("two that find no room", [rehearsal(74)] * 2, "failed in 2 attempts: no room was left on the disk"),
    ("killed after rehearsals", [rehearsal(137), rehearsal(0), attempt(137, **NO_STEP)], 5.0),
]  # fmt: skip


@pytest.mark.parametrize(("attempts", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_follows(attempts, expected):
    decision = decide(attempts)
    if isinstance(expected, float):
        assert decision == Restart(expected)
    else:
        assert isinstance(decision, Stop)
        assert re.search(expected, decision.why)


@pytest.mark.parametrize("code", INFRASTRUCTURE + FAILED)
def test_what_went_wrong_is_tried_again(code):
    assert decide([attempt(code, **PROGRESS)]) == Restart(5.0)


def test_codes_are_told_apart():
    assert {code for code, (kind, _) in EXITS.items() if kind == "infrastructure"} == set(INFRASTRUCTURE)
    assert meaning(137).startswith("killed")
    assert meaning(129) == "ended by SIGHUP"
    assert meaning(3) == "the program failed"


def test_the_longest_wait():
    budgets = Budgets(without_progress=100)
    waits = [decide([attempt(137)] * n, budgets).after for n in range(1, 12)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300]


CODES = st.sampled_from([0, 2, 75, 130, *INFRASTRUCTURE, *FAILED])
ATTEMPTS = st.lists(
    st.builds(attempt, CODES, before=st.integers(0, 5), saved=st.integers(0, 5), steps=st.integers(0, 2)),
    min_size=1,
    max_size=12,
)


@given(ATTEMPTS, st.integers(1, 5), st.integers(1, 5))
def test_of_every_history(attempts, without_progress, before_first_step):
    budgets = Budgets(without_progress, before_first_step, shortest=1.0, longest=8.0)
    decision, last = decide(attempts, budgets), attempts[-1]
    if last.exit in (0, 2, 130):
        assert isinstance(decision, Stop)
    elif last.progress:
        assert decision == Restart(0.0 if last.exit == 75 else 1.0)
    elif (
        not any(each.progress for each in attempts[-without_progress:]) and len(attempts) >= without_progress
    ):
        assert isinstance(decision, Stop)
    if isinstance(decision, Restart):
        assert 0 <= decision.after <= 8


@given(ATTEMPTS, ATTEMPTS)
def test_what_came_before_progress_does_not_count(earlier, later):
    progress = [attempt(137, before=5, saved=6)]
    assert decide([*earlier, *progress, *later]) == decide([*progress, *later])


def test_no_training_goes_on_for_ever_without_progress():
    for code in {*range(256)}:
        history = []
        for _ in range(3):
            history.append(attempt(code))
            if isinstance(decide(history), Stop):
                break
        assert isinstance(decide(history), Stop)


@pytest.mark.parametrize("page", ["README.md", "docs/launching.md"])
def test_the_pages_have_all_exit_codes_and_what_the_supervisor_does(page):
    found = {}
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"\d+(, \d+)*", cells[0]):
            found |= {int(code): re.split("[;,]", cells[2])[0] for code in cells[0].split(", ")}
    assert found == {code: ACTIONS[kind] for code, (kind, _) in EXITS.items()}


def test_the_figures_of_faults_are_those_that_were_measured():
    shown = (ROOT / "docs/launching.md").read_text().partition("## Faults")[2].partition("\n## ")[0]
    measured = (ROOT / "docs/restarts.md").read_text()
    numbers = re.findall(r"\d+(?:\.\d+)?", shown)
    assert len(numbers) > 12
    assert [number for number in numbers if not re.search(rf"\b{re.escape(number)}\b", measured)] == []
    first_page = (ROOT / "README.md").read_text()
    assert "SIGTERM at any moment left it saved in 6.7 s at most" in first_page
    assert "6.7" in numbers
