"""Tags of words: entities are seqeval's, and what does not fit is named."""

from types import SimpleNamespace

import numpy as np
import pytest
import seqeval.metrics as reference
from helpers.tiny_tasks import CASES, CLASSES, DECODER, LENGTH, VOCAB, encoder
from hypothesis import given
from hypothesis import strategies as st

from jaxformer.data.text.tokenizer_training import Characters
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import added, real_rows
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.tagging import TokenClassification, entity_scores

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
NO, BP, IP, BL, IL = range(5)
TASK = TokenClassification()
# Tags of words and what a model says, with -1 where no word begins; batches of two widths.
BATCHES = [
    (
        [[-1, BP, IP, -1, NO, BL, -1], [-1, BL, IL, BL, NO, NO, -1]],
        [[NO, BP, IP, BP, NO, BL, NO], [NO, BL, IL, IL, NO, BP, NO]],
    ),
    ([[-1, BP, NO, -1], [-1, NO, NO, -1]], [[BL, BP, IP, NO], [NO, NO, NO, BL]]),
]


def said(tags):
    """Outputs in which these tags are the likeliest."""
    logits = 5 * np.eye(len(NAMES), dtype=np.float32)[np.array(tags)]
    return TextOutputs(logits=logits, tokens=logits)


class Source:
    """Texts whose words all begin a token; `lost` are tags of words of the first text that the model does not see."""

    def __init__(self, rows, lost=()):
        self.tags = [[tag for tag in row if tag >= 0] for row in rows]
        self.shown = [range(len(tags)) for tags in self.tags]
        self.tags[0] += lost

    def truth(self, index):
        return self.tags[index]

    def words(self, index):
        return self.shown[index]


def evaluated(names, masks=((True, True), (True, True)), lost=()):
    sums, collected = [], []
    for number, ((labels, tags), mask) in enumerate(zip(BATCHES, masks)):
        batch = {"labels": np.array(labels), "example_mask": np.array(mask)}
        sums.append(TASK.eval_sums(said(tags), batch))
        rows = {"index": 2 * number + np.arange(2), "example_mask": np.array(mask)}
        collected.append({**TASK.collect(said(tags), batch, None, None), **rows})
    source = Source([row for labels, _ in BATCHES for row in labels], lost)
    return TASK.summarize(
        added(sums), real_rows(collected), SimpleNamespace(class_names=names, source=source)
    )


def words(rows, labels):
    return [[NAMES[t] for t, label in zip(row, true) if label >= 0] for row, true in zip(rows, labels)]


@pytest.mark.parametrize(
    "masks", [((True, True), (True, True)), ((True, True), (True, False)), ((True, False),) * 2]
)
def test_entities_are_seqevals(masks):
    true, given = [], []
    for (labels, tags), mask in zip(BATCHES, masks):
        keep = np.flatnonzero(mask)
        true += words(np.array(labels)[keep], np.array(labels)[keep])
        given += words(np.array(tags)[keep], np.array(labels)[keep])
    evaluation = evaluated(NAMES, masks)
    for name in ("precision", "recall", "f1"):
        assert evaluation.metrics[name] == pytest.approx(getattr(reference, f"{name}_score")(true, given)), (
            name
        )
    assert evaluation.metrics["accuracy"] == pytest.approx(reference.accuracy_score(true, given))
    assert set(evaluation.metrics) == set(TokenClassification.metric_names)
    report = reference.classification_report(true, given, output_dict=True, zero_division=0)
    assert {row["name"] for row in evaluation.tables["per_class"]} <= set(report)
    for row in evaluation.tables["per_class"]:
        expected = report[row["name"]]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [expected["precision"], expected["recall"], expected["f1-score"]]
        )
        assert row["support"] == expected["support"]


