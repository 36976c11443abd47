"""The programs that launchers run: in which order, and what is said where one is not there, or fails."""

import os
from pathlib import Path

import pytest
from helpers.launches import COMMANDS, ROOT, bash, launcher, program

from jaxformer import cli
from jaxformer.errors import UserError
from jaxformer.launching.base import Launcher, Plan

SUBMITS = {"slurm": "sbatch", "k8s": "kubectl", "skypilot": "sky"}


def test_a_plan_is_written_and_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program(tmp_path / "tool", 'cat made/file >>seen; echo " $1" >>seen; exit "$1"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    made = Plan({"made/file": "it's\n"}, (("tool", "0"), ("tool", "3"), ("tool", "0")))
    assert Launcher().run(made) == 3
    assert Path("seen").read_text() == "it's\n 0\nit's\n 3\n"
    Path("seen").unlink()
    assert bash(made.script(), tmp_path).returncode == 3
    assert Path("seen").read_text() == "it's\n 0\nit's\n 3\n"


@pytest.mark.parametrize("name", ["tpu", *SUBMITS])
def test_a_program_that_is_not_there_is_named(name, monkeypatch, tmp_path):
    verb = launcher(name, COMMANDS[name])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        verb.run(Plan({"made": ""}, ()))
    assert error.value.lines[0].startswith(f"{verb.program}: is not on this machine, or not in PATH; ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SUBMITS)
@pytest.mark.parametrize(("code", "said"), [("exit 1", 1), ("exit 75", 75), ("kill -9 $$", 137)])
def test_a_program_that_fails_is_no_training_that_failed(name, code, said, monkeypatch, tmp_path, capfd):
    program(tmp_path / SUBMITS[name], f"echo its own words >&2; {code}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    words = COMMANDS[name].replace("configs/", f"{ROOT}/configs/").split()
    assert cli.main(["launch", name, *words]) == 2
    ended = f"jaxformer: {SUBMITS[name]}: ended with exit code {said}; its reason stands above"
    assert capfd.readouterr().err.splitlines() == ["its own words", ended]


@pytest.mark.parametrize("name", SUBMITS)
def test_a_program_that_cannot_be_run_is_named(name, monkeypatch, tmp_path, capfd):
    (tmp_path / SUBMITS[name]).write_text("#!/nowhere/python\n")
    (tmp_path / SUBMITS[name]).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = COMMANDS[name].replace("configs/", f"{ROOT}/configs/").split()
    assert cli.main(["launch", name, *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"jaxformer: {SUBMITS[name]}: cannot be run (No such file or directory); ")
