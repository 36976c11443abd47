"""SIGTERM at 40 moments in all phases of a run: saved, exit code 75, and the same command goes on as if nothing was.

`launch/test.sh --slow tests/test_sigterm.py -s` prints how long each took to end.
"""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.saved import arrays_of
from helpers.several import Several

from jaxformer.launching.attempts import newest_checkpoint
from jaxformer.observe.writers import read_metrics

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
STEPS = 24
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "eval.split": "test[:64]",
    "eval.every": "2 steps",
    "train.total": f"{STEPS} steps",
    "train.log_every": "1 step",
    "checkpoint.every": "3 steps",
}
MOMENTS = 5  # of each phase
PHASES = ("startup", "restore", "compile", "data", "train", "evaluate", "checkpoint", "report")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    with Several(tmp_path_factory.mktemp("said")) as several:
        yield several


def words(folder, **changed):
    overrides = [f"--config.{leaf}={value}" for leaf, value in (TINY | changed).items()]
    return ["train", "--config", CONFIG, "--workdir", str(folder), *overrides]


@pytest.fixture(scope="module")
def whole(several, tmp_path_factory):
    """A run that nothing disturbed, in two parts, so that there is something to restore."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    started = several.start([words(folder)], devices=1, told=("evaluate", 0.0))
    assert several.ask(wait=started) == [75], several.said()
    assert several.run([words(folder)], devices=1) == [0], several.said()
    return folder


def assert_same_end(folder, whole):
    saved, expected = (arrays_of(each / "checkpoints" / str(STEPS)) for each in (folder, whole))
    assert saved.keys() == expected.keys()
    for path in saved:
        np.testing.assert_array_equal(saved[path], expected[path])
    ours, theirs = read_metrics(folder), read_metrics(whole)
    assert ours.keys() == theirs.keys()
    for name in (name for name in theirs if not name.endswith("per_second")):
        for found, there in zip(ours[name], theirs[name]):
            np.testing.assert_array_equal(found, there, err_msg=name)
    results = [json.loads((each / "result.json").read_text()) for each in (folder, whole)]
    assert results[0]["final"] == results[1]["final"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_sigterm_in_a_phase_saves_and_nothing_is_lost(phase, several, whole, tmp_path):
    """A run is told to end five times, each time at another moment of the phase, and then goes on to its end."""
    folder = tmp_path / "run"
    seconds = json.loads((whole / "result.json").read_text())["seconds"][phase]
    seconds = min(seconds, 2.0) if phase in ("compile", "report", "startup", "restore") else 0.2
    if phase == "restore":  # something has to be there
        several.ask(wait=several.start([words(folder)], devices=1, told=("evaluate", 0.0)))
    for number in range(MOMENTS):
        before, moment = newest_checkpoint(folder), seconds * number / MOMENTS
        started = several.start([words(folder)], devices=1, told=(phase, moment))
        assert several.ask(wait=started) == [75], several.said()
        took = time.time() - several.files[0].with_name(several.files[0].name + ".told").stat().st_mtime
        assert took < 30
        assert several.said().endswith("jaxformer: ended by SIGTERM\n")
        _, was_saved, step = several.said().partition("SIGTERM: saved at step ")
        if was_saved:
            saved = int(step.split(";")[0])
            assert (folder / "checkpoints" / str(saved) / "digests.json").exists()
            assert saved >= before  # it may have been the evaluation of the step that was saved before
        saved = newest_checkpoint(folder)
        assert saved >= before
        print(f"\n{phase:10} after {moment:4.2f} s: step {before} -> {saved}, ended after {took:.2f} s")
    assert several.run([words(folder)], devices=1) == [0], several.said()
    assert_same_end(folder, whole)
