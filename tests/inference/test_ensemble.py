"""Runs that answer together: the metrics and probabilities that NumPy makes of each run's own."""

from functools import partial

import jax
import numpy as np
import pytest
import scipy.special
from helpers.scenes import images_config, write_scenes
from helpers.text_runs import config_of, with_random_parameters, write_texts

import jaxformer as jf
from jaxformer.errors import UserError
from jaxformer.evaluation.averaging import combined
from jaxformer.verbs.measuring import Evaluate
from jaxformer.verbs.options import parse
from jaxformer.verbs.predict import Predict

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 7, 4)).astype(np.float32) * 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ensemble")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(root / "cache"))
        write_texts(root / "data")
        write_scenes(root / "data")
        yield root


@pytest.fixture(scope="module")
def texts(root):
    """Three runs: the second has another width, the third also another tokenizer and other lengths."""
    first, second, third = (config_of("classes", root / "data") for _ in range(3))
    second["model"] |= {"width": 24}
    third["model"] |= {"width": 8}
    third["data"]["tokenizer"] |= {"vocab_size": 45}
    third["data"]["batch_size"] = 16
    made = zip(("a", "b", "c"), (first, second, third))
    return [str(with_random_parameters(config, root / name)) for name, config in made]


@pytest.fixture(scope="module")
def pictures(root):
    first, second = (images_config("classification", root / "data") for _ in range(2))
    sizes = {"eval_transforms": [{"name": "resize", "size": 32}]}
    for config in (first, second):
        config["data"] |= sizes
    second["model"]["width"] = 12
    second["task"] = {"name": "classification", "loss_name": "sigmoid"}
    first["task"] = {"name": "classification", "loss_name": "sigmoid"}
    return [str(with_random_parameters(config, root / name)) for name, config in zip("de", (first, second))]


def answers(folder):
    """A run's logits [N, K] for its evaluation split, and the labels [N]."""
    run = jf.load_run(folder)
    data = run.opened().eval_data
    logits, labels = [], []
    apply = jax.jit(partial(run.model.apply, deterministic=True))
    with data.read(0, stop=len(data)) as reader:
        for batch in reader:
            outputs = apply(run.variables, **run.task.inputs(batch))
            logits.append(np.asarray(outputs.logits, np.float64)[batch["example_mask"]])
            labels.append(batch["labels"][batch["example_mask"]])
    return np.concatenate(logits), np.concatenate(labels)


def votes_of(logits):
    """Shares of votes, where one more vote is divided as the mean of the probabilities is."""
    probabilities = scipy.special.softmax(logits, -1)
    votes = np.zeros(logits.shape[1:])
    for one in logits:
        votes[np.arange(len(one)), one.argmax(-1)] += 1
    return (votes + probabilities.mean(0)) / (len(logits) + 1)


BY_HAND = {
    "mean": lambda logits: scipy.special.softmax(logits, -1).mean(0),
    "logits": lambda logits: scipy.special.softmax(logits.mean(0), -1),
    "vote": votes_of,
}


@pytest.mark.parametrize("how", BY_HAND)
def test_probabilities_are_combined_as_by_hand(how):
    found = scipy.special.softmax(np.asarray(combined(LOGITS, how, sigmoid=False), np.float64), -1)
    np.testing.assert_allclose(found, BY_HAND[how](LOGITS.astype(np.float64)), rtol=2e-5)


def test_classes_with_a_probability_each():
    each = scipy.special.expit(LOGITS.astype(np.float64))
    by_hand = {
        "mean": each.mean(0),
        "logits": scipy.special.expit(LOGITS.astype(np.float64).mean(0)),
        "vote": ((LOGITS > 0).sum(0) + each.mean(0)) / 6,
    }
    for how, expected in by_hand.items():
        found = scipy.special.expit(np.asarray(combined(LOGITS, how, sigmoid=True), np.float64))
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_the_majority_wins_however_sure_the_others_are():
    sure, unsure = [50.0, 0.0, 0.0], [0.0, 0.1, 0.0]
    logits = np.array([[sure], [unsure], [unsure]], np.float32)
    assert np.argmax(combined(logits, "vote", sigmoid=False)) == 1
    assert np.argmax(combined(logits, "mean", sigmoid=False)) == 0


