"""`train --rehearse`: the third step is the same from a checkpoint in a new process."""

import json
import os

import jax
import pytest

from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.schema import to_dict
from jaxformer.config.sections import resolve
from jaxformer.debugging import rehearsal
from jaxformer.errors import UserError

OVERRIDES = {"model.depth": 1, "model.width": 16, "data.batch_size": 16, "data.eval_batch_size": 16}


@pytest.mark.slow
def test_the_third_step_is_the_same_in_a_new_process(digits_dir, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    flags = [f"--config.{leaf}={value}" for leaf, value in OVERRIDES.items()]
    assert cli.main(["train", "--config", "vit_digits", "--rehearse", *flags]) == 0
    out = capsys.readouterr().out
    assert "step 3 is the same from the checkpoint, bit for bit" in out
    assert "restoring, in a new process" in out
    assert int(out.split(" bytes in the checkpoint")[0].split()[-1].replace(",", "")) > 1000


@pytest.fixture
def done_by(monkeypatch):
    """Lets a function do what the processes do: (name of the part, folder) -> the content of its file."""

    def set_to(function):
        class Ended:
            returncode, stderr = 3, "Traceback ...\nKilled"

        def run(command, **_):
            name, folder = command[-2:]
            if (content := function(name)) is not None:
                with open(f"{folder}/{name}.json", "w") as file:
                    json.dump(content, file)
            return Ended

        monkeypatch.setattr(rehearsal.subprocess, "run", run)

    return set_to


def test_a_step_that_differs_is_named(done_by, tmp_path):
    digests = {"begin": {"params/a": "1", "params/b": "2"}, "again": {"params/a": "1", "params/b": "3"}}
    done_by(lambda name: {"seconds": {"step 3": 1.5}, "digests": digests[name]})
    with pytest.raises(UserError, match="1 of 2 arrays of the state differ, such as params/b"):
        list(rehearsal.rehearse(to_dict(resolve(files.read("vit_digits"))), tmp_path, {}))


def test_what_a_training_refuses_and_what_kills_it_is_said(done_by, tmp_path):
    done_by(lambda name: {"refused": ["data.batch_size=15: is no multiple"]})
    with pytest.raises(UserError, match="no multiple"):
        list(rehearsal.rehearse({}, tmp_path, {}))
    done_by(lambda name: None)
    (tmp_path / "other").mkdir()
    with pytest.raises(RuntimeError, match=r"exit code 3.*\n.*\nKilled"):
        list(rehearsal.rehearse({}, tmp_path / "other", {}))
