"""What `launch local` renders; tests/launching/test_restarts.py runs it."""

import os
import shlex
import sys
from dataclasses import replace

import pytest
from helpers.launches import job, launcher

from jaxformer.errors import UserError

SUPERVISOR = "python -m jaxformer.launching.supervisor"


def words(flags):
    verb = launcher("local", f"--config configs/vit_digits.py {flags}")
    (command,) = verb.render(job("runs/sample")).commands
    return shlex.join(command)


def test_the_supervisor_gets_the_folder_and_the_training():
    train = shlex.join(job("runs/sample").command)
    assert words("") == f"{SUPERVISOR} --rehearse 3 runs/sample {train}"
    assert words("--attempts 7 --env A=1") == f"{SUPERVISOR} --rehearse 7 runs/sample env A=1 {train}"
    together = "--processes 2 --devices-per-process 4 --no-rehearsal"
    there = f"{train} --processes=2 --devices-per-process=4"
    assert words(together) == f"{SUPERVISOR} 3 runs/sample {there}"


def test_devices_are_those_of_several_processes():
    with pytest.raises(UserError, match=r"devices.per.process.*is for several processes; give"):
        words("--devices-per-process 4")


@pytest.mark.parametrize("flags", ["", "--no-rehearsal --env A=1"])
def test_a_folder_may_have_the_name_of_the_program(flags, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda _, words: started.extend(words))
    sample = replace(job("jaxformer"), command=("jaxformer", "train", "--workdir", "jaxformer"))
    verb = launcher("local", f"--config configs/vit_digits.py {flags}")
    verb.run(verb.render(sample))
    assert started[started.index("3") + 1] == "jaxformer"
    assert started[-6:] == [sys.executable, "-m", "jaxformer", "train", "--workdir", "jaxformer"]
