"""Real trainings under the supervisor: what is killed goes on by itself, and ends as the one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.saved import arrays_of

import jaxformer as jf
from jaxformer.launching import ATTEMPTS
from jaxformer.launching.attempts import newest_checkpoint, read
from jaxformer.launching.decisions import Budgets
from jaxformer.launching.processes import alive
from jaxformer.launching.supervisor import Supervisor

ROOT = Path(__file__).parent.parent.parent
CONFIG = str(ROOT / "configs" / "vit_digits.py")
STEPS = 24
TINY = {
    "train.total": f"{STEPS} steps",
    "train.log_every": "1 step",
    "eval.every": "8 steps",
    "eval.split": "test[:32]",
    "checkpoint.every": "2 steps",
    "data.batch_size": 16,
    "data.train_split": "train[:96]",
    "schedule.warmup": "2 steps",
    "model.width": 16,
    "model.depth": 1,
    "model.num_heads": 1,
    "model.mlp_dim": 16,
}


@pytest.fixture(autouse=True, scope="module")
def environment(digits_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment):
    """The run that was left alone, in this process: on one machine, processes compute the same bits."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_shown", "write_report"):
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        jf.train(jf.experiment(CONFIG, TINY), folder)
    return folder


def arguments(folder, **changed):
    overrides = [f"--config.{path}={value}" for path, value in {**TINY, **changed}.items()]
    return ["--config", CONFIG, "--workdir", str(folder), *overrides]


def train(folder, said, **changed):
    words = [sys.executable, "-m", "jaxformer", "train", *arguments(folder, **changed)]
    return Supervisor(words, folder, Budgets(shortest=0.1), said.append).run()


class Troublemaker(threading.Thread):
    """Sends a signal to the training of an attempt, once it has saved so many steps more."""

    def __init__(self, folder, *plan):
        super().__init__(daemon=True)
        self.folder, self.plan, self.sent = folder, plan, []

    def run(self):
        for number, (name, more) in enumerate(self.plan, 1):
            until = newest_checkpoint(self.folder) + more
            while newest_checkpoint(self.folder) < until or len(read(self.folder / ATTEMPTS)) < number:
                time.sleep(0.005)
            self.sent.append(time.time())
            os.kill(read(self.folder / ATTEMPTS)[-1].process["number"], getattr(signal, name))


def assert_same_end(folder, whole):
    saved, expected = (arrays_of(each / "checkpoints" / str(STEPS)) for each in (folder, whole))
    assert saved.keys() == expected.keys()
    for path in saved:
        np.testing.assert_array_equal(saved[path], expected[path])
    losses = [
        [(r["step"], r["train/loss"]) for r in map(json.loads, lines) if "train/loss" in r]
        for lines in ((each / "metrics.jsonl").read_text().splitlines() for each in (folder, whole))
    ]
    assert losses[0] == losses[1]
    results = [json.loads((each / "result.json").read_text()) for each in (folder, whole)]
    assert [(r["status"], r["final"]) for r in results] == [(results[0]["status"], results[0]["final"])] * 2
    return results[0]


@pytest.mark.slow  # tests/debugging/test_chaos.py has six such kills
def test_a_training_that_is_killed_goes_on_by_itself_to_the_same_end(whole, tmp_path):
    killed, said = tmp_path / "killed", []
    trouble = Troublemaker(killed, ("SIGKILL", 2))
    trouble.start()
    assert train(killed, said) == 0
    first, second = read(killed / ATTEMPTS)
    assert (first.exit, second.exit) == (137, 0)
    assert first.saved < STEPS
    assert second.first >= 2
    assert first.marks[-1].step - second.first <= 2  # no more than what is between two saves is repeated
    assert "exit code 137: killed (SIGKILL)" in said[0]
    assert said[1].startswith("jaxformer: its last line: ")
    result = assert_same_end(killed, whole)
    overall = result["goodput"]
    assert overall["attempts"] == 2
    assert overall["total"] == pytest.approx(sum(overall["seconds"].values()), abs=0.01)
    assert overall["seconds"]["CHECKPOINT_RESTORE"] > 0


@pytest.mark.slow
def test_five_kills_of_all_kinds(whole, tmp_path):
    killed, said = tmp_path / "killed", []
    plan = [(name, 2) for name in ("SIGKILL", "SIGTERM", "SIGKILL", "SIGABRT", "SIGTERM")]
    trouble = Troublemaker(killed, *plan)
    trouble.start()
    assert train(killed, said) == 0
    codes = [each.exit for each in read(killed / ATTEMPTS)]
    assert codes == [137, 75, 137, 134, 75, 0]
    assert_same_end(killed, whole)


@pytest.mark.slow
def test_one_of_two_processes_that_is_killed_takes_the_other_along_and_both_go_on(tmp_path):
    """As a user launches them."""
    folders, said = (tmp_path / "whole", tmp_path / "killed"), {}
    for folder in folders:
        words = [sys.executable, "-m", "jaxformer", "launch", "local", "--processes", "2", *arguments(folder)]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            if folder.name == "killed":
                while newest_checkpoint(folder) < 2:
                    time.sleep(0.01)
                leader = read(folder / ATTEMPTS)[-1].process["number"]
                os.kill(max(alive(leader)), signal.SIGKILL)
            said[folder.name] = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said[folder.name]
    rehearsal, first, second = read(folders[1] / ATTEMPTS)
    assert (rehearsal.rehearsal, rehearsal.exit) == (True, 0)
    assert (first.exit != 0, second.exit, second.first >= 2) == (True, 0, True)
    assert "attempt 1 ended at " in said["killed"]
    assert "it is started again in 5 s" in said["killed"]
    assert_same_end(folders[1], folders[0])


@pytest.mark.slow
def test_a_training_that_is_stopped_is_found_within_fifteen_seconds(tmp_path):
    killed, said = tmp_path / "killed", []
    trouble = Troublemaker(killed, ("SIGSTOP", 2))
    trouble.start()
    assert train(killed, said) == 0
    first, second = read(killed / ATTEMPTS)
    assert (first.exit, second.exit) == (124, 0)
    assert first.end - trouble.sent[0] < 15
    assert alive(first.process["number"]) == []


HANGS = '''
import itertools, os, time
from dataclasses import dataclass
from jaxformer.data.transform import Transform

CALLS = itertools.count()

@dataclass(frozen=True)
class Hangs(Transform):
    """Never gives an example, once."""
    marker: str = ""

    def __call__(self, example, rng):
        if next(CALLS) == 40 and not os.path.exists(self.marker):
            waits_for_ever(self.marker)
        return example

def waits_for_ever(marker):
    open(marker, "w").close()
    time.sleep(600)
'''


@pytest.mark.slow
def test_a_training_whose_data_hangs_is_ended_with_its_stacks_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    (tmp_path / "hangs.py").write_text(HANGS)
    hung, said = tmp_path / "hung", []
    own = {"name": "hangs:Hangs", "marker": str(tmp_path / "once")}
    assert train(hung, said, **{"data.transforms": [own], "watchdog.data_minutes": 0.05}) == 0
    first, second = read(hung / ATTEMPTS)
    assert (first.exit, second.exit) == (124, 0)
    assert "in waits_for_ever" in (hung / "stacks.txt").read_text()
    assert "'data' took longer than 3 s" in (hung / "stacks.txt").read_text()
