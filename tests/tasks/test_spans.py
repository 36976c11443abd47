"""Answers as spans: the best answer over all windows of a question, as text."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tiny_tasks import DECODER, LENGTH, VOCAB, encoder

from jaxformer.config.schema import load, resolve
from jaxformer.data.text.tokenizer_training import Characters
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import added, real_rows
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import TASKS
from jaxformer.tasks.spans import SpanQA

TASK = SpanQA()
RIVER = "The Rhine is long. It flows to the sea."
KING = "Arthur was a king."
QUESTIONS = [
    SimpleNamespace(id="q1", context=RIVER, answers=["the Rhine", "Rhine"]),
    SimpleNamespace(id="q2", context=KING, answers=["a king"]),
]


class Source:
    """Two questions, the first in two windows; a token is a word, and the first two are the question's."""

    examples = np.array([0, 0, 1], np.int32)
    words = (RIVER.split()[:4], RIVER.split()[3:], KING.split())
    texts = (RIVER, RIVER, KING)

    def characters(self, index):
        """Where the words of a window lie in its context."""
        text, place, found = self.texts[index], 0, [(-1, -1)] * 2
        if index == 1:
            place = RIVER.index("long.")
        for word in self.words[index]:
            place = text.index(word, place)
            found.append((place, place + len(word)))
            place += len(word)
        return np.array([*found, (-1, -1)], np.int32)  # the separator

    def question(self, example):
        return QUESTIONS[example]


def window(index, start, end, width, score=10.0, real=True):
    """One window's row of a batch and logits that say `start` and `end`; better ones stand on padding."""
    length = len(Source().characters(index))
    logits = np.zeros((width, 2), np.float32)
    logits[start, 0], logits[end, 1], logits[length:] = score, score, 99
    mask = np.arange(width) < length
    return {"logits": logits, "token_mask": mask, "index": index, "start": 0, "end": 0, "example_mask": real}


def evaluated(*batches, task=TASK):
    """As the evaluator does it, batch by batch of its own width."""
    sums, collected = [], []
    for rows in batches:
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        outputs = TextOutputs(logits=batch.pop("logits"), tokens=None)
        sums.append(task.eval_sums(outputs, batch))
        found = task.collect(outputs, batch, None, None)
        collected.append({**found, "example_mask": batch["example_mask"]})
    return task.summarize(added(sums), real_rows(collected), SimpleNamespace(source=Source())).metrics


def test_exact_match_and_f1_over_windows_of_several_widths():
    """The window that is surer of its answer has it; the last row is padding, and says nothing."""
    rhine = window(0, 3, 3, 7)
    king = window(2, 4, 5, 7)  # "a king."
    unsure = window(1, 5, 7, 10, score=5.0)  # "to the sea."
    padding = window(0, 2, 5, 10, score=50.0, real=False)
    found = evaluated([rhine, king], [unsure, padding])
    assert (found["exact_match"], found["f1"]) == (1, 1)
    assert set(found) == set(SpanQA.metric_names)


def test_the_surer_window_is_the_answer():
    rhine, sea = window(0, 3, 3, 7, score=5.0), window(1, 5, 7, 10, score=9.0)
    found = evaluated([sea], [rhine])
    assert (found["exact_match"], found["f1"]) == (0, 0)
    more = evaluated([window(0, 2, 5, 7), window(2, 3, 3, 7)])  # "The Rhine is long." of "Rhine"; "was"
    assert more["exact_match"] == 0
    assert more["f1"] == pytest.approx((2 * 1 / (3 + 1)) / 2)


def test_an_answer_is_neither_of_the_question_nor_too_long():
    whole = window(2, 2, 5, 7)
    whole["logits"][:2] = 50  # the question's tokens
    assert evaluated([whole])["f1"] == pytest.approx(2 * 1 / (3 + 1))  # "arthur was king" of "king"
    shorter = evaluated([whole], task=SpanQA(max_answer_tokens=2))
    assert shorter["f1"] < 1


def test_the_loss_is_the_mean_of_both_borders_over_real_windows():
    right, padding = window(0, 3, 4, 7), window(1, 3, 3, 7, real=False)
    right["start"], right["end"] = 3, 3
    x = right["logits"][: len(Source().characters(0))].astype(np.float64)
    expected = np.log(np.exp(x).sum(0)) - x[3]
    assert evaluated([right, padding])["loss"] == pytest.approx(expected.mean(), rel=1e-5)


def test_logits_of_padding_are_out_of_the_question():
    row = window(0, 3, 4, 9)
    batch = {"token_mask": row["token_mask"][None]}
    logits = TASK.logits(TextOutputs(logits=row["logits"][None], tokens=None), batch)
    assert logits.shape == (1, 2, 9)
    assert (np.asarray(logits[0, :, ~row["token_mask"]]) < -1e8).all()
    assert logits.argmax(-1).tolist() == [[3, 4]]


def test_a_question_without_an_answer_is_refused(monkeypatch):
    monkeypatch.setattr("test_spans.QUESTIONS", [SimpleNamespace(id="q1", context=RIVER, answers=[])])
    with pytest.raises(UserError, match="'q1': has no answer"):
        evaluated([window(0, 3, 3, 7)])


def test_a_sample_has_the_answer_in_its_window():
    tokenizer = Characters("bert").build(lambda: iter(["who king"]))
    ids = tokenizer.hf.encode("who", "king").ids
    example = {"tokens": np.array([*ids, 0]), "token_mask": np.arange(len(ids) + 1) < len(ids)}
    shown, logits = SimpleNamespace(tokenizer=tokenizer), np.zeros((2, len(ids) + 1))
    logits[0, 5] = logits[1, 6] = 1  # k, i
    sample = TASK.sample({**example, "start": np.int32(5), "end": np.int32(8)}, {"logits": logits}, shown)
    assert (sample["correct"], sample["target"], sample["prediction"]) == (False, "king", "ki")
    logits[1, 8] = 2
    sample = TASK.sample({**example, "start": np.int32(5), "end": np.int32(8)}, {"logits": logits}, shown)
    assert (sample["correct"], sample["prediction"]) == (True, "king")
    elsewhere = TASK.sample({**example, "start": np.int32(0), "end": np.int32(0)}, {"logits": logits}, shown)
    assert (elsewhere["correct"], elsewhere["target"]) == (False, "")
    assert TASK.sample(example, {"logits": logits}, shown)["correct"] is None


def data(*names):
    spec = {name: ((LENGTH,), np.dtype(np.int32)) for name in ("tokens", "token_mask", "token_types", *names)}
    tokenizer = SimpleNamespace(vocab_size=VOCAB)
    return SimpleNamespace(element_spec=spec, tokenizer=tokenizer, class_names=None, source=None)


@pytest.mark.parametrize(
    ("model", "train", "message"),
    [
        (
            encoder("span"),
            data(),
            "data.examples: batches have token_mask, token_types, tokens, this task needs start",
        ),
        (encoder("token"), data("start", "end"), 'model.head="token": this task needs "span"'),
        (DECODER, data("start", "end"), 'model: GPT has no head "span"'),
    ],
)
def test_what_does_not_fit_is_named(model, train, message):
    (line,) = TASK.fits(model, train, data("start", "end"))
    assert line.startswith(message)
    assert not list(TASK.fits(encoder("span"), data("start", "end"), data("start", "end")))


@pytest.mark.parametrize("field", ["max_answer_tokens", "n_best"])
def test_wrong_fields_are_named(field):
    errors = []
    assert resolve(load(TASKS["span_qa"]), {field: 0}, "task", errors) is None
    assert errors == [f"task.{field}=0: expected 1 or more"]
