"""A copy of a run in object storage: what is there at any moment, what a new machine begins with, and what fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
from helpers.saved import arrays_of

import jaxformer as jf
from jaxformer import cli
from jaxformer.bucket import Bucket
from jaxformer.cli import verb_class
from jaxformer.config import files as configfile
from jaxformer.config import schema
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.launching.attempts import newest_checkpoint, read
from jaxformer.parallel.places import Unavailable
from jaxformer.preemption import Preempted
from jaxformer.train import Loop
from jaxformer.verbs import VERBS

ROOT = Path(__file__).parent.parent
CONFIG = str(ROOT / "configs" / "vit_digits.py")
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
    "checkpoint.every": "1 step",
}


@pytest.fixture
def address():
    """A bucket in this process's memory."""
    yield "memory://bucket/run"
    if fsspec.filesystem("memory").exists("/bucket"):
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture(scope="module")
def config():
    return resolve(configfile.read(CONFIG, TINY))


def save(folder, step, content="arrays"):
    """What a checkpoint looks like from outside."""
    made = folder / "checkpoints" / str(step)
    (made / "params").mkdir(parents=True)
    (made / "params" / "data").write_text(f"{content} {step}")
    (made / "digests.json").write_text(json.dumps({"params/data": f"{content} {step}"}))


