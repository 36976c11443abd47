"""`jaxformer chaos`: its plan, its comparison and what it says, without training; and in slow tests all of it."""

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
from jaxformer.debugging import chaos, troubles
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
    assert sorted(Counter(trouble.kind for trouble in plan).values()) == [16, 17, 17]
    assert not plan[0].early
    assert not any(one.early and other.early for one, other in pairwise(plan))
    assert {trouble.kind for trouble in plan if trouble.early} <= {"SIGKILL", "SIGTERM"}
    assert all(0 <= trouble.share < 1 for trouble in plan)
    assert {trouble.process is None for trouble in plan} == {True, False}


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
    assert list(troubles.summary(outcomes, 2, (20.0, 80.0))) == [
        "disturbed 2 x SIGKILL, 1 x SIGSTOP",
        "SIGKILL noticed, all processes dead: after 0.3 s (median), 0.4 s at most",
        "SIGSTOP noticed, all processes dead: after 14.0 s (median), 14.0 s at most",
        "repeated 6 steps in all, 3 at most after a kill; a checkpoint is saved every 2 steps; more than that 1 time,"
        " when the newest checkpoint was still being written",
        "took 80 s, undisturbed 20 s: 60 s lost",
    ]
    assert troubles.told(3, outcomes[0]) == (
        "   3  SIGKILL to all processes: noticed after 0.2 s, 1 step to repeat"
    )


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


def test_trouble_for_an_attempt_lasts_until_the_ledger_has_its_end(tmp_path):
    """The supervisor is one that notes the end of what it has started, and no more."""
    supervise = (
        "import subprocess, sys, time; from pathlib import Path; from jaxformer.launching import attempts\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "note = lambda *event, **values: attempts.append(Path(sys.argv[1]), *event, **values)\n"
        "note('start', start=time.time(), host='', process={'number': child.pid}, before=0)\n"
        "child.wait(); note('end', end=time.time(), exit=137)\n"
    )
    (saved := tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (saved / "digests.json").write_text("{}")
    trouble = Trouble("SIGKILL", early=False, share=0.5, process=None)
    words = [sys.executable, "-c", supervise, str(tmp_path / ATTEMPTS)]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        number = chaos.moment(process, tmp_path, 0, trouble, (0.1, 0.1))
        assert number == 0
        outcome = chaos.make(process, tmp_path, number, trouble)
    (attempt,) = attempts.read(tmp_path / ATTEMPTS)
    assert attempt.exit == 137
    assert 0 < outcome.seconds < 20
    assert outcome.repeated == 0  # it has taken no step that is known of
    assert chaos.moment(process, tmp_path, 1, trouble, (0.1, 0.1)) is None


@pytest.mark.slow
@pytest.mark.parametrize("kills", [6, 30])
def test_a_training_of_two_processes_that_is_killed_again_and_again_ends_bit_for_bit_alike(
    kills, digits_dir, tmp_path
):
    """As a user gives the command, with the smallest ViT."""
    words = ["chaos", "--config", "configs/vit_digits.py", "--tiny", "--processes", "2", f"--kills={kills}"]
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
    assert float(stopped) < 20
    (repeated,) = re.findall(r"(\d+) at most after a kill", done.stdout)
    assert (
        int(repeated) < 2 * 2
    )  # less than two checkpoint intervals: one that is being written is not there yet
