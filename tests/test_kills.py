"""A run that is killed at any moment, any number of times, ends as the one that was left alone; nothing is left over.

The processes are killed by SIGKILL, in turn after a random time, just before a random operation on a file (in saves,
deletions and the writing of results), and so that all that no fsync has brought to the disk is lost, as in a power cut.
The normal suite makes 20 kills. `launch/test.sh --slow tests/test_kills.py` makes 300 more, or as many as
JAXFORMER_KILLS says, in 15 tests of a minute or two; with `-k average`, `-k accumulated` or `-k text`, a third of them.
"""

import json
import os
import random
import re
import shutil

import numpy as np
import pytest
from helpers.killed import ROOT, Killer
from helpers.saved import arrays_of
from helpers.text_runs import config_of, write_texts

DIGITS = {
    "task": {"name": "classification"},
    "model": {
        "name": "vit", "image_size": 8, "patch_size": 4, "width": 8, "depth": 1, "num_heads": 1, "mlp_dim": 8,
        "num_classes": 10, "dropout": 0.1,
    },
    "data": {
        "name": "digits", "train_split": "train[:96]", "batch_size": 16,
        "transforms": [{"name": "pad_and_crop", "padding": 1}],
    },
    "eval": {"split": "test[:32]", "every": "2 steps", "monitor": "accuracy"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-2},
    "schedule": {"name": "constant"},
    "train": {"total": "10 steps", "log_every": "1 step"},
    "checkpoint": {"every": "2 steps"},
}  # fmt: skip
PARTS = 5  # of the kills of a workload
NOT_COMPARED = ("time", "train/examples_per_second")


def changed(config, **sections):
    return {**config, **{name: {**config.get(name, {}), **values} for name, values in sections.items()}}


def workloads(data_dir):
    """Config by name."""
    steps = {"total": "8 steps", "log_every": "1 step"}
    text = changed(
        config_of("classes", data_dir),
        eval={"every": "2 steps", "mode": None},
        train=steps,
        checkpoint={"every": "2 steps"},
    )
    return {
        "average": changed(DIGITS, train={"ema_decay": 0.9}),
        "accumulated steps, two best kept": changed(
            DIGITS,
            train={"accumulate": 2},
            checkpoint={"keep": 1, "keep_best": 2},
            eval={"restore_best": True},
        ),
        "text": text,
    }


class Runs:
    """Runs of one config, killed and not."""

    def __init__(self, killer, folder, config):
        self.killer, self.folder = killer, folder
        self.output = folder.with_name("output.txt")  # a power cut takes nothing from it
        self.config = folder / "config.py"
        literal = json.dumps(config).replace("null", "None").replace("true", "True")
        self.config.write_text(
            f"import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({literal})\n"
        )
        self.whole = folder / "whole"
        code, self.operations = self.start(self.whole)
        assert code == 0, f"{self.operations[-30:]}\n{self.output.read_text()}"

    def start(self, run, **moment):
        return self.killer.run(
            ["train", "--config", str(self.config), "--run", str(run)], self.output, **moment
        )

    def killed(self, run, kills, rng):
        """Starts a run until it ends, killing it at most so many times; returns how many times it was killed."""
        done = 0
        while True:
            moment = {} if done >= kills else self.moment(done, rng)
            self.output.unlink(missing_ok=True)
            code, operations = self.start(run, **moment)
            said = self.output.read_text()
            told = f"{moment}, kill {done} of {run}, {code}: {operations[-30:]}\n{said}"
            assert code in (0, -9), told
            assert not re.search("damaged|Traceback|cannot|Error", said), told
            if code == 0:
                return done
            done += 1

    def moment(self, number, rng):
        if number % 2:
            return {"seconds": rng.uniform(0, 1.5)}
        drawn = [
            place
            for place, line in enumerate(self.operations)
            if not re.search(r"-\w+\.png|[1-9]\.png", line)
        ]
        early = rng.choice(drawn[: len(drawn) // 2])  # a run that begins in the middle has fewer operations
        return {"operation": rng.choice([early, rng.choice(drawn)]), "power": number % 4 == 2}


def content(path):
    """A file's content as it is compared."""
    if path.name == "metrics.jsonl":
        records = map(json.loads, path.read_text().splitlines())
        return [
            {key: value for key, value in record.items() if key not in NOT_COMPARED} for record in records
        ]
    if path.name in ("result.json", "config.json"):
        found = json.loads(path.read_text())
        return {key: found.get(key) for key in ("status", "step", "final", "best", "config")}
    return path.read_bytes()


def assert_same_run(found, expected):
    names = [
        sorted(
            path.relative_to(run).as_posix()
            for path in [*run.glob("*"), *run.glob("[cs]*/*"), *run.glob("samples/*/*")]
        )
        for run in (found, expected)
    ]
    assert names[0] == names[1]  # no file is missing, and nothing is left over
    for name in names[0]:
        if name == "report.html":
            assert (found / name).read_text().rstrip().endswith("</html>")
        elif name.startswith("checkpoints/"):
            saved, wanted = arrays_of(found / name), arrays_of(expected / name)
            assert saved.keys() == wanted.keys()
            for path in saved:
                np.testing.assert_array_equal(saved[path], wanted[path])
        elif name == "attempts.jsonl":  # has times
            assert all(json.loads(line) for line in (found / name).read_text().splitlines())
        elif (found / name).is_file():
            assert content(found / name) == content(expected / name), name


def kill_runs(tmp_path, digits_dir, name, kills, seed=0):
    data_dir, cache = tmp_path / "data", tmp_path / "cache"
    if name == "text":
        write_texts(data_dir)
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TFDS_DATA_DIR": str(digits_dir),
        "JAXFORMER_CACHE": str(cache),
    }
    folder, rng, lives = tmp_path / "runs", random.Random(seed), 0
    folder.mkdir()
    with Killer([folder, cache], environment) as killer:
        runs = Runs(killer, folder, workloads(data_dir)[name])
        while kills > 0:
            lives += 1
            shutil.rmtree(cache, ignore_errors=True)
            run = folder / f"killed-{lives}"
            kills -= runs.killed(run, kills, rng)
            assert_same_run(run, runs.whole)
            assert not list(cache.rglob(".*"))
            shutil.rmtree(run)


@pytest.mark.slow  # tests/launching/test_restarts.py kills one in the usual suite
def test_killed_at_twenty_moments(tmp_path, digits_dir):
    kill_runs(tmp_path, digits_dir, "average", 20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, PARTS + 1))
@pytest.mark.parametrize("name", workloads("/nowhere"))
def test_killed_at_three_hundred_moments(tmp_path, digits_dir, name, seed):
    kills = int(os.environ.get("JAXFORMER_KILLS", 300)) // (PARTS * len(workloads("/nowhere")))
    kill_runs(tmp_path, digits_dir, name, max(1, kills), seed)
