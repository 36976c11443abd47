"""`train --rehearse`: the third step is the same from a checkpoint in a new process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.debugging.rehearsal import Rehearsal
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.files import write_json
from jaxformer.reading import load_json
from jaxformer.runs import Run
from jaxformer.verbs.debug import PART, PARTS, REHEARSAL, rehearse

ROOT = Path(__file__).parent.parent.parent
OVERRIDES = {
    "model.depth": 1,
    "model.width": 16,
    "model.mlp_dim": 16,
    "data.batch_size": 16,
    "data.eval_batch_size": 16,
}
SAME = "step 3 is the same from the checkpoint, bit for bit"


@pytest.fixture(autouse=True)
def environment(digits_dir, monkeypatch):
    """What processes of their own need."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def words(folder, *flags):
    overrides = [f"--config.{leaf}={value}" for leaf, value in OVERRIDES.items()]
    return ["train", "--config", "vit_digits", "--rehearse", "--workdir", str(folder), *overrides, *flags]


@pytest.mark.slow
def test_the_third_step_is_the_same_in_a_new_process(tmp_path, capfd):
    assert cli.main(words(tmp_path / "new" / "run")) == 0
    out = capfd.readouterr().out
    assert SAME in out
    assert "restoring, in a new process" in out
    assert int(out.split(" bytes in the checkpoint")[0].split()[-1].replace(",", "")) > 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_rehearse_together(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("the user's")
    assert cli.main(words(tmp_path, "--processes", "2", "--config.parallel.mesh.fsdp=2")) == 0
    said = capfd.readouterr().err
    assert said.count(SAME) == 1
    assert all(line.startswith("process 0: ") for line in said.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_process_that_does_another_part_is_no_mistake_of_the_users(tmp_path):
    """One of them was killed and started again."""
    with socket.create_server(("localhost", 0)) as server:
        coordinator = f"localhost:{server.getsockname()[1]}"
    place = {"JAXFORMER_COORDINATOR": coordinator, "JAXFORMER_PROCESSES": "2"}
    command = [sys.executable, "-m", "jaxformer", *words(tmp_path)]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, "JAXFORMER_PROCESS": str(index), PART: part},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, part in enumerate(PARTS)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [69, 69], said
    assert "part of the rehearsal: 'begin' on process 0, 'again' on process 1" in said[1]


@pytest.fixture(scope="module")
def begun(digits_dir, tmp_path_factory):
    """An experiment and a run's folder in which its rehearsal was begun, with what was said."""
    folder, said = tmp_path_factory.mktemp("run"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        experiment = Experiment(resolve(files.read("vit_digits", OVERRIDES)))
        Rehearsal(experiment, Run(folder), folder / REHEARSAL, said.append).begin()
    return experiment, folder, said


def test_a_part_says_what_took_how_long(begun):
    experiment, folder, said = begun
    Rehearsal(experiment, Run(folder), folder / REHEARSAL, said.append).again()
    whats = [line.split(" s  ")[-1] for line in said]
    assert whats[:4] == ["starting, with the data", "the fresh state", "step 1, with compiling", "step 2"]
    assert whats[4:7] == ["evaluating a batch, with compiling", "saving", "step 3"]
    assert whats[7:9] == ["starting, with the data", "restoring, in a new process"]
    assert said[-1].startswith(SAME)


def test_a_step_that_differs_is_named(begun):
    experiment, folder, _ = begun
    file = folder / REHEARSAL / "digests-0.json"
    digests = load_json(file)
    write_json(file, digests | {"params/params/head/bias": "0"})
    with pytest.raises(
        UserError, match=f"1 of {len(digests)} arrays of the state differ, such as params/params/head/bias"
    ):
        Rehearsal(experiment, Run(folder), folder / REHEARSAL, print).again()
    write_json(file, digests)


def test_a_folder_that_holds_something_else_is_refused(begun, tmp_path):
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError, match="holds checkpoints or a result"):
        Rehearsal(begun[0], Run(tmp_path), tmp_path / REHEARSAL, print).begin()


@pytest.mark.parametrize(
    ("program", "code"), [("raise SystemExit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_first_part_that_fails_is_the_last(program, code, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("jaxformer.verbs.debug.BEGIN", f"print('here', flush=True); {program}")
    assert rehearse([], tmp_path / "run") == code
    assert capfd.readouterr().out == "here\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(words(tmp_path / "file" / "run")) == 2
    assert "cannot write there (Not a directory); choose another folder" in capsys.readouterr().err


def test_what_cannot_be_together(capsys):
    assert cli.main(words("run", "--start-from", "other/checkpoints/5")) == 2
    assert "leave --start-from out" in capsys.readouterr().err
    assert cli.main(words("run", "--debug")) == 2
    assert "leave --workdir out" in capsys.readouterr().err