def test_entities_by_hand():
    """True: PER at 1-2, LOC at 5; LOC at 1-2, LOC at 3; PER. Said: PER, LOC; one long LOC, PER; PER of two words."""
    found = evaluated(NAMES).metrics
    assert (found["precision"], found["recall"], found["f1"]) == (2 / 5, 2 / 5, pytest.approx(2 / 5))
    assert found["accuracy"] == 10 / 13


def test_words_beyond_the_models_length_are_missed():
    """A LOC goes on behind the last word that is shown, and a PER follows: the one is wrong then, the other missed."""
    found = evaluated(NAMES, lost=(IL, BP))
    assert (found.metrics["precision"], found.metrics["recall"]) == (1 / 5, 1 / 6)
    assert found.metrics["accuracy"] == 10 / 15
    assert {row["name"]: row["support"] for row in found.tables["per_class"]} == {"LOC": 3, "PER": 3}
    assert found.metrics["loss"] == evaluated(NAMES).metrics["loss"]
    assert evaluated(["NOUN", "VERB", "ADJ", "ADP", "X"], lost=(IL, BP)).metrics["accuracy"] == 10 / 15


def test_the_loss_is_the_mean_over_words():
    wrong, right = 5 + np.log(np.exp(0.0) * 4 / np.exp(5) + 1), np.log(1 + 4 / np.exp(5))
    assert evaluated(NAMES).metrics["loss"] == pytest.approx((10 * right + 3 * wrong) / 13, rel=1e-5)


def test_tags_that_are_no_entities_have_an_accuracy_alone():
    evaluation = evaluated(["NOUN", "VERB", "ADJ", "ADP", "X"])
    assert set(evaluation.metrics) == {"loss", "accuracy"}
    assert evaluated(None).metrics == evaluation.metrics


def test_an_error_is_the_share_of_wrong_words():
    labels, tags = BATCHES[0]
    errors = TASK.errors(said(tags), {"labels": np.array(labels)})
    np.testing.assert_allclose(errors, [0, 2 / 5])


def test_a_sample_names_the_words_with_tags():
    tokenizer = Characters("bert").build(lambda: iter(["xyz"]))
    tokens = np.array(tokenizer.encode("xyz"))
    example = {"tokens": tokens, "token_mask": np.ones(5, bool), "labels": np.array([-1, BP, NO, BL, -1])}
    shown = SimpleNamespace(tokenizer=tokenizer, class_names=NAMES)
    sample = TASK.sample(example, {"likeliest": np.array([IP, BP, NO, NO, IP])}, shown)
    assert sample == {"correct": False, "text": "xyz", "target": "x/B-PER z/B-LOC", "prediction": "x/B-PER"}
    assert TASK.sample(example, {"likeliest": example["labels"]}, shown)["correct"]
    unlabelled = {name: example[name] for name in ("tokens", "token_mask")}
    assert (
        TASK.sample(unlabelled, {"likeliest": np.array([NO, BP, NO, NO, NO])}, shown)["prediction"]
        == "x/B-PER"
    )


def data(labels=(LENGTH,), classes=None, **changes):
    arrays = {"tokens": (LENGTH,), "token_mask": (LENGTH,), "labels": labels, **changes}
    spec = {name: (shape, np.dtype(np.int32)) for name, shape in arrays.items() if shape is not None}
    tokenizer = SimpleNamespace(vocab_size=VOCAB)
    return SimpleNamespace(element_spec=spec, tokenizer=tokenizer, class_names=classes)


@pytest.mark.parametrize(
    ("model", "train", "message"),
    [
        (
            encoder("token"),
            data(None),
            "data.examples: batches have token_mask, tokens, this task needs labels",
        ),
        (encoder("token"), data(()), "data.examples: each text has one label, this task needs one a word"),
        (
            encoder("token"),
            data(classes=list("abcde")),
            "model.num_classes=4: the dataset has 5 tags; set it",
        ),
        (
            encoder("token", None),
            data(),
            "model.num_classes: missing, and the dataset does not say how many tags",
        ),
        (encoder("sequence"), data(), 'model.head="sequence": this task needs "token"'),
        (DECODER, data(), 'model: GPT has no head "token"'),
    ],
)
def test_what_does_not_fit_is_named(model, train, message):
    (line,) = TASK.fits(model, train, data())
    assert line.startswith(message)
    assert not list(TASK.fits(encoder("token"), data(classes=list("abcd")), data()))


