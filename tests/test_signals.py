"""SIGTERM, SIGHUP and Ctrl-C at any moment: exit codes, what is saved, and that nothing hides them."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxformer as jf
from jaxformer import cli, reporting
from jaxformer.checkpoints import Checkpoints
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.preemption import Preempted, Preemption
from jaxformer.state import to_items
from jaxformer.train import Loop

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
STEPS = 4
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:64]",
    "eval.every": "2 steps",
    "train.total": f"{STEPS} steps",
    "train.log_every": "1 step",
    "checkpoint.every": "2 steps",
}
CODES = {"SIGTERM": 75, "SIGHUP": 75, "SIGINT": 130}
SAID = {
    "SIGTERM": "jaxformer: ended by SIGTERM\n",
    "SIGHUP": "jaxformer: ended by SIGHUP\n",
    "SIGINT": "jaxformer: interrupted\n",
}


# The process, from its first moment on


def command(config):
    return [
        sys.executable,
        "-m",
        "jaxformer",
        "train",
        "--config",
        str(config),
        "--run",
        str(config.parent / "run"),
    ]


def told(tmp_path, code):
    """What the command line does with a config of this code: exit code, stdout and stderr."""
    config = tmp_path / "mine.py"
    config.write_text(f"import os, signal, sys\n\n{code}\n")
    done = subprocess.run(command(config), capture_output=True, text=True, timeout=60)
    assert not (tmp_path / "run").exists()
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", CODES)
def test_a_signal_ends_a_process_that_imports_though_modules_hide_exceptions(name, tmp_path):
    (tmp_path / "slow_to_import.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")
    hides = "try:\n    import slow_to_import\nexcept BaseException:\n    pass"
    hides = f"sys.path.insert(0, os.path.dirname(__file__))\n{hides}"
    assert told(tmp_path, hides) == (CODES[name], "", SAID[name])


@pytest.mark.parametrize("name", CODES)
def test_a_signal_ends_a_process_where_python_cannot_raise(name, tmp_path):
    destructor = f"class Last:\n    def __del__(self):\n        os.kill(os.getpid(), signal.{name})\nLast()"
    assert told(tmp_path, destructor) == (CODES[name], "", SAID[name])


def test_a_second_ctrl_c_ends_a_process_that_runs_no_python(tmp_path):
    """As while XLA compiles; here OpenSSL computes for a minute."""
    config = tmp_path / "mine.py"
    busy = "print('begun', flush=True)\nhashlib.pbkdf2_hmac('sha256', b'', b'', 2**27)\n"
    config.write_text(f"import hashlib\n{busy}")
    with subprocess.Popen(
        command(config), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        for _ in range(2):
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, SAID["SIGINT"])


def test_ctrl_c_before_the_command_lines_own_handlers_shows_no_traceback():
    code = """
import os, signal, sys

class AtTheFirstImport:
    def find_spec(self, name, *_):
        if name == "jaxformer.preemption":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, AtTheFirstImport())
import jaxformer.__main__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_file_that_is_written_when_nobody_waits_any_more_is_not_told_of():
    """Orbax stops to wait for TensorStore's files at the first that cannot be written, as on a full disk."""
    code = """
import asyncio
import tensorstore
from jaxformer.preemption import ProcessSignals

async def begin():
    next(waiting)

with ProcessSignals():
    promise, future = tensorstore.Promise.new()
    waiting = future.__await__()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    promise.set_result(1)
    print(future.result())
"""
    # TensorStore asks for the current event loop, of which Python 3.12 warns where there is none.
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_nohup_stays_in_force(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nraise SystemExit('went on')")
    done = subprocess.run(["nohup", *command(config)], capture_output=True, text=True, timeout=60)
    assert "went on" in done.stderr


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("--help | true", "1 0", ""),
        ("--help > /dev/full", "2", "jaxformer: standard output: No space left on device\n"),
        (
            "describe --fields model.vit > /dev/full",
            "2",
            "jaxformer: standard output: No space left on device\n",
        ),
        ("describe --fields model.vit | true", "1 0", ""),
        ("--help >&-", "2", "jaxformer: standard output: Bad file descriptor\n"),
        ("--help >&- 2>&-", "2", ""),
        ("nothing 2> /dev/full", "2", ""),
        ("nothing 2>&-", "2", ""),
    ],
)
def test_outputs_that_take_nothing(shell, code, said):
    line = f"{sys.executable} -m jaxformer {shell}; echo ${{PIPESTATUS[*]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{code}\n", said)


def test_an_error_that_is_of_no_file_and_of_no_output_keeps_its_traceback(monkeypatch, capsys):
    def fails(_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(cli, "find", fails)
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["nothing"])
    assert "standard output" not in capsys.readouterr().err


# Training


