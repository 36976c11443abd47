"""Classes and numbers of texts: mixup of embedded texts, correlations, and what does not fit."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_tasks import CASES, DECODER, LENGTH, VOCAB, encoder, outputs_of, params_of
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxformer.config.schema import load, resolve
from jaxformer.data.text.tokenizer_templates import TEMPLATES
from jaxformer.data.text.tokenizer_training import Bytes, Characters
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import added, real_rows
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import TASKS
from jaxformer.tasks.text_classification import TextClassification, TextRegression, correlations

CASE = CASES["classes"]
MIXUP = TextClassification(mixup=0.4)


@pytest.fixture(scope="module")
def batch():
    """Texts of one type in pairs of equal lengths: row 2 i + 1 is as long as row 2 i."""
    batch = CASE.batch()
    mask = np.repeat(batch["token_mask"][::2], 2, axis=0)
    tokens = np.random.default_rng(3).integers(3, VOCAB, mask.shape)
    batch["tokens"], batch["token_mask"] = np.where(mask, tokens, 0).astype(np.int32), mask
    return {**batch, "token_types": np.zeros_like(batch["token_types"])}


@pytest.fixture(scope="module")
def logits_of():
    """The model's logits of a batch, compiled once for mixed ones and once for others."""
    params = params_of("classes")
    return jax.jit(lambda batch: outputs_of(CASE, params, batch).logits)


def with_weight(batch, weight):
    """The batch with each text's neighbour in its pair mixed in."""
    partner = np.arange(16) ^ 1
    mixed = {f"mixed_{name}": batch[name][partner] for name in ("tokens", "token_mask", "labels")}
    return {**batch, **mixed, "mix_weight": np.broadcast_to(np.float32(weight), 16)}, partner


def test_weight_1_is_the_text_and_weight_0_its_partner(batch, logits_of):
    plain = logits_of(batch)
    mixed, partner = with_weight(batch, 1.0)
    np.testing.assert_allclose(logits_of(mixed), plain, rtol=1e-5, atol=1e-5)
    mixed, partner = with_weight(batch, 0.0)
    np.testing.assert_allclose(logits_of(mixed), plain[partner], rtol=1e-5, atol=1e-5)
    assert np.abs(plain - plain[partner]).max() > 0.1
    half, _ = with_weight(batch, 0.5)
    assert np.abs(logits_of(half) - plain).max() > 0.01


def test_a_longer_partner_is_seen_whole(batch, logits_of):
    """Weight 0 on a short text is its long partner, its positions and all."""
    longer = np.full(16, LENGTH) - np.arange(16) % 2 * 3  # 8 and 5 in turns
    mask = np.arange(LENGTH) < longer[:, None]
    uneven = {**batch, "token_mask": mask, "tokens": np.where(mask, np.maximum(batch["tokens"], 3), 0)}
    mixed, partner = with_weight(uneven, 0.0)
    short = np.arange(16) % 2 == 1
    found, expected = logits_of(mixed), logits_of(uneven)[partner]
    np.testing.assert_allclose(found[short], expected[short], rtol=1e-5, atol=1e-5)


def test_padding_of_the_shorter_text_is_not_seen(batch, logits_of):
    """Its vectors are 0 there (Guo et al. 2019), whatever its tokens are, and whichever of the two it is."""
    longer = np.full(16, LENGTH) - np.arange(16) % 2 * 3
    mask = np.arange(LENGTH) < longer[:, None]
    found = []
    for padding in (0, 7):
        tokens = np.where(mask, np.maximum(batch["tokens"], 3), padding).astype(np.int32)
        mixed, _ = with_weight({**batch, "token_mask": mask, "tokens": tokens}, 0.6)
        found.append(logits_of(mixed))
    np.testing.assert_array_equal(*found)


def test_past_the_end_of_the_shorter_text_there_is_the_longer_one_alone(batch):
    """The sum that goes into the first LayerNorm, taken apart: 0.6 of one text where only that one goes on."""
    params, model = params_of("classes"), CASE.model
    longer = np.full(16, LENGTH) - np.arange(16) % 2 * 3
    mask = np.arange(LENGTH) < longer[:, None]
    uneven = {**batch, "token_mask": mask, "tokens": np.where(mask, np.maximum(batch["tokens"], 3), 0)}
    mixed, partner = with_weight(uneven, 0.6)
    _, kept = model.apply(
        {"params": params},
        **MIXUP.inputs(mixed),
        deterministic=True,
        capture_intermediates=lambda module, _: module.name == "embedding_norm",
        mutable=["intermediates"],
    )
    (found,) = kept["intermediates"]["embedding_norm"]["__call__"]
    table = {
        name: np.asarray(params[f"{name}_embedding"]["embedding"]) for name in ("token", "position", "type")
    }
    own = table["token"][uneven["tokens"]] * mask[:, :, None]
    x = 0.6 * own + 0.4 * own[partner] + table["position"][None, :LENGTH] + table["type"][0]
    scale, bias = (np.asarray(params["embedding_norm"][name]) for name in ("scale", "bias"))
    centred = x - x.mean(-1, keepdims=True)
    expected = (
        centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + model.norm_epsilon) * scale + bias
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_mixup_takes_the_row_before_and_one_weight(batch):
    mixed = jax.jit(MIXUP.augment)(jax.random.key(0), batch)
    weight = np.asarray(mixed["mix_weight"])
    assert (weight.shape, weight.dtype, np.ptp(weight)) == ((16,), np.float32, 0)
    assert 0 < weight[0] < 1
    for name in ("tokens", "token_mask", "labels"):
        np.testing.assert_array_equal(mixed[f"mixed_{name}"], np.roll(batch[name], 1, axis=0))
        np.testing.assert_array_equal(mixed[name], batch[name])
    other = MIXUP.augment(jax.random.key(1), batch)["mix_weight"]
    assert other[0] != weight[0]
    assert TextClassification().augment(jax.random.key(0), batch) is batch


