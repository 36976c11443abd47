"""`jaxformer chaos`: its plan, its comparison and what it says, without training; and all of it,
with six kills or in slow tests with more."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.debugging import chaos, disks, troubles
from jaxformer.debugging.troubles import Outcome, Trouble
from jaxformer.errors import UserError
from jaxformer.launching import ATTEMPTS, attempts
from jaxformer.launching.attempts import Attempt, Mark
from jaxformer.launching.processes import end_session

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_has_all_kinds_and_leaves_room_for_progress(seed):
    plan = troubles.planned(50, seed)
    assert plan == troubles.planned(50, seed)
    assert Counter(trouble.kind for trouble in plan) == dict.fromkeys(troubles.KINDS, 10)
    assert not plan[0].early
    assert not any(one.early and other.early for one, other in pairwise(plan))
    assert {trouble.kind for trouble in plan if trouble.early} <= {"SIGKILL", "SIGTERM"}
    assert all(0 <= trouble.share < 1 for trouble in plan)
    assert {trouble.process is None for trouble in plan} == {True, False}
    assert all(trouble.process is None for trouble in plan if trouble.kind == "full disk")


def test_a_plan_without_full_disks_has_the_others_as_often():
    plan = troubles.planned(8, 0, ("SIGKILL", "SIGTERM", "SIGSTOP", "slow"))
    assert sorted(Counter(trouble.kind for trouble in plan).values()) == [2, 2, 2, 2]


def test_plans_of_other_seeds_are_others_and_some_kills_come_early():
    plans = [troubles.planned(50, seed) for seed in range(5)]
    assert all(plans[0] != plan for plan in plans[1:])
    assert all(any(trouble.early for trouble in plan) for plan in plans)


def test_states_are_compared_bit_for_bit():
    state = {
        "params/a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "params/b": np.array([1, np.nan], ml_dtypes.bfloat16),
        "step": np.int32(7),
    }
    same = {path: np.array(array) for path, array in state.items()}
    assert troubles.first_difference(state, same) is None

    def difference(path, array):
        return troubles.first_difference({**state, path: array}, state)

    assert difference("params/a", state["params/a"] + np.eye(2, 3, 2, dtype=np.float32)) == (
        "params/a[0, 2] is np.float32(3.0), and was np.float32(2.0)"
    )
    negative_zero = state["params/a"].copy()
    negative_zero[0, 0] = -0.0
    assert difference("params/a", negative_zero).endswith(
        "[0, 0] is np.float32(-0.0), and was np.float32(0.0)"
    )
    assert difference("step", np.int32(8)) == "step[] is np.int32(8), and was np.int32(7)"
    assert difference("params/b", np.array([2, np.nan], ml_dtypes.bfloat16)).startswith("params/b[0] is ")
    assert difference("step", np.int64(7)) == "step is int64[], and was int32[]"
    assert difference("params/c", np.zeros(1)) == "params/c is in one of the two alone"


def test_the_summary_says_how_often_how_soon_and_what_it_cost():
    def outcome(kind, seconds, repeated):
        return Outcome(Trouble(kind, False, 0.5, None), seconds, repeated)

    outcomes = [outcome("SIGKILL", 0.2, 1), outcome("SIGSTOP", 14.0, 3), outcome("SIGKILL", 0.4, 2)]
    outcomes.append(outcome("slow", None, 0))
    assert list(troubles.summary(outcomes, 2, (20.0, 80.0))) == [
        "disturbed 2 x SIGKILL, 1 x SIGSTOP, 1 x slow",
        "SIGKILL noticed, all processes dead: after 0.3 s (median), 0.4 s at most",
        "SIGSTOP noticed, all processes dead: after 14.0 s (median), 14.0 s at most",
        "repeated 6 steps in all, 3 at most after a kill; a checkpoint is saved every 2 steps; more than that 1 time,"
        " when the newest checkpoint was still being written",
        "took 80 s, undisturbed 20 s: 60 s lost",
    ]
    assert troubles.told(3, outcomes[0]) == (
        "   3  SIGKILL, all processes: noticed after 0.2 s, 1 step to repeat"
    )
    assert troubles.told(4, outcomes[3]) == "   4  slow, all processes: it went on"
    full = Outcome(Trouble("full disk", False, 0.5, None), 3.0, 2)
    assert troubles.told(5, full) == "   5  full disk: noticed after 3.0 s, 2 steps to repeat"


def test_a_training_that_saves_too_seldom_is_refused():
    assert troubles.checked_interval(total=42, every=2, kills=6) == 2
    with pytest.raises(UserError, match=r"kills=6: 21 checkpoints are needed, and in 40 steps 20 are saved"):
        troubles.checked_interval(total=40, every=2, kills=6)
    with pytest.raises(UserError, match=r"in 1,000 steps 1 is saved"):
        troubles.checked_interval(total=1000, every=None, kills=6)


def test_the_tiny_form_is_long_enough_and_goes_through_a_file(tmp_path):
    config = troubles.tiny_form(resolve(files.read("vit_digits")), kills=6)
    assert (str(config.train.total), str(config.checkpoint.every)) == ("42 steps", "2 steps")
    (tmp_path / "config.py").write_text(troubles.config_file(config))
    assert resolve(files.read(str(tmp_path / "config.py"))) == config


def test_the_rhythm_is_that_of_the_undisturbed_training():
    marks = [Mark(step, {"total": seconds}) for step, seconds in ((1, 4.0), (2, 5.0), (4, 5.5), (6, 6.0))]
    start, between = chaos.rhythm_of(Attempt(start=100.0, began=103.0, marks=marks))
    assert (start, between) == (pytest.approx(7.0), pytest.approx(2 / 3))


def test_signals_meet_the_processes_that_train():
    command = ["sh", "-c", "sleep 60 & sleep 60 & wait"]
    with subprocess.Popen(command, start_new_session=True) as leader:
        try:
            until = time.monotonic() + 20
            while len(both := chaos.targets(leader.pid, None)) < 2 and time.monotonic() < until:
                time.sleep(0.01)
            assert len(both) == 2
            assert leader.pid not in both
            assert [chaos.targets(leader.pid, share) for share in (0.0, 0.99)] == [[both[0]], [both[1]]]
        finally:
            end_session(leader.pid)
    assert chaos.targets(leader.pid, None) == [leader.pid]  # which is met before it has started any


def supervised(tmp_path, script):
    """The words of what takes the place of a supervisor: it starts a script, and notes its start and its end."""
    supervise = (
        "import subprocess, sys, time; from pathlib import Path; from jaxformer.launching import attempts\n"
        "note = lambda *event, **values: attempts.append(Path(sys.argv[1]), *event, **values)\n"
        "child = subprocess.Popen(['sh', '-c', sys.argv[2]], start_new_session=True)\n"
        "note('start', start=time.time(), host='', process={'number': child.pid}, before=0)\n"
        "code = child.wait(); note('end', end=time.time(), exit=code)\n"
    )
    save(tmp_path, 2)
    return [sys.executable, "-c", supervise, str(tmp_path / ATTEMPTS), script]


def save(run, step):
    (saved := run / "checkpoints" / str(step)).mkdir(parents=True)
    (saved / "digests.json").write_text("{}")


def meets(tmp_path, script, trouble):
    """What comes of a trouble."""
    words = supervised(tmp_path, script)
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        number = chaos.moment(process, tmp_path, 0, trouble, (0.1, 0.1))
        outcome = chaos.make(process, tmp_path, number, trouble)
        for each in attempts.read(tmp_path / ATTEMPTS):
            end_session(each.process["number"])
    return outcome


def test_trouble_for_an_attempt_lasts_until_the_ledger_has_its_end(tmp_path):
    trouble = Trouble("SIGKILL", early=False, share=0.5, process=None)
    words = supervised(tmp_path, "exec sleep 60")
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        number = chaos.moment(process, tmp_path, 0, trouble, (0.1, 0.1))
        assert number == 0
        outcome = chaos.make(process, tmp_path, number, trouble)
    (attempt,) = attempts.read(tmp_path / ATTEMPTS)
    assert attempt.exit == -9
    assert 0 < outcome.seconds < 20
    assert outcome.repeated == 0  # it has taken no step that is known of
    assert chaos.moment(process, tmp_path, 1, trouble, (0.1, 0.1)) is None


@pytest.mark.parametrize("start", [1000.0, 0.3])
def test_trouble_for_a_start_that_is_quicker_than_the_undisturbed_one_is_not_late(tmp_path, start):
    """It has saved at once: what was to come while it starts comes then, and not after a share of 1,000 seconds."""
    trouble = Trouble("SIGKILL", early=True, share=0.9, process=None)
    with subprocess.Popen(
        supervised(tmp_path, "exec sleep 60"), env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        begun = time.monotonic()
        number = chaos.moment(process, tmp_path, 0, trouble, (start, 1000.0))
        assert time.monotonic() - begun < 20
        chaos.make(process, tmp_path, number, trouble)


def test_how_long_starts_take():
    began = Attempt(start=100.0, began=103.0, marks=[Mark(1, {"total": 4.0})])
    assert [chaos.start_of(each) for each in (began, Attempt(start=100.0))] == [7.0, float("inf")]


def test_a_training_that_stands_still_for_seconds_goes_on_or_it_is_told(tmp_path, monkeypatch):
    """The processes are those of a shell, which save when they go on, or end."""
    monkeypatch.setattr(chaos, "PAUSE", 0.5)
    slow = Trouble("slow", early=False, share=0.5, process=None)
    again = f"mkdir {tmp_path}/checkpoints/4 && touch {tmp_path}/checkpoints/4/digests.json; sleep 60"
    assert meets(tmp_path, f"(sleep 0.6; {again}) & wait", slow) == Outcome(slow, None, 0)
    (other := tmp_path / "other").mkdir()
    assert meets(other, "(sleep 0.6; exit 3) & wait $!", slow).seconds > 0.3


def test_a_full_disk_stays_full_until_the_training_has_ended(tmp_path, monkeypatch):
    full = Trouble("full disk", early=False, share=0.5, process=None)
    filled = []
    monkeypatch.setattr(chaos, "fill", lambda file: filled.append(file.touch()))
    outcome = meets(tmp_path, f"until [ -e {tmp_path}/{chaos.FILLER} ]; do sleep 0.05; done; sleep 0.3", full)
    assert len(filled) > 3
    assert not (tmp_path / chaos.FILLER).exists()
    assert 0.2 < outcome.seconds < 20


def test_a_small_disk_is_filled_and_what_it_holds_is_kept(tmp_path):
    with disks.small_disk(tmp_path / "run", 2**20) as mounted:
        (tmp_path / "run" / "kept").write_bytes(b"kept")
        if mounted:
            disks.fill(tmp_path / "run" / "filler")
            with pytest.raises(OSError, match="No space left on device"):
                (tmp_path / "run" / "more").write_bytes(bytes(2**13))
            (tmp_path / "run" / "filler").unlink()
            (tmp_path / "run" / "more").write_bytes(bytes(2**13))
            assert disks.taken(tmp_path / "run") == 4 + 2**13
    assert (tmp_path / "run" / "kept").read_bytes() == b"kept"
    assert not os.path.ismount(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kills", "background"),
    [(6, False), *(pytest.param(*values, marks=pytest.mark.slow) for values in ((6, True), (30, False)))],
)
def test_a_training_of_two_processes_that_is_killed_again_and_again_ends_bit_for_bit_alike(
    kills, background, digits_dir, tmp_path
):
    """As a user gives the command, with the smallest ViT."""
    words = ["chaos", "--config", "configs/vit_digits.py", "--tiny", "--processes", "2", f"--kills={kills}"]
    words.append(f"--config.checkpoint.background={background}")
    environment = {
        "TFDS_DATA_DIR": str(digits_dir),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "jaxformer", *words, "--workdir", str(tmp_path / "both")],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    logs = [log.read_text()[-4000:] for log in (tmp_path / "both").glob("*.log")]
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert "parameters equal, bit for bit" in done.stdout
    (stopped,) = re.findall(r"^SIGSTOP .*, ([\d.]+) s at most$", done.stdout, re.MULTILINE)
    assert float(stopped) <= 15
    (repeated,) = re.findall(r"(\d+) at most after a kill", done.stdout)
    # One checkpoint interval; two where the newest checkpoint may still be written.
    assert int(repeated) <= (2 * 2 if background else 2)