@pytest.fixture(autouse=True, scope="module")
def environment(digits_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        for name in ("write_shown", "write_report"):  # tests/test_configs.py has them
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        yield


def experiment():
    """On one device."""
    return Experiment(resolve(configfile.read(CONFIG, TINY)), jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment):
    folder = tmp_path_factory.mktemp("whole")
    jf.train(experiment(), folder)
    return folder


def before(patch, owner, attribute, *names, call=1):
    """Sends signals before a function's `call`-th call."""
    called, calls = getattr(owner, attribute), iter(range(1, 1000))

    def sends(*arguments, **named):
        if next(calls) == call:
            for name in names:
                os.kill(os.getpid(), getattr(signal, name))
        return called(*arguments, **named)

    patch.setattr(owner, attribute, sends)


def assert_same_run(folder, whole):
    """Every array of the last checkpoint, the losses of all steps, and the evaluation."""

    def arrays(folder):
        with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
            return checkpoints.restore(to_items(experiment().state_shapes)).items

    def losses(folder):
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(r["step"], r["train/loss"]) for r in records if "train/loss" in r]

    jax.tree.map(np.testing.assert_array_equal, arrays(folder), arrays(whole))
    assert losses(folder) == losses(whole)
    evaluations = [json.loads((f / "evaluation.json").read_text()) for f in (folder, whole)]
    assert evaluations[0] == evaluations[1]


# Where a signal comes, and the steps that are saved then.
MOMENTS = {
    "before the first step": (Experiment, "train_step", "SIGTERM", [1]),
    "while a step's metrics are read": (Loop, "read", "SIGINT", [1]),
    "in an evaluation": (Loop, "evaluate", "SIGHUP", [2]),
    "while a checkpoint is written": (Checkpoints, "save", "SIGINT", [2, 3]),
    "while evaluation.json is written": (reporting, "write_json", "SIGINT", [2, 4]),
    "while samples are drawn": (reporting, "write_shown", "SIGTERM", [2, 4]),
    "while result.json is written": (reporting, "write_result", "SIGHUP", [2, 4]),
}
LONG = {"before the first step", "while a step's metrics are read", "while result.json is written"}
LONG |= {"while evaluation.json is written"}


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=pytest.mark.slow) if m in LONG else m for m in MOMENTS]
)
def test_a_signal_saves_and_the_same_call_goes_on(moment, whole, tmp_path, monkeypatch):
    owner, attribute, name, steps = MOMENTS[moment]
    with monkeypatch.context() as patch:
        before(patch, owner, attribute, name)
        with pytest.raises((Preempted, KeyboardInterrupt)) as ended:
            jf.train(experiment(), tmp_path)
    assert ended.type is (KeyboardInterrupt if name == "SIGINT" else Preempted)
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal())
    assert saved == steps
    if steps != [2, 4]:
        assert json.loads((tmp_path / "result.json").read_text())["status"] == "preempted"
    assert jf.train(experiment(), tmp_path)["status"] == "completed"
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_a_second_sigterm_changes_nothing(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        before(patch, Loop, "save", "SIGTERM", "SIGHUP", "SIGTERM")
        with pytest.raises(Preempted, match="ended by SIGTERM"):
            jf.train(experiment(), tmp_path)
    jf.train(experiment(), tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_second_ctrl_c_does_not_wait_for_a_save(tmp_path, monkeypatch):
    before(monkeypatch, Loop, "save", "SIGINT", "SIGINT")
    with pytest.raises(KeyboardInterrupt):
        jf.train(experiment(), tmp_path)
    assert not list(tmp_path.glob("checkpoints/*"))
    assert not (tmp_path / "result.json").exists()


def test_a_loop_of_trainings_ends_with_the_one_that_a_signal_ends(tmp_path):
    """The loop catches what goes wrong in a training, as sweeps do; nothing else starts, and the exit code says why."""
    script = f"""
import os, signal, sys
import jaxformer as jf
from jaxformer.train import Loop

save = Loop.save

def saves(loop, state):
    os.kill(os.getpid(), signal.SIGTERM)
    save(loop, state)

Loop.save = saves
for seed in range(3):
    try:
        jf.train(jf.experiment({CONFIG!r}, {{**{TINY!r}, "seed": seed}}), f"{tmp_path}/{{seed}}")
    except Exception as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (75, "")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert json.loads((tmp_path / "0" / "result.json").read_text())["status"] == "preempted"


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_the_command_line_says_what_ended_a_training(name, tmp_path, monkeypatch, capsys):
    before(monkeypatch, Loop, "save", name)
    overrides = [f"--config.{key}={value}" for key, value in TINY.items()]
    assert cli.main(["train", "--config", CONFIG, "--run", str(tmp_path), *overrides]) == CODES[name]
    said = capsys.readouterr().err
    assert "saved at step 3; training in the same folder goes on from there" in said
    assert said.endswith(SAID[name])
    assert "Traceback" not in said


def test_a_script_gets_its_own_handlers_back(tmp_path):
    def mine(number, frame):
        raise NotImplementedError

    previous = signal.signal(signal.SIGHUP, mine)
    try:
        with Preemption(), pytest.raises(NotImplementedError):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is mine
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_whose_exception_was_hidden_is_raised_before_what_is_deferred():
    with Preemption() as preemption:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Preempted), preemption.deferred():
            raise AssertionError("not reached")


def test_what_a_library_makes_of_a_signal_is_the_signal_again():
    def reads():
        with Preemption():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException as hidden:
                raise ValueError("the arrays cannot be read") from hidden

    with pytest.raises(Preempted, match="ended by SIGTERM"):
        reads()


def test_an_error_of_a_training_that_a_signal_is_to_end_stays_what_it_is():
    def saves():
        with Preemption() as preemption, preemption.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        saves()