def test_metrics_that_are_absent_are_those_that_are_not_given():
    sums = {"loss": np.float64(1), "accuracy": np.float64(1), "count": np.float64(2)}
    collected = {name: np.array([[0, 1]]) for name in ("labels", "likeliest")} | {"index": np.array([0])}
    for names in (["O", "B-PER"], ["NOUN", "VERB"], None):
        shown = SimpleNamespace(class_names=names, source=Source([[0, 1]]))
        given = set(TASK.summarize(sums, collected, shown).metrics)
        assert given == set(TASK.metric_names) - set(TASK.absent_metrics(encoder("token"), shown))


def test_tags_that_the_model_does_not_have_are_refused():
    batch = CASES["tags"].batch()
    TASK.check(encoder("token"), batch)
    with pytest.raises(UserError, match=r"model\.num_classes=2: the labels must be 0 to 1"):
        TASK.check(encoder("token", 2), batch)
    assert batch["labels"].max() == CLASSES - 1
    TASK.check(encoder("token", 2), {**batch, "labels": np.full_like(batch["labels"], -1)})


TRUE = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"], ["B-LOC", "B-LOC"]]
FOUND = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"], ["B-LOC", "I-LOC"]]


def test_entities_of_more_texts_by_hand():
    """MISC begins a word too early; PER is right; of LOC there are two, and one was found that is neither."""
    scores, kinds = entity_scores(FOUND, TRUE)
    assert (scores["precision"], scores["recall"]) == (1 / 3, 1 / 4)
    assert scores["f1"] == pytest.approx(2 / 7)
    assert kinds == [
        {"name": "LOC", "precision": 0, "recall": 0, "f1": 0, "support": 2},
        {"name": "MISC", "precision": 0, "recall": 0, "f1": 0, "support": 1},
        {"name": "PER", "precision": 1, "recall": 1, "f1": 1, "support": 1},
    ]


def chunks(texts):
    """(text, type, first, last) of IOB tags; an I- after another type, or after O, begins an entity."""
    found = set()
    for number, tags in enumerate(texts):
        begin = None
        for place, tag in enumerate([*tags, "O"]):
            goes_on = begin is not None and tag == f"I-{begin[0]}"
            if begin is not None and not goes_on:
                found.add((number, begin[0], begin[1], place - 1))
                begin = None
            if tag != "O" and not goes_on:
                begin = (tag[2:], place)
    return found


TAGS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=8)


@given(st.lists(st.tuples(TAGS, TAGS), max_size=5))
def test_entities_are_counted_as_chunks(pairs):
    pairs = [(one[: len(two)], two[: len(one)]) for one, two in pairs]
    predicted, true = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores, kinds = entity_scores(predicted, true)
    found, there = chunks(predicted), chunks(true)
    right = len(found & there)
    assert scores["precision"] == pytest.approx(right / len(found) if found else 0)
    assert scores["recall"] == pytest.approx(right / len(there) if there else 0)
    assert scores["f1"] == pytest.approx(2 * right / (len(found) + len(there)) if right else 0)
    assert [row["name"] for row in kinds] == sorted({chunk[1] for chunk in found | there})
    for row in kinds:
        assert row["support"] == sum(chunk[1] == row["name"] for chunk in there)


def test_tags_of_other_kinds_are_refused():
    with pytest.raises(UserError, match="tag 'NOUN': not an entity's"):
        entity_scores([["O", "NOUN"]], [["O", "O"]])
