"""The rendered batch script on a real cluster: it is told to end, goes back into the queue, and goes on exactly.

It needs Debian's packages slurm-wlm and munge: apt-get install slurm-wlm munge.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.launches import ROOT, launcher, program
from helpers.slurm_cluster import cluster, missing, said, wait_for

from jaxformer.launching import LEDGERS
from jaxformer.launching.attempts import read

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"apt-get install {missing()}")]

# Two tasks train together where the package sets up several processes.
TASKS = 2 if find_spec("jaxformer.parallel.places") else 1
SUPERVISE = f'PYTHONPATH={ROOT} exec {sys.executable} "$@"'
TINY = {
    "model.depth": 1,
    "data.batch_size": 64,
    "train.total": "400 steps",
    "train.log_every": "20 steps",
    "eval.every": "200 steps",
    "checkpoint.every": "200 steps",
}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with cluster(folder) as env:
        yield env


def submit(folder: Path, env: dict[str, str], run: str, *flags: str) -> str:
    """Submits a training by its launcher from a folder; returns the job's number."""
    overrides = [f"--config.{path}={value}" for path, value in TINY.items()]
    words = [
        "--config",
        str(ROOT / "configs/vit_digits.py"),
        "--workdir",
        run,
        "--name",
        run,
        *overrides,
        *flags,
    ]
    verb = launcher("slurm", [*words, "--processes-per-node", str(TASKS), "--no-rehearsal"])
    plan = verb.render(verb.training(None))
    here = {**env, "PATH": f"{folder}:{env['PATH']}"}
    printed = subprocess.run(
        ["bash", "-c", plan.script()], cwd=folder, env=here, capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    return printed.stdout.strip()


def state(env: dict[str, str], job: str) -> dict[str, str]:
    """What Slurm says of a job."""
    words = said(env, "scontrol", "show", "job", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def steps(run: Path) -> list[tuple[int, float]]:
    """The steps that a run has logged, and their losses."""
    file = run / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]


@pytest.mark.timeout(3600)
def test_a_job_that_is_told_to_end_goes_back_into_the_queue_and_goes_on_exactly(slurm, tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    env = {
        **slurm,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "TFDS_DATA_DIR": str(tmp_path / "data"),
    }
    program(folder / "jaxformer", f'exec {sys.executable} -m jaxformer "$@"')
    program(folder / "python", f'exec {sys.executable} "$@"')

    whole = submit(folder, env, "whole")
    wait_for(lambda: state(env, whole)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 900)
    log = (folder / f"launched/whole/{whole}.log").read_text()
    assert state(env, whole)["JobState"] == "COMPLETED", log

    job = submit(folder, env, "told")
    wait_for(lambda: len(steps(folder / "told")) > 2, 600)
    subprocess.run(
        ["scancel", "--signal=TERM", job], env=env, check=True
    )  # as Slurm does before the time is over
    wait_for(lambda: state(env, job).get("Restarts") == "1", 100)
    between = steps(folder / "told")[-1][0]
    assert 40 < between < 400
    # Slurm lets it wait for two minutes, as it does after every requeue.
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=env, check=True)
    wait_for(lambda: state(env, job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 900)
    log = (folder / f"launched/told/{job}.log").read_text()
    assert state(env, job)["JobState"] == "COMPLETED", log
    results = [json.loads((folder / run / "result.json").read_text()) for run in ("whole", "told")]
    assert [result["status"] for result in results] == ["completed", "completed"]
    assert results[0]["final"] == results[1]["final"]
    assert steps(folder / "told") == steps(folder / "whole")


def test_a_mistake_is_not_started_anew(slurm, tmp_path):
    program(tmp_path / "jaxformer", "echo mistaken; exit 2")
    program(tmp_path / "python", SUPERVISE)
    env = {**slurm, "PATH": f"{tmp_path}:{slurm['PATH']}"}
    job = submit(tmp_path, env, "mistaken")
    wait_for(lambda: state(env, job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 100)
    found = state(env, job)
    assert (found["JobState"], found["Restarts"], found["ExitCode"]) == ("FAILED", "0", "2:0")


def test_the_trainings_of_an_array_are_different_ones(slurm, tmp_path):
    program(tmp_path / "jaxformer", 'echo "$@"')
    program(tmp_path / "python", SUPERVISE)
    env = {**slurm, "PATH": f"{tmp_path}:{slurm['PATH']}"}
    job = submit(tmp_path, env, "seed-{task}", "--name=seeds", "--array=3-4", "--config.seed={task}")
    logs = [tmp_path / f"launched/seeds/{job}_{task}.log" for task in (3, 4)]
    wait_for(lambda: all(log.exists() and log.read_text().count("\n") == TASKS for log in logs), 100)
    for task, log in zip((3, 4), logs):
        assert f"--config.seed={task} " in log.read_text()
        assert f"--workdir seed-{task}" in log.read_text()


def test_a_process_that_dies_is_started_again_within_the_job(slurm, tmp_path):
    program(tmp_path / "jaxformer", 'if mkdir "died-$SLURM_PROCID"; then kill -KILL $$; fi')
    program(tmp_path / "python", SUPERVISE)
    env = {**slurm, "PATH": f"{tmp_path}:{slurm['PATH']}"}
    job = submit(tmp_path, env, "killed")
    wait_for(lambda: state(env, job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 100)
    found = state(env, job)
    assert (found["JobState"], found["Restarts"], found["ExitCode"]) == ("COMPLETED", "0", "0:0")
    ledgers = sorted((tmp_path / "killed").glob(LEDGERS))
    assert [each.name for each in ledgers] == ["attempts-1.jsonl", "attempts.jsonl"][-TASKS:]
    assert [[attempt.exit for attempt in read(each)] for each in ledgers] == [[137, 0]] * TASKS