def test_a_text_whose_partner_is_padding_is_not_mixed(batch, logits_of):
    mask = np.arange(16) < 5
    rows = {**batch, "example_mask": mask, "token_mask": batch["token_mask"] & mask[:, None]}
    mixed = MIXUP.augment(jax.random.key(0), rows)
    assert mixed["mix_weight"][0] == 1  # the last row is padding
    assert (mixed["mix_weight"][1:5] < 1).all()
    del mixed["example_mask"], rows["example_mask"]
    np.testing.assert_allclose(logits_of(mixed)[0], logits_of(rows)[0], rtol=1e-5, atol=1e-5)


def test_the_loss_of_mixed_texts_is_weighted(batch):
    logits = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    outputs = TextOutputs(logits=jnp.asarray(logits), tokens=None)
    mixed, partner = with_weight(batch, 0.3)
    losses = -np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    rows, labels = np.arange(16), batch["labels"]
    expected = 0.3 * losses[rows, labels] + 0.7 * losses[rows, labels[partner]]
    np.testing.assert_allclose(MIXUP.loss(outputs, mixed)["cross_entropy"], expected.sum(), rtol=1e-5)
    assert MIXUP.loss(outputs, batch)["cross_entropy"] == pytest.approx(losses[rows, labels].sum(), rel=1e-5)


def test_the_model_is_given_the_partner(batch):
    mixed, _ = with_weight(batch, 0.3)
    text = {"tokens", "token_mask", "token_types"}
    assert set(MIXUP.inputs(mixed)) == text | {"mixed_tokens", "mixed_token_mask", "mix_weight"}
    assert set(MIXUP.inputs(batch)) == text


def evaluated(predicted, labels, size=16):
    """As the evaluator does it: padded batches, whose padding is nonsense."""
    task, sums, collected = TextRegression(), [], []
    for first in range(0, len(labels), size):
        real = len(labels[first : first + size])
        batch = {"labels": np.full(size, 99, np.float32), "example_mask": np.arange(size) < real}
        batch["labels"][:real] = labels[first : first + size]
        logits = np.full((size, 1), -50, np.float32)
        logits[:real, 0] = predicted[first : first + size]
        outputs = TextOutputs(logits=jnp.asarray(logits), tokens=None)
        sums.append(task.eval_sums(outputs, batch))
        found = task.collect(outputs, batch, None, None)
        collected.append({**found, "example_mask": batch["example_mask"]})
    return task.summarize(added(sums), real_rows(collected), None).metrics


def test_a_regressions_correlations_are_scipys():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 6, 53).astype(np.float32)  # with ties
    predicted = np.exp(labels + rng.normal(size=53)).astype(np.float32)  # monotonic, not linear
    found = evaluated(predicted, labels)
    assert found["pearson"] == pytest.approx(
        stats.pearsonr(predicted.astype(float), labels).statistic, rel=1e-6
    )
    assert found["spearman"] == pytest.approx(stats.spearmanr(predicted, labels).statistic, rel=1e-6)
    assert found["loss"] == pytest.approx(np.mean((predicted.astype(float) - labels) ** 2), rel=1e-5)
    assert set(found) == set(TextRegression.metric_names)
    assert found["spearman"] > found["pearson"] + 0.05


def test_a_regression_that_has_collapsed_has_correlations_of_0():
    found = evaluated(np.ones(20, np.float32), np.arange(20, dtype=np.float32))
    assert (found["pearson"], found["spearman"]) == (0, 0)


def test_samples_have_the_text():
    tokenizer = Characters("bert").build(lambda: iter(["xyz"]))
    ids = tokenizer.encode("zyx")
    shown = SimpleNamespace(tokenizer=tokenizer, class_names=["bad", "good"])
    example = {"tokens": np.array([*ids, 0]), "token_mask": np.arange(6) < 5, "labels": np.int32(1)}
    sample = MIXUP.sample(example, {"probabilities": np.array([0.75, 0.25])}, shown)
    assert json.loads(json.dumps(sample))["text"] == "zyx"
    assert (sample["correct"], sample["label"], sample["top"][0]["class"]) == (False, "good", "bad")
    number = TextRegression().sample(
        {**example, "labels": np.float32(2.5)}, {"value": np.float32(1.25)}, shown
    )
    assert number == {"correct": None, "text": "zyx", "target": "2.5", "prediction": "1.25"}


