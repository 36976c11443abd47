"""From a pretrained folder to a model of a user's own: what the folder gives, and features that are kept."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from helpers.text_runs import config_of, random_run, write_texts

import jaxformer as jf
from jaxformer import cli
from jaxformer.config.schema import build
from jaxformer.config.sections import resolve
from jaxformer.data.text.tokenizer_training import Trained
from jaxformer.errors import ConfigError, UserError
from jaxformer.evaluation import features
from jaxformer.experiment import Experiment
from jaxformer.models import CONTRACT, MODELS
from jaxformer.weights.export import write_pretrained

WORDS = "the cat saw a dog and in Oslo with Ann"


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A dataset of texts, and a tiny BERT with a tokenizer, as transformers would write both."""
    folder = tmp_path_factory.mktemp("transfer")
    write_texts(folder / "data")
    tokenizer = Trained(kind="wordpiece", vocab_size=60, template="bert").build(lambda: iter([WORDS] * 3))
    model = build(
        MODELS,
        {"name": "bert", "vocab_size": tokenizer.vocab_size, "width": 16, "num_heads": 2, "mlp_dim": 32}
        | {"max_positions": 24, "depth": 1, "head": "none"},
        "model",
        CONTRACT,
    )
    write_pretrained(
        model, "bert", jf.init(model, seed=5, tokens=(1, 4)), folder / "source", tokenizer=tokenizer
    )
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))


def config_with(there, **model):
    config = config_of("classes", there / "data")
    del config["data"]["tokenizer"]
    config["data"]["examples"] = {"name": "sequences", "features": ["text"]}
    return {
        **config,
        "model": {"pretrained": str(there / "source"), "head": "sequence", "pooler": "mean", **model},
    }


def test_the_folder_gives_the_tokenizer_and_the_length(there):
    data = resolve(config_with(there)).data
    assert data.tokenizer.path == str(there / "source" / "tokenizer.json")
    assert data.examples.length == 24
    (there / "source" / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    assert resolve(config_with(there)).data.examples.length == 12
    given = config_with(there)
    given["data"] |= {"tokenizer": {"name": "bytes", "template": "bert"}}
    given["data"]["examples"]["length"] = 20
    data = resolve(given).data
    assert (type(data.tokenizer).__name__, data.examples.length) == ("Bytes", 20)
    with pytest.raises(ConfigError, match="missing; name a folder"):
        resolve(config_with(there, pretrained=None))


def test_a_folder_in_a_python_package_is_a_source(there, tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('is not to be run')")
    (package / "model").symlink_to(there / "source")
    monkeypatch.syspath_prepend(tmp_path)
    assert jf.load_pretrained("package:some_weights/model").folder == package / "model"
    for name in ("no_such_weights", "some-weights", ""):
        with pytest.raises(UserError, match="there is no Python package"):
            jf.load_pretrained(f"package:{name}/model")


def test_kept_features_are_fresh_ones_until_weights_or_data_change(there, monkeypatch):
    experiment = Experiment(resolve(config_with(there)))
    variables = experiment.init_state().variables()
    batches = experiment.eval_data
    batch = batches[0]
    mask = batch.pop("example_mask")
    apply = jax.jit(partial(experiment.model.apply, deterministic=True))
    outputs = apply(variables, **experiment.task.inputs(batch))
    weights = batch["token_mask"][mask][..., None] / batch["token_mask"][mask].sum(1)[:, None, None]
    expected = (np.asarray(outputs.tokens)[mask] * weights).sum(1)  # by hand: the mean of what is no padding

    counted = []
    real = features.features
    monkeypatch.setattr(features, "features", lambda *given: counted.append(1) or real(*given))

    def kept(experiment=experiment, variables=variables, split="test"):
        before = len(counted)
        found = features.cached_features(experiment, variables, split)
        return found, len(counted) - before

    (found, labels), runs = kept()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(labels, batch["labels"][mask])
    assert runs == len(batches)
    again, runs = kept()
    assert runs == 0
    np.testing.assert_array_equal(again[0], found)
    assert kept(split="train")[1] > 0
    other = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].add(1e-3), variables)
    assert kept(variables=other)[1] > 0
    shorter = config_with(there)
    shorter["data"]["examples"]["length"] = 4
    assert kept(Experiment(resolve(shorter)))[1] > 0
    assert kept()[1] == 0


@pytest.mark.parametrize("head", ["logistic", "knn"])
def test_a_probe_learns_from_the_features(there, head, capsys, tmp_path):
    config = tmp_path / "probed.py"
    literal = json.dumps(config_with(there)).replace("null", "None")
    config.write_text(
        f"import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({literal})\n"
    )
    assert cli.main(["probe", "--config", str(config), "--head", head, "--neighbors", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["head"], found["split"], found["features"], found["examples"]) == (head, "test", 16, 16)
    assert 0 <= found["accuracy"] <= 1
    assert found["accuracy_in_training"] > 0.5  # of three classes


def test_features_of_a_users_own_texts_are_those_of_the_model(tmp_path, capsys):
    write_texts(tmp_path / "data")
    folder = random_run("classes", tmp_path / "data", tmp_path / "run")
    assert cli.main(["predict", str(folder), "the cat saw", "--text", "Ann", "--features"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["the cat saw", "Ann"]
    run = jf.load_run(folder)
    tokens = np.array([run.tokenizer.encode("the cat saw")], np.int32)
    expected = run.model.apply(run.variables, tokens=tokens, deterministic=True).features[0]
    np.testing.assert_allclose(lines[0]["features"], expected, rtol=1e-4, atol=1e-5)
