"""Configs of runs that earlier versions made still open, under the names of today."""

import json

import pytest
from jaxformer.observe.run_folder import open_run
from jaxformer.run import open_for_training, read_experiment

from jaxformer.config.files import read
from jaxformer.config.sections import resolve, to_dict
from jaxformer.config.upgrades import upgraded


def test_fields_get_their_present_names_and_the_argument_stays():
    old = {"model": {"name": "bert", "num_labels": 3, "width": 8}, "seed": 1, "task": {"num_labels": 2}}
    kept = json.dumps(old)
    assert upgraded(old) == {
        "model": {"name": "bert", "num_classes": 3, "width": 8},
        "seed": 1,
        "task": {"num_labels": 2},
    }
    assert json.dumps(old) == kept


@pytest.mark.parametrize("config", [{}, {"model": None}, {"model": "bert"}, {"model": {"name": "vit"}}])
def test_what_has_its_present_name_stays(config):
    assert upgraded(config) == config


def test_a_run_of_an_earlier_version_opens_and_goes_on(tmp_path):
    experiment = resolve(read("bert_sst2_scratch", ["--config.model.num_classes=2"]))
    config = to_dict(experiment)
    config["model"]["num_labels"] = config["model"].pop("num_classes")
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert read_experiment(tmp_path)[1] == experiment
    assert open_run(tmp_path).config == json.loads(json.dumps(to_dict(experiment)))
    open_for_training(tmp_path, experiment)
    assert "num_labels" not in (tmp_path / "config.json").read_text()
