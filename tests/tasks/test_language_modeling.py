"""Language modelling: evaluations are NumPy's, and what does not fit is named."""

import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.tiny_tasks import CASES, DECODER, LENGTH, TRANSLATOR, VOCAB, encoder, outputs_of, params_of

from jaxformer.config.schema import load, resolve
from jaxformer.data.text.tokenizer_training import Characters
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import added
from jaxformer.models.outputs import TextOutputs
from jaxformer.models.vit import ViT
from jaxformer.tasks import TASKS
from jaxformer.tasks.language import POSITIONS_SHOWN, CausalLM, MaskedLM

WIDTHS = (5, 8, 3)  # of the batches of one evaluation


def outputs_from(logits):
    return TextOutputs(logits=logits, tokens=logits)


def some_batch(rng, width, rows=4):
    """Logits float32 [B, T, V] and a batch: a third without targets, the last row padding."""
    logits = rng.normal(0, 2, (rows, width, VOCAB)).astype(np.float32)
    targets = np.where(rng.random((rows, width)) < 0.3, -1, rng.integers(0, VOCAB, (rows, width)))
    targets[0, 0] = logits[0, 0].argmax()  # one is right, at least
    return logits, {"tokens": targets, "targets": targets, "example_mask": np.arange(rows) < rows - 1}


def by_hand(logits, batch):
    """Every target of the rows that count: its position, its loss and whether it is the likeliest token."""
    found = []
    for row in np.flatnonzero(batch["example_mask"]):
        for place, target in enumerate(batch["targets"][row]):
            if target >= 0:
                x = logits[row, place].astype(np.float64)
                found.append((place, np.log(np.exp(x).sum()) - x[target], x.argmax() == target))
    return np.array(found)


@pytest.fixture(scope="module")
def evaluated():
    """An evaluation of batches of several widths, and its targets one by one."""
    rng = np.random.default_rng(0)
    made = [some_batch(rng, width) for width in WIDTHS]
    task = CausalLM(label_smoothing=0.1)
    sums = added([jax.device_get(task.eval_sums(outputs_from(x), batch)) for x, batch in made])
    return task.summarize(sums, {}, None), np.concatenate([by_hand(*pair) for pair in made])


def test_loss_perplexity_and_accuracy_are_numpys(evaluated):
    evaluation, targets = evaluated
    _, losses, right = targets.T
    assert evaluation.metrics == pytest.approx(
        {"loss": losses.mean(), "perplexity": np.exp(losses.mean()), "accuracy": right.mean()}, rel=1e-6
    )
    assert set(evaluation.metrics) == set(CausalLM.metric_names)
    assert 0 < right.mean() < 1


def test_losses_by_position_are_numpys_for_batches_of_several_widths(evaluated):
    evaluation, targets = evaluated
    rows = json.loads(json.dumps(evaluation.tables["loss_by_position"], allow_nan=False))
    assert [row["position"] for row in rows] == list(range(max(WIDTHS)))
    for row in rows:
        here = targets[targets[:, 0] == row["position"], 1]
        assert (row["loss"], row["count"]) == (pytest.approx(here.mean()), len(here))


def test_many_positions_are_shown_as_stretches():
    length = 2 * POSITIONS_SHOWN + 3  # stretches of 3, the last of 2
    counts = np.arange(length) % 5.0
    sums = {"loss": counts * np.arange(length), "accuracy": counts, "count": counts}
    rows = CausalLM().summarize(sums, {}, None).tables["loss_by_position"]
    assert len(rows) == 44 <= POSITIONS_SHOWN
    assert [row["position"] for row in rows[:2]] == [1, 4]
    assert rows[-1]["position"] == 129.5
    assert rows[1] == {"position": 4, "loss": (3 * 3 + 4 * 4 + 0) / 7, "count": 7}
    assert sum(row["count"] for row in rows) == counts.sum()


def test_places_without_any_target_are_not_shown_and_nothing_is_divided_by_0():
    sums = {name: np.zeros(4) for name in ("loss", "accuracy", "count")}
    evaluation = MaskedLM().summarize(sums, {}, None)
    assert evaluation.tables["loss_by_position"] == []
    assert evaluation.metrics == {"loss": 0, "perplexity": 1, "accuracy": 0}
    huge = CausalLM().summarize(
        {"loss": np.array([1e4]), "accuracy": sums["accuracy"], "count": np.ones(1)}, {}, None
    )
    assert math.isfinite(huge.metrics["perplexity"])


