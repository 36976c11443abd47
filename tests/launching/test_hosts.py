"""Supervisors of several hosts that share a run's folder, and one that is the first process of a container."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxformer.launching import ATTEMPTS, LEDGERS
from jaxformer.launching.attempts import read
from jaxformer.launching.supervisor import ledger_here
from jaxformer.runs import Run

ROOT = Path(__file__).parent.parent.parent
SUPERVISOR = [sys.executable, "-m", "jaxformer.launching.supervisor", "3"]


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, ATTEMPTS),
        ({"JAXFORMER_HOST": "0"}, ATTEMPTS),
        ({"JAXFORMER_HOST": "0.0"}, ATTEMPTS),
        ({"JAXFORMER_HOST": "1.0"}, "attempts-1.0.jsonl"),
        ({"JAXFORMER_HOST": "0.10"}, "attempts-0.10.jsonl"),
        ({"JAXFORMER_PROCESS": "0"}, ATTEMPTS),
        ({"JAXFORMER_PROCESS": "10"}, "attempts-10.jsonl"),
        ({"SLURM_PROCID": "3"}, "attempts-3.jsonl"),
        ({"JAXFORMER_HOST": "", "SLURM_PROCID": "3"}, "attempts-3.jsonl"),
    ],
)
def test_supervisors_that_share_a_folder_have_a_ledger_each(tmp_path, monkeypatch, variables, name):
    for each in ("JAXFORMER_HOST", "JAXFORMER_PROCESS", "SLURM_PROCID"):
        monkeypatch.delenv(each, raising=False)
    for each, value in variables.items():
        monkeypatch.setenv(each, value)
    assert ledger_here() == name
    assert Path(name).match(LEDGERS)


def test_two_supervisors_work_in_one_folder_and_keep_to_their_own_attempts(tmp_path):
    """The first host's training dies once; the other's is done at once, and waits for nothing."""
    script = "import os, sys; place = os.environ['JAXFORMER_PROCESS']; mark = sys.argv[1] + '/mark'\n"
    script += "if place == '0' and not os.path.exists(mark): open(mark, 'w').close(); os.kill(os.getpid(), 9)"
    run = tmp_path / "run"
    program = [*SUPERVISOR, str(run), sys.executable, "-S", "-c", script, str(run)]
    started = [
        subprocess.Popen(program, cwd=ROOT, env={**os.environ, "JAXFORMER_PROCESS": place}) for place in "01"
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    assert [each.exit for each in read(run / ATTEMPTS)] == [137, 0]
    assert [each.exit for each in read(run / "attempts-1.jsonl")] == [0]


def test_ledgers_of_many_hosts_are_no_other_run(tmp_path):
    for place in range(20):
        (tmp_path / f"attempts-{place}.jsonl").touch()
    assert Run(tmp_path)._others() == []
    for place in range(20):
        (tmp_path / f"notes-{place}.txt").touch()
    assert len(Run(tmp_path)._others()) == 20


CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode != 0,
    reason="new namespaces of processes are not allowed here",
)
def test_the_first_process_of_a_container_passes_sigterm_on_and_waits_for_the_save(tmp_path):
    script = "trap 'sleep 1; touch saved; exit 75' TERM; touch up; while true; do sleep 0.05; done"
    run = tmp_path / "run"
    words = [*CONTAINER, *SUPERVISOR, str(run), "env", f"--chdir={tmp_path}", "bash", "-c", script]
    with subprocess.Popen(words, cwd=ROOT) as container:
        end = time.monotonic() + 30
        while not (tmp_path / "up").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert container.wait(30) == 75
    assert (tmp_path / "saved").exists()
    assert [each.exit for each in read(run / ATTEMPTS)] == [75]
