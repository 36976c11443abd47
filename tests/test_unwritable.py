"""Whatever a run writes may be refused: a line with the file and the reason, and the same command finishes it later."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxformer as jf
from jaxformer import cli
from jaxformer.checkpoints import Checkpoints
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.observe.writers import MetricWriter
from jaxformer.state import to_items
from jaxformer.train import Loop

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:64]",
    "eval.every": "2 steps",
    "train.total": "4 steps",
    "train.log_every": "1 step",
    "checkpoint.every": "2 steps",
}
WRITTEN = {
    ".lock",
    "attempts.jsonl",
    "checkpoints",
    "config.json",
    "data.json",
    "evaluation.json",
    "metrics.jsonl",
    "report.html",
    "result.json",
    "samples",
    "samples/mistakes",
    "samples/samples",
    "tensorboard",
}
REPLACED = {"samples/mistakes", "samples/samples"}  # whatever is there
QUICK = {"evaluation.json", "samples"}  # the others take a minute together


@pytest.fixture(autouse=True, scope="module")
def environment(digits_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        yield


def argv(folder):
    overrides = [f"--config.{key}={value}" for key, value in TINY.items()]
    return ["train", "--config", CONFIG, "--run", str(folder), *overrides]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment):
    folder = tmp_path_factory.mktemp("whole")
    assert cli.main(argv(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory, environment):
    """A run that has been ended after its second step."""
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        read = Loop.read

        def reads(loop):
            if loop.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            read(loop)

        patch.setattr(Loop, "read", reads)
        assert cli.main(argv(folder)) == 75
    return folder


def assert_same_run(folder, whole):
    """Every array of the last checkpoint, the losses of all steps, the evaluation; and the same files are there."""

    def arrays(folder):
        shapes = Experiment(resolve(configfile.read(CONFIG, TINY))).state_shapes
        with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
            return checkpoints.restore(to_items(shapes)).items

    def losses(folder):
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(r["step"], r["train/loss"]) for r in records if "train/loss" in r]

    jax.tree.map(np.testing.assert_array_equal, arrays(folder), arrays(whole))
    assert losses(folder) == losses(whole)
    evaluations = [json.loads((f / "evaluation.json").read_text()) for f in (folder, whole)]
    assert evaluations[0] == evaluations[1]
    assert jf.load_run(folder).step == jf.load_run(whole).step


def test_the_table_has_all_that_a_run_writes(whole):
    listed = {path.name for path in whole.iterdir()}
    listed |= {f"samples/{path.name}" for path in (whole / "samples").iterdir()}
    assert listed | {".lock"} == WRITTEN


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in sorted(WRITTEN - REPLACED)]
)
def test_what_cannot_be_written_costs_a_line_and_nothing_else(name, half, whole, tmp_path, capfd):
    folder, aside = tmp_path / "run", tmp_path / "aside"
    shutil.copytree(half, folder)
    place = folder / name
    if is_there := place.exists():
        place.rename(aside)
    if (whole / name).is_dir():
        place.write_text("a file where a folder belongs")
    else:
        (place / "a folder where a file belongs").mkdir(parents=True)
    code = cli.main(argv(folder))
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    lines = [line for line in said.err.splitlines() if line.startswith("jaxformer: ")]
    if name == "tensorboard":  # a copy: the run goes on without it
        assert (code, lines) == (0, [])
        assert f"W {place}: no more files there:" in said.err
        return
    assert code == 2
    assert 1 <= len(lines) <= 2
    assert said.err.splitlines()[-len(lines) :] == lines
    assert str(folder if name in (".lock", "checkpoints") else place) in lines[0]
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    if is_there:
        aside.rename(place)
    assert cli.main(argv(folder)) == 0
    assert_same_run(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [200, 1500, 4000, 20000])
def test_files_that_may_not_grow_cost_two_lines(limit, half, whole, tmp_path, environment):
    """As a full disk or a quota does; by the size at which the system refuses to write on, of any file."""
    folder = tmp_path / "run"
    shutil.copytree(half, folder)
    limits = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    code = f"{limits}\nimport sys\nfrom jaxformer.__main__ import main\nmain()"
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": "", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code, *argv(folder)], capture_output=True, text=True, timeout=300, env=env
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("jaxformer: ")
    assert cli.main(argv(folder)) == 0
    assert_same_run(folder, whole)


def test_a_full_disk_ends_tensorboards_files_and_nothing_waits_for_them(tmp_path, monkeypatch, caplog):
    import tensorboardX.record_writer

    monkeypatch.setattr(tensorboardX.record_writer, "open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115
    with MetricWriter(tmp_path) as writer:
        for step in range(40):
            writer.write(step, {"train/loss": 1.0})
    assert caplog.text.count("no more files there: [Errno 28] No space left on device") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 40


def test_a_compilation_cache_that_cannot_be_made_costs_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "xla"
    code = "import jax\nfrom jaxformer.verbs.common import use_compilation_cache\nuse_compilation_cache()\n"
    code += "jax.jit(lambda x: x + 1)(1)"
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    why = "compiled programs cannot be kept there (Not a directory)"
    remedy = "name another folder in JAX_COMPILATION_CACHE_DIR"
    assert (done.returncode, done.stderr) == (0, f"jaxformer: {cache}: {why}; {remedy}\n")