def data(labels=(), dtype=np.int32, classes=None):
    spec = {name: ((LENGTH,), np.dtype(np.int32)) for name in ("tokens", "token_mask", "token_types")}
    if labels is not None:
        spec["labels"] = (labels, np.dtype(dtype))
    tokenizer = SimpleNamespace(vocab_size=VOCAB, cls_id=1, bos_id=None, encode=lambda text: [1, 2])
    return SimpleNamespace(element_spec=spec, tokenizer=tokenizer, class_names=classes)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_head_that_reads_the_first_token_needs_one_that_stands_for_the_text(template):
    """As transformers' tokenizers of these models: BERT's and RoBERTa's write one, GPT-2's and T5's do not."""
    for task, text in ((MIXUP, data()), (TextRegression(), data(dtype=np.float32))):
        text.tokenizer = Bytes(template).build(lambda: iter(()))
        model = encoder("sequence", 4 if task is MIXUP else 1).clone(vocab_size=None)
        lines = list(task.fits(model, text, text))
        fits = template in ("bert", "roberta", "seq2seq")
        assert [line.partition(":")[0] for line in lines] == ([] if fits else ["data.tokenizer.template"])


@pytest.mark.parametrize(
    ("task", "model", "train", "message"),
    [
        (
            MIXUP,
            encoder("sequence"),
            data(None),
            "data.examples: batches have token_mask, token_types, tokens, this",
        ),
        (
            MIXUP,
            encoder("sequence"),
            data((LENGTH,)),
            "data.examples: each token has a label, this task needs one a",
        ),
        (
            MIXUP,
            encoder("sequence"),
            data(dtype=np.float32),
            "data.examples.label_feature: holds numbers, not class",
        ),
        (
            MIXUP,
            encoder("sequence"),
            data(classes=list("abcde")),
            "model.num_classes=4: the dataset has 5 classes",
        ),
        (
            MIXUP,
            encoder("sequence", None),
            data(),
            "model.num_classes: missing, and the dataset does not say how many",
        ),
        (MIXUP, encoder("mlm"), data(), 'model.head="mlm": this task needs "sequence"'),
        (MIXUP, DECODER, data(), 'model: GPT has no head "sequence"'),
        (
            TextRegression(),
            encoder("sequence", 2),
            data(dtype=np.float32),
            "model.num_classes=2: a regression has 1",
        ),
        (
            TextRegression(),
            encoder("sequence", None),
            data(dtype=np.float32),
            "model.num_classes=None: a regression",
        ),
        (TextRegression(), encoder("sequence", 1), data((LENGTH,)), "data.examples: each token has a label"),
        (TextRegression(), DECODER, data(dtype=np.float32), 'model: GPT has no head "sequence"'),
    ],
)
def test_what_does_not_fit_is_named(task, model, train, message):
    (line,) = task.fits(model, train, data())
    assert line.startswith(message)
    assert not list(MIXUP.fits(encoder("sequence"), data(classes=list("abcd")), data()))
    assert not list(TextRegression().fits(encoder("sequence", 1), data(dtype=np.float32), data()))


def test_labels_that_are_no_class_are_refused(batch):
    MIXUP.check(encoder("sequence"), batch)
    with pytest.raises(UserError, match=r"model\.num_classes=2: the labels must be 0 to 1"):
        MIXUP.check(encoder("sequence", 2), batch)
    with pytest.raises(UserError, match=r"model\.vocab_size=9: a batch has the token"):
        TextRegression().check(encoder("sequence", 1).clone(vocab_size=9), batch)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"mixup": -0.2}, "task.mixup=-0.2: expected an alpha above 0"),
        ({"label_smoothing": 1.0}, "task.label_smoothing=1.0: expected 0 or more, and less than 1"),
        ({"cutmix": 1.0}, "task.cutmix: TextClassification has no field 'cutmix'"),
    ],
)
def test_wrong_fields_are_named(fields, line):
    errors = []
    assert resolve(load(TASKS["text_classification"]), fields, "task", errors) is None
    assert [error.startswith(line) for error in errors] == [True]


NUMBERS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30)


@given(NUMBERS)
def test_correlations_are_numpys(pairs):
    x, y = np.array(pairs, np.float64).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert correlations(x, y) == {"pearson": 0, "spearman": 0}
        return
    ranks = [
        [(v < w).sum() + ((v == w).sum() + 1) / 2 for w in v] for v in (x, y)
    ]  # ties share their mean rank
    assert correlations(x, y)["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert correlations(x, y)["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)


def test_correlations_of_a_table_by_hand():
    assert correlations([1, 2, 3], [1, 3, 2])["pearson"] == pytest.approx(0.5)
    assert correlations([1, 2, 300], [1, 3, 2])["spearman"] == pytest.approx(0.5)
    assert correlations([1, 2, 300], [-5, 0, 1])["spearman"] == pytest.approx(1)
    assert correlations([], []) == {"pearson": 0, "spearman": 0}
