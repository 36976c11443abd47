"""Sweeps on the command line: one worker, and two that are killed all the time, write the same study.json."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from jaxformer import cli

ROOT = Path(__file__).parent.parent.parent
KILLS = 10
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "model.dropout": 0.1,
    "train.total": "60 steps",
    "eval.split": "test[:64]",
    "eval.every": "20 steps",
    "checkpoint.every": "5 steps",
}
SWEPT = ["--set", "optimizer.learning_rate=log(1e-3,1e-1)", "--rungs", "2", "--eta", "2"]
TRIALS = {"sobol": 6, "tpe": 13, "cmaes": 9}  # of the last two, some learn from those before


def test_mistakes_are_told_with_the_flags_that_hold_them(capsys, tmp_path, monkeypatch, digits_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.chdir(tmp_path)
    for words, said in {
        "--set model.depht=1": "model.depht: ViT has no field 'depht'; did you mean 'depth'",
        "--set model.depth=1 --metric acuracy": "--metric acuracy: not a metric",
        "--set model.depth=1 --trials 3 --sampler grid": "--trials: a grid tries all",
        "--set model.depth": "--set model.depth: expected section.leaf=VALUE",
        "--set model.depth=1 --eta 2": "--eta: is for successive halving; give --rungs",
        "--set model.depth=1,2 --config.model.depth=3": "--set model.depth: has a value for all trials, too",
        "--set model.depth=1 --cores-per-trial 4096": "--cores-per-trial 4096: this process may use",
        "--sweep wide": "--sweep wide: there is no get_sweep_wide",
        "--sweep /nothere.py": "--sweep /nothere.py: there is no such file",
        "--set model.dropout=lg(0.1,0.5) --trials 2": "--set lg(0.1,0.5): there is no range 'lg'",
        "--set model.dropout=log(0,0.5) --trials 2": "log(0, 0.5): has no logarithm",
        "--set model.depth=1 --rule asha": "--rule: is for successive halving; give --rungs",
        "--set model.depth=1 --metric accuracy,loss --rungs 2": "halving: goes by one metric",
        "--set model.dropout=uniform(0,0.5) --sampler tpe": "--trials: the sampler 'tpe' has no end",
        "--set model.dropout=uniform(0.5,0.1) --trials 2": "parameters: model.dropout: uniform(0.5, 0.1): there is",
    }.items():
        assert cli.main(["sweep", "--config", "vit_digits", *words.split()]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["sweep", "work", "nowhere"]) == 2
    assert "nowhere: not a sweep's folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def environment(digits_dir):
    """One device, a shared compilation cache."""
    return {
        **os.environ,
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
        "TFDS_DATA_DIR": str(digits_dir),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
    }


def begin(folder, environment, workers, sampler):
    overrides = [f"--config.{leaf}={value}" for leaf, value in TINY.items()]
    words = [
        "--config",
        "vit_digits",
        *SWEPT,
        *overrides,
        "--sampler",
        sampler,
        "--trials",
        str(TRIALS[sampler]),
        "--workdir",
        str(folder),
        "--workers",
        str(workers),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "jaxformer", "sweep", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def at_work(folder):
    """The processes that have a trial in hand."""
    found = [json.loads(path.read_text()) for path in (folder / "leases").glob("[!.]*")]
    return [lease["pid"] for lease in found if "pid" in lease and Path(f"/proc/{lease['pid']}").exists()]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("sampler", TRIALS)
def test_kills_change_nothing(sampler, tmp_path, environment):
    alone = begin(tmp_path / "one", environment, 1, sampler)
    output, _ = alone.communicate()
    assert alone.returncode == 0, output
    expected = (tmp_path / "one" / "study.json").read_bytes()
    assert len(json.loads(expected)["trials"]) == TRIALS[sampler]

    folder, rng, killed, leaders = tmp_path / "two", random.Random(0), 0, 1
    leader = begin(folder, environment, 2, sampler)
    while leader.poll() is None:
        time.sleep(rng.uniform(1, 5))
        if killed < KILLS and (processes := at_work(folder)):
            os.kill(rng.choice(processes), signal.SIGKILL)
            killed += 1
        if killed == KILLS // 2 and leaders == 1:
            leader.kill()
            leader.communicate()
            leader, leaders = begin(folder, environment, 2, sampler), 2
    output, _ = leader.communicate()
    assert leader.returncode == 0, output
    assert (killed, leaders) == (KILLS, 2), "the sweep ended before it could be killed: make it longer"
    assert (folder / "study.json").read_bytes() == expected
