"""Translations: decoded as the model says, scored as sacreBLEU does."""

import dataclasses
import json
import math
from collections import Counter
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu
from flax import linen as nn
from helpers.stacking import stack_layers
from helpers.tiny_tasks import BOS, CASES, DECODER, LENGTH, TRANSLATOR, VOCAB, outputs_of, params_of, rows_of

from jaxformer.config.schema import load, resolve
from jaxformer.data.text.tokenizer_training import Characters
from jaxformer.evaluation.evaluator import added, real_rows
from jaxformer.models.masks import KeyValues, LayerCache, empty_cache
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import TASKS
from jaxformer.tasks.translation import Translation, translation_scores

CASE = CASES["translation"]
ROWS, END = 8, 8  # END: a token that the model below writes now and then


@cache
def sharp():
    """Parameters with which the model is sure of other tokens for other sources."""
    generator = np.random.default_rng(4)

    def draw(path, leaf):
        if path[-1].key == "scale":
            return np.ones_like(leaf)
        return (0.1 if path[-1].key == "bias" else 0.7) * generator.normal(size=leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, params_of("translation"))


@cache
def written(scan=False, **fields):
    """What the small model writes for a batch, by the task's own decoding: int32 [B, N], -1 after the end."""
    task = dataclasses.replace(CASE.task, eos_id=END, **fields)
    params = sharp()
    model, params = (TRANSLATOR.clone(scan=True), stack_layers(params)) if scan else (TRANSLATOR, params)
    translate = jax.jit(lambda params, batch: task.predict(model, {"params": params}, batch)["written"])
    return np.asarray(translate(params, CASE.batch(ROWS)))


@cache
def next_logits():
    """(decoder tokens [B, LENGTH], so far as they are given) -> the logits at each place; without any cache."""
    batch, params = CASE.batch(ROWS), sharp()
    return jax.jit(lambda tokens: outputs_of(CASE, params, {**batch, "decoder_tokens": tokens}).logits)


def log_probabilities(rows):
    """Each row's log-probability, by reading it as a whole."""
    tokens = np.full((ROWS, LENGTH), BOS, np.int32)
    tokens[:, 1:] = np.maximum(rows, 0)
    chances = jax.nn.log_softmax(next_logits()(tokens))[:, : LENGTH - 1]
    taken = np.take_along_axis(np.asarray(chances, np.float64), np.maximum(rows, 0)[..., None], axis=2)[
        ..., 0
    ]
    return np.where(rows >= 0, taken, 0).sum(1)


def test_one_beam_is_greedy_decoding_without_a_cache():
    tokens = np.full((ROWS, LENGTH), BOS, np.int32)
    for place in range(LENGTH - 1):
        tokens[:, place + 1] = np.asarray(next_logits()(tokens))[:, place].argmax(-1)
    found = written(beams=1)
    assert found.shape == (ROWS, LENGTH - 1)
    for row, expected in zip(found, tokens[:, 1:]):
        ends = np.flatnonzero(expected == END)
        stop = ends[0] + 1 if len(ends) else LENGTH - 1
        np.testing.assert_array_equal(row[:stop], expected[:stop])
        assert (row[stop:] == -1).all()
    assert len({tuple(row) for row in found}) > 3  # it looks at the source
    assert 0 < (found[:, -1] < 0).sum() < ROWS  # some end


def test_more_beams_find_what_the_model_likes_as_well_or_better():
    def scores(rows):
        return log_probabilities(rows) / ((5 + (rows >= 0).sum(1)) / 6) ** CASE.task.length_penalty

    greedy, best = written(beams=1), written(beams=4)
    assert (scores(best) >= scores(greedy) - 1e-4).all()
    assert (best != greedy).any()


def test_scanned_layers_decode_as_unrolled_ones():
    np.testing.assert_array_equal(written(scan=True, beams=4), written(beams=4))


def test_a_translation_may_be_shorter_than_the_model_allows():
    short = written(beams=1, max_new_tokens=3)
    assert short.shape == (ROWS, 3)
    np.testing.assert_array_equal(short, written(beams=1)[:, :3])
    assert written(beams=1, max_new_tokens=99).shape == (ROWS, LENGTH - 1)


class Copier(nn.Module):
    """Writes its source, from its second token on, whatever has been written; with a cache like a decoder's."""

    vocab_size: int
    context_length: int
    scan = False  # its one layer is not stacked

    def encode(self, tokens, token_mask):
        return 9 * jax.nn.one_hot(jnp.where(token_mask, tokens, 0), self.vocab_size)

    def decode(self, decoder_tokens, context, token_mask, cache, last_only):
        (layer,) = cache.layers
        memory = layer.memory.key if context is None else context
        places = cache.index + jnp.arange(decoder_tokens.shape[1]) + 1
        logits = jnp.take(memory, places, axis=1, mode="clip")
        layers = (LayerCache(layer.own, KeyValues(memory, memory)),)
        cache = dataclasses.replace(cache, layers=layers, index=cache.index + decoder_tokens.shape[1])
        return TextOutputs(logits, logits, cache=cache)

    def __call__(self, tokens, decoder_tokens, token_mask):
        memory = self.encode(tokens, token_mask)
        return TextOutputs(jnp.roll(memory, -1, axis=1), memory)

    @nn.nowrap
    def start(self, batch, length):
        return empty_cache(batch, length, 1, 1, 1)


