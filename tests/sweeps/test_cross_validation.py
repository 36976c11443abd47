"""Cross-validation on the command line: one training for each part, which is held out."""

import json
import statistics

import jax
import pytest

from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.train import train

TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.monitor": "loss",
    "train.total": "2 steps",
}


@pytest.mark.slow
@pytest.mark.usefixtures("digits_without_reports")
def test_every_part_is_held_out_once_and_their_mean_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    given = [f"--config.{leaf}={value}" for leaf, value in TINY.items()]
    words = ["cross-validate", "--config", "vit_digits", "--folds", "2", "--workdir", str(tmp_path / "folds")]
    assert cli.main([*words, *given]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    values = list(told["folds"].values())
    assert (told["metric"], list(told["folds"])) == ("loss", ["1/2", "2/2"])
    assert (told["mean"], told["deviation"]) == (statistics.fmean(values), statistics.stdev(values))
    assert values[0] != values[1]
    # As one training, held against the part that it has not seen.
    config = files.read("vit_digits", {**TINY, "data.fold": "2/2", "eval.split": "fold"})
    experiment = Experiment(resolve(config))
    assert len(experiment.eval_data.source) == 32
    assert train(experiment, tmp_path / "one")["final"]["loss"] == pytest.approx(values[1], rel=1e-4)
    # Nothing is trained again.
    runs = {path: path.read_bytes() for path in (tmp_path / "folds" / "results").iterdir()}
    assert cli.main([*words, *given]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == told
    assert {path: path.read_bytes() for path in (tmp_path / "folds" / "results").iterdir()} == runs