def test_smoothing_and_z_loss_are_of_training_alone():
    rng = np.random.default_rng(1)
    logits, batch = some_batch(rng, 6)
    plain, other = CausalLM(), CausalLM(label_smoothing=0.2, z_loss=0.5)
    outputs = outputs_from(logits)
    jax.tree.map(
        np.testing.assert_array_equal, plain.eval_sums(outputs, batch), other.eval_sums(outputs, batch)
    )
    mask = (batch["targets"] >= 0) & batch["example_mask"][:, None]
    losses = other.loss(outputs, batch)
    squares = np.log(np.exp(logits.astype(np.float64)).sum(-1)) ** 2
    np.testing.assert_allclose(losses["z_loss"], 0.5 * squares[mask].sum(), rtol=1e-5)
    assert losses["cross_entropy"] != plain.loss(outputs, batch)["cross_entropy"]
    counts = other.counts(batch)
    assert counts["z_loss"] == counts["cross_entropy"] == mask.sum()


def test_the_routers_losses_are_means_over_examples():
    case = CASES["documents, experts"]
    batch = case.uneven()
    outputs = jax.jit(lambda params: outputs_of(case, params, batch))(params_of("documents, experts"))
    losses, counts, mask = case.task.loss(outputs, batch), case.task.counts(batch), batch["example_mask"]
    for name, values in (("balance", outputs.router.balance), ("router_z", outputs.router.z)):
        np.testing.assert_allclose(losses[name] / counts[name], np.asarray(values)[mask].mean(), rtol=1e-5)
    assert "balance" not in CausalLM().loss(outputs_from(outputs.logits), batch)


def test_a_sample_shows_the_text_piece_by_piece():
    tokenizer = Characters("gpt").build(lambda: iter(["abc"]))
    end, a, b, c = (tokenizer.hf.token_to_id(token) for token in ("<|endoftext|>", "a", "b", "c"))
    example = {"tokens": np.array([a, b, c, end]), "targets": np.array([b, c, -1, -1])}
    example["token_mask"] = np.array([True, True, True, False])
    predicted = {"likeliest": np.array([b, a, a, a]), "losses": np.array([0.5, 2.5, 0, 0], np.float32)}
    sample = CausalLM().sample(example, predicted, SimpleNamespace(tokenizer=tokenizer))
    assert json.loads(json.dumps(sample)) == {
        "correct": None,
        "text": "abc",
        "loss": 1.5,
        "pieces": [
            {"token": "a", "target": "b", "likeliest": "b", "loss": 0.5},
            {"token": "b", "target": "c", "likeliest": "a", "loss": 2.5},
            {"token": "c", "target": None, "likeliest": "a", "loss": 0.0},
        ],
    }


def test_a_sample_of_a_packed_row_has_no_padding():
    tokenizer = Characters("gpt").build(lambda: iter(["abc"]))
    example = {"tokens": np.array([1, 2, 3, 0]), "targets": np.array([2, -1, 1, -1])}
    example["segment_ids"] = np.array([1, 1, 2, 0])
    predicted = {"likeliest": np.zeros(4, int), "losses": np.zeros(4)}
    sample = CausalLM().sample(example, predicted, SimpleNamespace(tokenizer=tokenizer))
    assert [piece["token"] for piece in sample["pieces"]] == ["a", "b", "c"]


def test_the_losses_of_a_sample_are_those_of_its_targets():
    case, params = CASES["masked"], params_of("masked")
    batch = case.batch()
    outputs = jax.jit(lambda params: outputs_of(case, params, batch))(params)
    predicted, sums = case.task.predictions(outputs, batch), case.task.eval_sums(outputs, batch)
    np.testing.assert_allclose(predicted["losses"].sum(0), sums["loss"], rtol=1e-5)
    right = (predicted["likeliest"] == batch["targets"]).sum(0)
    np.testing.assert_array_equal(right, sums["accuracy"])