SENTENCES = ["the cat sat on the mat .", "a dog ran to the park .", "two men walk down a street ."]


class Pairs:
    """Sentences that are their own translations."""

    def __init__(self, targets):
        self.tokenizer = Characters("seq2seq").build(lambda: iter(SENTENCES))
        self.source = SimpleNamespace(target_text=lambda index: targets[index])

    def batch(self, indices, width, real):
        """Sentences of a split, the last rows padding."""
        rows = [self.tokenizer.encode(SENTENCES[index]) for index in indices]
        tokens = np.zeros((len(rows), width), np.int32)
        for row, ids in zip(tokens, rows):
            row[: len(ids)] = ids
        mask = tokens != 0
        targets = np.where(mask[:, 1:], tokens[:, 1:], -1)
        targets = np.concatenate([targets, np.full((len(rows), 1), -1)], axis=1)
        return {
            "tokens": tokens,
            "token_mask": mask,
            "decoder_tokens": tokens,
            "targets": targets,
            "index": np.array(indices, np.int32),
            "example_mask": np.arange(len(rows)) < real,
        }


def evaluated(task, data):
    """An evaluation of the copier on three sentences, in two batches of other widths; the last row is padding."""
    task = dataclasses.replace(task, eos_id=data.tokenizer.eos_id)
    sums, collected = [], []
    for indices, width, real in (([2, 0], 40, 2), ([1, 0], 30, 1)):
        batch = data.batch(indices, width, real)
        model = Copier(data.tokenizer.vocab_size, width)
        outputs = model.apply({}, **task.inputs(batch))
        sums.append(task.eval_sums(outputs, batch))
        found = task.collect(outputs, batch, model, {})
        if found:
            collected.append({**found, "example_mask": batch["example_mask"]})
    return task.summarize(added(sums), real_rows(collected), data)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_copy_has_a_bleu_of_100(beams):
    evaluation = evaluated(Translation(beams=beams), Pairs(SENTENCES))
    assert evaluation.metrics["bleu"] == pytest.approx(100)
    assert evaluation.metrics["chrf"] == pytest.approx(100)
    assert evaluation.metrics["accuracy"] == 1
    assert set(evaluation.metrics) == set(Translation(beams=beams).metric_names)
    notes = json.loads(json.dumps(evaluation.tables["notes"]))
    assert any("tok:13a" in note for note in notes)


def test_each_translation_is_scored_against_its_own_reference():
    """The order of the batches is another one than the split's, and the padding's row is left out."""
    references = ["the cat sat on a mat .", "a dog ran to the large park .", "two women walk down a street ."]
    found = evaluated(Translation(), Pairs(references)).metrics
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(SENTENCES, [references]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(SENTENCES, [references]).score)
    assert 20 < found["bleu"] < 90


def test_without_beams_nothing_is_decoded():
    task = Translation(beams=0)
    evaluation = evaluated(task, Pairs(SENTENCES))
    assert set(evaluation.metrics) == set(task.metric_names) == {"loss", "accuracy"}
    assert evaluation.tables == {}


def test_the_loss_is_the_mean_over_tokens_without_smoothing():
    batch, task = CASE.uneven(), CASE.task
    outputs = jax.jit(lambda params: outputs_of(CASE, params, batch))(params_of("translation"))
    none = dataclasses.replace(task, beams=0)
    sums = added([none.eval_sums(outputs, rows_of(batch, slice(0, 16)))])
    mask = (batch["targets"] >= 0) & batch["example_mask"][:, None]
    x = np.asarray(outputs.logits, np.float64)[mask]
    labels = batch["targets"][mask]
    losses = np.log(np.exp(x).sum(-1)) - x[np.arange(len(x)), labels]
    found = none.summarize(sums, {}, None).metrics
    assert found == pytest.approx(
        {"loss": losses.mean(), "accuracy": (x.argmax(-1) == labels).mean()}, rel=1e-5
    )
    assert task.loss(outputs, batch)["cross_entropy"] != pytest.approx(losses.sum(), rel=1e-3)


def test_a_sample_has_source_target_and_what_the_model_says():
    data = Pairs(SENTENCES)
    (row,) = (rows_of(data.batch([0], 30, 1), 0),)
    likeliest = np.where(row["targets"] >= 0, row["targets"], 0)
    likeliest[0] = data.tokenizer.hf.token_to_id("m")
    sample = Translation().sample(row, {"likeliest": likeliest}, data)
    assert sample == {
        "correct": None,
        "called": "source",
        "text": SENTENCES[0],
        "target": SENTENCES[0],
        "prediction": "m" + SENTENCES[0][1:],
    }


