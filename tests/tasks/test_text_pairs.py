"""Pairs of texts: read as each stands alone, compared, and held against scores."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text_runs import SENTENCE, config_of, random_run, write_texts
from helpers.tiny_tasks import CASES, outputs_of, params_of
from scipy.stats import rankdata

import jaxformer as jf
from jaxformer import cli
from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError, UserError
from jaxformer.experiment import Experiment
from jaxformer.models.text_pairs import TextPairs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    write_texts(folder / "data")
    return random_run("compared", folder / "data", folder / "run")


@cache
def vectors(loaded, text):
    """Of a text alone, by the encoder alone: the mean of its tokens, at length 1."""
    tokens = np.array([loaded.tokenizer.encode(text)], np.int32)
    model, params = loaded.model.text, loaded.variables["params"]["text"]
    mean = np.asarray(model.apply({"params": params}, tokens).tokens[0], np.float64).mean(0)
    return mean / np.linalg.norm(mean)


def test_each_text_is_read_as_it_stands_alone_and_cosines_are_held_against_scores(run, capsys):
    loaded = jf.load_run(run)
    assert cli.main(["evaluate", str(run)]) == 0
    found = json.loads((run / "evaluation.json").read_text())["metrics"]
    source = Experiment(resolve(loaded.run.config)).eval_data.source.records
    records = [record for _, group in source.groups() for record in group]
    pairs = [[source.text(record, name, 0) for name in ("text", "other")] for record in records]
    cosines = [vectors(loaded, a) @ vectors(loaded, b) for a, b in pairs]
    scores = np.array([len(text.split()) / 8 for text, _ in pairs])  # as the dataset has them
    expected = np.corrcoef(rankdata(np.round(cosines, 5)), rankdata(scores))[0, 1]  # ranks, ties share theirs
    assert found["spearman"] == pytest.approx(expected, abs=0.02)
    assert found["pearson"] == pytest.approx(np.corrcoef(cosines, scores)[0, 1], abs=1e-3)
    assert 0 <= found["accuracy"] <= 1
    table = json.loads((run / "evaluation.json").read_text())["retrieval"]
    distinct = list(dict.fromkeys(text for pair in pairs for text in pair))
    assert table["texts"] == [distinct[k] for k in np.linspace(0, len(distinct) - 1, 8).astype(int)]
    for text, found in zip(table["texts"], table["nearest_texts"]):
        own = {other: vectors(loaded, text) @ vectors(loaded, other) for other in distinct if other != text}
        assert [each["similarity"] for each in found] == pytest.approx(sorted(own.values())[:-6:-1], abs=1e-3)
        assert all(each["similarity"] == pytest.approx(own[each["text"]], abs=1e-3) for each in found)
        together = [[text, each["text"]] in pairs or [each["text"], text] in pairs for each in found]
        assert [each["right"] for each in found] == together


def test_the_loss_is_the_cross_entropy_of_each_first_text_and_of_each_second_one():
    case = CASES["compared"]
    batch = case.batch(6)
    outputs = outputs_of(case, params_of("compared"), batch)
    cosines = np.asarray(outputs.image @ outputs.text.T, np.float64) * 20
    log = [np.log(np.exp(cosines).sum(axis)) - np.diag(cosines) for axis in (0, 1)]
    (total,) = case.task.loss(outputs, batch).values()
    assert float(total) == pytest.approx(np.mean(log) * 6, rel=1e-5)


def test_neither_text_sees_the_other():
    case = CASES["compared"]
    batch = case.batch(4)
    variables = case.model.init(jax.random.key(0), **case.task.inputs(batch))
    other = {**batch, "tokens": np.where(batch["segment_ids"] == 2, 3, batch["tokens"])}
    one, two = (case.model.apply(variables, **case.task.inputs(each)) for each in (batch, other))
    np.testing.assert_allclose(one.image, two.image, rtol=1e-6, atol=1e-6)
    assert np.abs(one.text - two.text).max() > 1e-3


@pytest.mark.parametrize("pooling", ["first", "end"])
def test_a_token_can_stand_for_a_text(pooling):
    case = CASES["compared"]
    batch = case.batch(4)
    model = TextPairs(case.model.text, pooling=pooling)
    variables = model.init(jax.random.key(0), **case.task.inputs(batch))
    outputs = model.apply(variables, **case.task.inputs(batch))
    inner = {"params": variables["params"]["text"]}
    seen = case.model.text.apply(inner, **case.task.inputs(batch)).tokens
    for k, found in ((1, outputs.image), (2, outputs.text)):
        places = [np.flatnonzero(row == k)[0 if pooling == "first" else -1] for row in batch["segment_ids"]]
        chosen = jnp.stack([row[place] for row, place in zip(seen, places)])
        lengths = jnp.linalg.norm(chosen, axis=1, keepdims=True)
        np.testing.assert_allclose(
            found, chosen / jnp.broadcast_to(lengths, chosen.shape), rtol=1e-5, atol=1e-5
        )


def test_the_encoder_alone_begins_another_model(run):
    found = jf.load_pretrained(f"{run}#text")
    loaded = jf.load_run(run)
    assert found.model.head == "none"
    tokens = np.array([loaded.tokenizer.encode(SENTENCE)], np.int32)
    mean = np.asarray(found.model.apply(found.variables, tokens).tokens[0]).mean(0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), vectors(loaded, SENTENCE), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data": {"batch_size": 1}}, "data.batch_size=1: a pair alone"),
        ({"data": {"examples": {"name": "sequences", "length": 32, "features": ["text", "other"]}}}, '"compared"'),
        ({"task": {"loss_name": "sigmoid"}}, 'loss_name="sigmoid": needs a model with a bias'),
        ({"data": {"examples": {"name": "compared", "length": 64, "features": ["text", "other"]}}}, "64"),
        ({"data": {"examples": {"name": "compared", "length": 80, "features": ["text", "other"]}}}, "takes 64 tokens"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, line, tmp_path):
    write_texts(tmp_path)
    config = config_of("compared", tmp_path)
    for section, values in changes.items():
        config[section] = {**config[section], **values}
    config["eval"]["monitor"] = "loss"
    if line == "64":  # fits: 32 tokens each
        Experiment(resolve(config)).check()
        return
    with pytest.raises(ConfigError) as caught:
        Experiment(resolve(config)).check()
    assert any(line in each for each in caught.value.lines), caught.value.lines


def test_nothing_is_predicted_of_a_text(run, capsys):
    assert cli.main(["predict", str(run), "a text"]) == 2
    assert "#text" in capsys.readouterr().err
    with pytest.raises(UserError, match="has no such part; leave #image out"):
        _ = jf.load_pretrained(f"{run}#image").model