def data(*extra, length=LENGTH, vocab_size=VOCAB):
    """What a task sees of batches that have tokens, targets and more arrays."""
    names = ("tokens", "targets", *extra)
    spec = {name: ((length,), np.dtype(np.int32)) for name in names}
    return SimpleNamespace(
        element_spec=spec, tokenizer=SimpleNamespace(vocab_size=vocab_size), class_names=None
    )


NO_TARGETS = SimpleNamespace(element_spec={"tokens": ((LENGTH,), np.dtype(np.int32))}, tokenizer=None)
IMAGES = SimpleNamespace(element_spec={"image": ((8, 8, 3), np.dtype(np.uint8))}, tokenizer=None)


@pytest.mark.parametrize(
    ("task", "model", "train", "evaluation", "message"),
    [
        (
            CausalLM(),
            DECODER,
            IMAGES,
            IMAGES,
            "data.examples: batches have image, this task needs tokens, targets",
        ),
        (
            CausalLM(),
            DECODER,
            NO_TARGETS,
            NO_TARGETS,
            "data.examples: batches have tokens, this task needs targets",
        ),
        (MaskedLM(), encoder("mlm"), data(), NO_TARGETS, "data.eval_transforms: make no targets"),
        (CausalLM(), DECODER, data(length=9), data(), "data.examples.length=9: the model takes 8 tokens"),
        (
            CausalLM(),
            DECODER,
            data(vocab_size=17),
            data(),
            "model.vocab_size=16: the tokenizer has 17 tokens",
        ),
        (CausalLM(), encoder("mlm"), data(), data(), "model: BERT does not go from token to token"),
        (CausalLM(), TRANSLATOR, data(), data(), "model: Seq2Seq does not go from token to token"),
        (CausalLM(), ViT(), data(), data(), "model: ViT does not go from token to token"),
        (CausalLM(), DECODER, data("token_types"), data("token_types"), "data.examples: the targets are not"),
        (
            MaskedLM(),
            DECODER,
            data(),
            data(),
            'model: GPT has no head "mlm", which this task needs; choose "bert"',
        ),
        (MaskedLM(), encoder("token"), data(), data(), 'model.head="token": this task needs "mlm"'),
    ],
)
def test_what_does_not_fit_is_named(task, model, train, evaluation, message):
    (line,) = task.fits(model, train, evaluation)
    assert line.startswith(message)
    assert not list(CausalLM().fits(DECODER, data(), data()))
    assert not list(MaskedLM().fits(encoder("mlm"), data("token_mask"), data("token_mask")))


def test_tokens_that_the_model_does_not_know_are_refused():
    batch = {"tokens": np.array([[1, VOCAB]]), "targets": np.array([[1, 1]])}
    with pytest.raises(UserError, match=r"model\.vocab_size=16: a batch has the token 16"):
        CausalLM().check(DECODER, batch)
    CausalLM().check(DECODER, {"tokens": np.array([[1, VOCAB - 1]])})
    CausalLM().check(DECODER, {"tokens": np.zeros((0, 4), np.int32)})


def test_masked_language_modelling_refuses_a_batch_without_masks():
    """Its targets would be the next tokens, which an encoder sees."""
    text = np.random.default_rng(0).integers(0, VOCAB, (4, LENGTH + 1))
    tokens, targets = text[:, :-1], text[:, 1:]
    with pytest.raises(UserError, match="no token is masked") as error:
        MaskedLM().check(encoder("mlm"), {"tokens": tokens, "targets": targets})
    assert "mask_tokens" in str(error.value)
    MaskedLM().check(encoder("mlm"), {"tokens": tokens, "targets": np.where(targets < 5, tokens, -1)})
    MaskedLM().check(encoder("mlm"), {"tokens": tokens[:0], "targets": targets[:0]})
    CausalLM().check(DECODER, {"tokens": tokens, "targets": targets})


@pytest.mark.parametrize("name", ["causal_lm", "masked_lm"])
@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"label_smoothing": 1.0}, "task.label_smoothing=1.0: expected 0 or more, and less than 1"),
        ({"z_loss": -1.0}, "task.z_loss=-1.0: expected 0 or more"),
        ({"zloss": 1.0}, "task.zloss: "),
    ],
)
def test_wrong_fields_are_named(name, fields, line):
    errors = []
    assert resolve(load(TASKS[name]), fields, "task", errors) is None
    assert [error.startswith(line) for error in errors] == [True]