@pytest.fixture
def run(tmp_path, config):
    """A folder of a run with two checkpoints, and what only this machine needs."""
    folder = tmp_path / "run"
    save(folder, 1)
    save(folder, 2)
    (folder / ".lock").write_text("")
    (folder / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    (folder / "checkpoints" / "3.orbax-checkpoint-tmp" / "data").write_text("half")
    (folder / "config.json").write_text(json.dumps({"config": schema.to_dict(config)}))
    (folder / "metrics.jsonl").write_text('{"step": 2}\n')
    (folder / "attempts.jsonl").write_text('{"event": "stop", "why": "there"}\n')
    return folder


def content(folder):
    found = (path for path in folder.rglob("*") if path.is_file() and "orbax" not in str(path))
    return {str(path.relative_to(folder)): path.read_text() for path in found if path.name != ".lock"}


def test_what_was_copied_is_fetched(address, run, config, tmp_path):
    Bucket(address, run).copy()
    new = tmp_path / "new"
    new.mkdir()
    (new / "attempts.jsonl").write_text('{"event": "stop", "why": "here"}\n')  # a supervisor is first
    Bucket(address, new).fetch(config)
    expected = content(run)
    expected["attempts.jsonl"] += '{"event": "stop", "why": "here"}\n'
    assert content(new) == expected


def test_what_is_deleted_or_changed_here_is_so_there(address, run):
    bucket = Bucket(address, run)
    bucket.copy()
    shutil.rmtree(run / "checkpoints" / "1")
    save(run, 4)
    shutil.rmtree(run / "checkpoints" / "2")
    save(run, 2, "with its evaluation,")
    (run / "metrics.jsonl").write_text('{"step": 4}\n')
    bucket.copy()
    assert {name: bucket.read(name).decode() for name in bucket.names()} == content(run)


class Fails:
    """A file system that takes so many files and no more."""

    def __init__(self, system, files):
        self.system, self.files = system, files

    def __getattr__(self, name):
        return getattr(self.system, name)

    def put(self, here, there):
        for one, other in zip(here, there):
            if not self.files:
                raise RuntimeError("Could not connect\nto the endpoint")
            self.files -= 1
            self.system.put([one], [other])


def test_a_checkpoint_that_is_half_copied_is_never_taken(address, run, config, tmp_path):
    """However many files arrive before the connection is lost, what is fetched is whole."""
    needed = len(content(run))
    for files in range(needed + 1):
        bucket = Bucket(f"{address}/{files}", run)
        bucket.system = Fails(bucket.system, files)
        bucket.try_to_copy()
        new = tmp_path / str(files)
        new.mkdir()
        Bucket(f"{address}/{files}", new).fetch(config)
        for step in (new / "checkpoints").glob("*"):
            assert content(step) == content(run / "checkpoints" / step.name)
        newest = newest_checkpoint(new)
        assert newest == (0 if files < needed - 2 else 1 if files < needed else 2)
        assert (new / "config.json").exists() == (newest > 0)


def test_a_checkpoint_that_is_replaced_is_not_whole_meanwhile(address, run, config, tmp_path):
    Bucket(address, run).copy()
    shutil.rmtree(run / "checkpoints" / "2")
    save(run, 2, "other arrays")
    bucket = Bucket(address, run)
    bucket.sent = {
        str(path.relative_to(run)): (path.stat().st_size, path.stat().st_mtime_ns) for path in run.glob("*")
    }
    bucket.system = Fails(bucket.system, 1)  # the arrays, and no digests
    bucket.try_to_copy()
    new = tmp_path / "new"
    new.mkdir()
    Bucket(address, new).fetch(config)
    assert newest_checkpoint(new) == 1


def test_a_folder_that_is_as_far_keeps_what_it_has(address, run, config):
    Bucket(address, run).copy()
    before = content(run)
    Bucket(address, run).fetch(config)
    assert content(run) == before
    shutil.rmtree(run / "checkpoints" / "2")  # as one that was found damaged
    Bucket(address, run).fetch(config)
    assert newest_checkpoint(run) == 2


def test_another_experiment_is_refused(address, run, tmp_path):
    Bucket(address, run).copy()
    other = resolve(configfile.read(CONFIG, TINY | {"seed": 7}))
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="memory://bucket/run holds another experiment: seed: "):
        Bucket(address, tmp_path / "new").fetch(other)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_bucket_that_cannot_be_reached_is_told_of(address, run, config, tmp_path, caplog):
    def fails(path):
        raise RuntimeError("Could not connect\nto the endpoint")

    bucket = Bucket(address, run)
    bucket.system = Fails(bucket.system, 0)
    bucket.system.find = fails
    bucket.try_to_copy()
    said = "memory://bucket/run: the run cannot be copied there: Could not connect to the endpoint; it is tried again"
    assert caplog.messages[-1].startswith(said)
    bucket.fetch(config)  # this machine has checkpoints
    said = "memory://bucket/run: cannot be read: Could not connect to the endpoint; going on without it"
    assert caplog.messages[-1] == said
    bucket.folder = tmp_path
    with pytest.raises(Unavailable, match="'memory://bucket/run': Could not connect to the endpoint"):
        bucket.fetch(config)
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.parametrize("address", ["nothing://bucket/run", "gs:bucket", "runs/vit", ""])
def test_an_address_that_is_none_is_refused(address, tmp_path):
    with pytest.raises(UserError, match=f"checkpoint.bucket=.{address}.: "):
        jf.train(jf.experiment(CONFIG, TINY | {"checkpoint.bucket": address}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Trainings


@pytest.fixture
def digits(digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    for name in ("write_shown", "write_report"):  # tests/test_configs.py has them
        monkeypatch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)


def assert_same_end(folder, whole, step):
    saved, expected = (arrays_of(each / "checkpoints" / str(step)) for each in (folder, whole))
    assert saved.keys() == expected.keys()
    for path in saved:
        np.testing.assert_array_equal(saved[path], expected[path])
    losses = [
        [(r["step"], r["train/loss"]) for r in map(json.loads, lines) if "train/loss" in r]
        for lines in ((each / "metrics.jsonl").read_text().splitlines() for each in (folder, whole))
    ]
    assert losses[0] == losses[1]


def test_a_run_goes_on_in_the_folder_of_a_new_machine(address, digits, tmp_path, monkeypatch):
    one, new, whole = (tmp_path / name for name in ("one", "new", "whole"))

    def experiment(**more):
        return jf.experiment(CONFIG, TINY | {"checkpoint.bucket": address} | more)

    def saves(loop, state):
        if loop.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return save_of(loop, state)

    save_of = Loop.save
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "save", saves)
        with pytest.raises(Preempted):
            jf.train(experiment(), one)
    shutil.rmtree(one)
    assert jf.train(experiment(), new)["status"] == "completed"
    assert jf.train(experiment(**{"checkpoint.bucket": None}), whole)["status"] == "completed"
    assert_same_end(new, whole, 4)
    assert jf.train(experiment(), one)["status"] == "completed"  # fetched, and there is nothing to do
    assert len(read(one / "attempts.jsonl")) == 2


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("moto") and find_spec("s3fs")), reason="pip install 'moto[server]' s3fs")
def test_a_machine_that_is_lost_and_another_one_that_goes_on_with_s3(digits_dir, tmp_path):
    """Against moto's server: the training is killed, its folder is gone; the server goes away and comes back."""
    port = 5555
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "TFDS_DATA_DIR": str(digits_dir),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }

    def server():
        words = [sys.executable, "-m", "moto.server", "-p", str(port)]
        return subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def make_bucket():
        code = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"
        while subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode:
            time.sleep(0.5)

    def start(folder, bucket, steps=60):
        more = {"checkpoint.bucket": bucket, "train.total": f"{steps} steps", "checkpoint.every": "5 steps"}
        overrides = [f"--config.{leaf}={value}" for leaf, value in (TINY | more).items()]
        words = [sys.executable, "-m", "jaxformer", "train", "--config", CONFIG, "--workdir", str(folder)]
        return subprocess.Popen([*words, *overrides], env=environment, stderr=subprocess.PIPE, text=True)

    def there():
        code = "import s3fs; print(*s3fs.S3FileSystem().glob('bucket/run/checkpoints/*/digests.json'))"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        return sorted(int(path.split("/")[-2]) for path in done.stdout.split())

    moto = server()
    try:
        make_bucket()
        one = start(tmp_path / "one", "s3://bucket/run", steps=2000)
        until = time.monotonic() + 120
        while not there():
            assert time.monotonic() < until
        one.kill()
        one.communicate()
        shutil.rmtree(tmp_path / "one")
        steps = there()

        nowhere = start(tmp_path / "nowhere", "s3://no-such-bucket/run")
        said = nowhere.communicate(timeout=200)[1]
        assert nowhere.returncode == 2
        assert "checkpoint.bucket='s3://no-such-bucket/run': The specified bucket does not exist" in said

        two = start(tmp_path / "two", "s3://bucket/run", steps=2000)
        fetched = ""
        while "was fetched from there" not in fetched:
            fetched = two.stderr.readline()
            assert fetched
        assert f"step {max(steps)} was fetched" in fetched
        moto.kill()  # the connection is lost
        moto.wait()
        two.send_signal(signal.SIGTERM)
        said = two.communicate(timeout=200)[1]
        assert two.returncode == 75, said
        assert "s3://bucket/run: the run cannot be copied there: " in said

        three = start(tmp_path / "three", "s3://bucket/run")
        said = three.communicate(timeout=200)[1]
        assert three.returncode == 69, said
        assert "checkpoint.bucket='s3://bucket/run': " in said
        assert not (tmp_path / "three" / "checkpoints").exists()
    finally:
        moto.kill()
        moto.wait()