def data(*names, length=LENGTH):
    spec = {name: ((length,), np.dtype(np.int32)) for name in ("tokens", "token_mask", *names)}
    return SimpleNamespace(element_spec=spec, tokenizer=SimpleNamespace(vocab_size=VOCAB), class_names=None)


BOTH = data("decoder_tokens", "targets")


@pytest.mark.parametrize(
    ("task", "model", "train", "message"),
    [
        (
            CASE.task,
            TRANSLATOR,
            data("targets"),
            "data.examples: batches have targets, token_mask, tokens, this task",
        ),
        (
            CASE.task,
            TRANSLATOR,
            data("decoder_tokens", "targets", length=9),
            "data.examples.length=9: the model",
        ),
        (CASE.task, TRANSLATOR.clone(vocab_size=5), BOTH, "model.vocab_size=5: the tokenizer has 16 tokens"),
        (CASE.task, DECODER, BOTH, "model: GPT does not read one text and write another"),
        (Translation(), TRANSLATOR, BOTH, "data.tokenizer: has no end token"),
    ],
)
def test_what_does_not_fit_is_named(task, model, train, message):
    (line,) = task.fits(model, train, BOTH)
    assert line.startswith(message)
    assert not list(CASE.task.fits(TRANSLATOR, BOTH, BOTH))
    assert not list(Translation(beams=0).fits(TRANSLATOR, BOTH, BOTH))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"beams": -1}, "task.beams=-1: expected 1 (greedy) or more"),
        ({"length_penalty": -1.0}, "task.length_penalty=-1.0: expected 0 (none) or more"),
        ({"max_new_tokens": 0}, "task.max_new_tokens=0: expected 1 or more"),
        ({"label_smoothing": 1.0}, "task.label_smoothing=1.0: expected 0 or more, and less than 1"),
    ],
)
def test_wrong_fields_are_named(fields, line):
    errors = []
    assert resolve(load(TASKS["translation"]), fields, "task", errors) is None
    assert [error.startswith(line) for error in errors] == [True]


def ngrams(items, n):
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def bleu_by_definition(hypotheses, references):
    """Papineni et al. 2002, section 2.3, on words between spaces; no precision may be 0."""
    logs = []
    for n in range(1, 5):
        matches = sum(
            (ngrams(h.split(), n) & ngrams(r.split(), n)).total() for h, r in zip(hypotheses, references)
        )
        logs.append(math.log(matches / sum(ngrams(h.split(), n).total() for h in hypotheses)))
    length, wanted = (sum(len(text.split()) for text in texts) for texts in (hypotheses, references))
    return 100 * math.exp(min(0, 1 - wanted / length) + sum(logs) / 4)


def chrf_by_definition(hypotheses, references):
    """Popović 2015 with n = 6 and beta = 2, over the corpus; blanks do not count."""
    precisions, recalls = [], []
    for n in range(1, 7):
        counts = np.zeros(3)
        for h, r in zip(hypotheses, references):
            one, two = ngrams(h.replace(" ", ""), n), ngrams(r.replace(" ", ""), n)
            counts += ((one & two).total(), one.total(), two.total())
        precisions.append(counts[0] / counts[1])
        recalls.append(counts[0] / counts[2])
    p, r = np.mean(precisions), np.mean(recalls)
    return 100 * 5 * p * r / (4 * p + r)


HYPOTHESES = ["the cat sat on the mat today", "A dog runs in the green park"]
REFERENCES = ["the cat sat on the red mat today", "a dog runs in the green park now"]


def test_bleu_and_chrf_are_their_definitions():
    scores, (bleu, chrf) = translation_scores(HYPOTHESES, REFERENCES)
    assert scores["bleu"] == pytest.approx(bleu_by_definition(HYPOTHESES, REFERENCES))
    assert scores["chrf"] == pytest.approx(chrf_by_definition(HYPOTHESES, REFERENCES), rel=1e-3)
    assert bleu.startswith("bleu: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert chrf.startswith("chrf: nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_translations_are_cased_and_tokenised_here():
    score = lambda one, two: translation_scores([one], [two])[0]["bleu"]  # noqa: E731
    plain, split = "Yes, it is a cat.", "Yes , it is a cat ."
    assert score(plain, plain) == pytest.approx(100)
    assert score(plain, split) == pytest.approx(100)  # 13a splits punctuation off
    assert score(plain.lower(), plain) < 90


def test_no_translations_score_0():
    scores, notes = translation_scores([], [])
    assert scores == {"bleu": 0, "chrf": 0}
    assert [note.partition(":")[0] for note in notes] == list(scores)
