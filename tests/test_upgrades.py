"""Configs of runs that earlier versions made still open, under the names of today."""

import json

import pytest

from jaxformer.config.files import read
from jaxformer.config.schema import to_dict
from jaxformer.config.sections import resolve
from jaxformer.config.upgrades import upgraded
from jaxformer.runs import Run


def test_fields_get_their_present_names_and_the_argument_stays():
    old = {"model": {"name": "bert", "num_labels": 3, "width": 8}, "seed": 1, "task": {"num_labels": 2}}
    kept = json.dumps(old)
    assert upgraded(old) == {
        "model": {"name": "bert", "num_classes": 3, "width": 8},
        "seed": 1,
        "task": {"num_labels": 2},
    }
    assert json.dumps(old) == kept


def test_fields_that_came_later_are_as_they_were_before_they_came():
    assert upgraded({"train": {"ema_decay": 0.9}}) == {"train": {"ema_decay": 0.9, "ema_warmup": False}}
    assert upgraded({"train": {"ema_warmup": True}}) == {"train": {"ema_warmup": True}}


@pytest.mark.parametrize("config", [{}, {"model": None}, {"model": "bert"}, {"model": {"name": "vit"}}])
def test_what_has_its_present_name_stays(config):
    assert upgraded(config) == config


def test_a_run_of_an_earlier_version_opens_and_goes_on(tmp_path):
    experiment = resolve(read("bert_sst2_scratch", {"model.num_classes": 2}))
    config = to_dict(experiment)
    config["model"]["num_labels"] = config["model"].pop("num_classes")
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert Run.open(tmp_path).read_config() == experiment
    assert Run.open(tmp_path).config == json.loads(json.dumps(to_dict(experiment)))
    Run.open(tmp_path).enter(experiment)
    assert "num_labels" not in (tmp_path / "config.json").read_text()