# Addresses where a folder is expected

PATHS = [
    (name, field)
    for name in VERBS
    for field in schema.config_fields(verb_class(name)).values()
    if "Path" in str(field.type)
]


@pytest.mark.parametrize(("verb", "field"), PATHS, ids=[f"{verb} {field.name}" for verb, field in PATHS])
def test_no_path_of_the_command_line_may_be_an_address(verb, field):
    given, errors = Path("gs://bucket/x"), []
    many = str(field.type).startswith("tuple")
    schema.resolve(verb_class(verb), {field.name: [given] if many else given}, "", errors)
    assert any("gs://bucket/x is an address, and no path; mount the bucket" in error for error in errors)


FOLDERS = {
    "data.data_dir": {"data.data_dir": "s3://bucket/datasets"},
    "task.distillation.run": {"task.distillation": {"run": "s3://bucket/run"}},
}


@pytest.mark.parametrize("leaf", FOLDERS)
def test_no_folder_of_a_config_may_be_an_address(leaf):
    with pytest.raises(
        UserError, match=f"{leaf}=.*: expected the name of a folder, not an address; mount a bucket"
    ):
        jf.experiment(CONFIG, FOLDERS[leaf])


def test_no_folder_of_a_launch_may_be_an_address(capsys):
    assert cli.main(["launch", "local", "--config", CONFIG, "--workdir", "s3://bucket/run", "--dry-run"]) == 2
    assert "expected the name of a folder as the hosts see it, no address" in capsys.readouterr().err


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, run, address, config, monkeypatch):
    """In storage of objects a name is any text."""
    Bucket(address, run).copy()
    new = Bucket(address, tmp_path / "new" / "run")
    found = [*new.system.find(new.path), f"{new.path}/../../etc/passwd"]
    monkeypatch.setattr(new.system, "find", lambda path: found)
    with pytest.raises(UserError, match=r"'\.\./\.\./etc/passwd' is no name of a run's file"):
        new.fetch(config)
    assert not (tmp_path / "new").exists() or not [*(tmp_path / "new").rglob("passwd")]