@pytest.mark.parametrize("how", BY_HAND)
def test_metrics_of_runs_with_other_models_and_tokenizers(texts, how):
    found = jf.ensemble(texts, how).evaluate().metrics
    logits, labels = zip(*map(answers, texts))
    expected, labels = BY_HAND[how](np.stack(logits)), labels[0]
    assert found["accuracy"] == pytest.approx(np.mean(expected.argmax(-1) == labels))
    loss = -np.log(expected[np.arange(len(labels)), labels]).mean()
    assert found["loss"] == pytest.approx(loss, rel=1e-4)


def test_a_run_with_itself_is_itself(texts):
    alone = jf.load_run(texts[0]).evaluate().metrics
    for how in ("mean", "logits"):
        assert jf.ensemble([texts[0]] * 2, how).evaluate().metrics == pytest.approx(alone, rel=1e-5)


def test_predictions_are_means(texts):
    asked = ["the cat sat", "a dog"]
    each = [jf.load_run(folder).predict(asked) for folder in texts]
    together = jf.ensemble(texts).predict(asked)
    for n, answer in enumerate(together):
        assert answer["text"] == asked[n]
        for one in answer["predictions"]:
            theirs = [
                other["probability"]
                for run in each
                for other in run[n]["predictions"]
                if other["index"] == one["index"]
            ]
            assert len(theirs) == 3
            assert one["probability"] == pytest.approx(np.mean(theirs), abs=3e-6)


def test_images_with_a_probability_a_class(pictures):
    images = iter(RNG.integers(0, 256, (3, 20, 30, 3), np.uint8))
    together = jf.ensemble(pictures).predict(images)
    assert len(together) == 3
    logits, _ = zip(*map(answers, pictures))
    found = jf.ensemble(pictures).evaluate().metrics
    by_hand = scipy.special.expit(np.stack(logits)).mean(0)
    labels = answers(pictures[0])[1]
    assert found["accuracy"] == pytest.approx(np.mean(by_hand.argmax(-1) == labels))


def test_what_cannot_answer_together_is_said(texts, pictures, root):
    for folders, how, message in [
        ([texts[0], pictures[0]], "mean", "its task, Classification, does not answer as"),
        (texts[:1], "mean", "takes two runs or more"),
        (texts[0], "mean", "takes two runs or more"),
        (texts, "median", "how='median': expected mean, logits or vote"),
    ]:
        with pytest.raises(UserError, match=message):
            jf.ensemble(folders, how)
    numbers = with_random_parameters(config_of("pairs", root / "data"), root / "numbers")
    with pytest.raises(UserError, match="has no probabilities of classes"):
        jf.ensemble([texts[0], numbers])
    others = config_of("classes", root / "data")
    others["data"]["train_split"] = "test"
    others["eval"]["split"] = "train"
    shorter = jf.ensemble([texts[0], str(with_random_parameters(others, root / "shorter"))])
    assert shorter.evaluate("test").metrics["loss"] > 0  # the first run's split counts


def test_verbs(texts, capsys):
    parse("evaluate", Evaluate, [*texts, "--ensemble", "vote"])()
    assert '"runs": 3, "ensemble": "vote"' in capsys.readouterr().out
    parse("predict", Predict, [texts[0], "--text", "the cat", "--with", texts[1]])()
    assert "probability" in capsys.readouterr().out
    with pytest.raises(UserError, match="--ensemble mean: is for several runs"):
        parse("evaluate", Evaluate, [texts[0], "--ensemble", "mean"])()
