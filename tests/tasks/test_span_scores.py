"""SQuAD's scores against its published script, and the best spans against loops over all of them."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxformer.errors import UserError
from jaxformer.tasks import spans

# --- answers: what SQuAD's evaluate-v1.1.py gives (its functions, run on these), exact match and F1

OFFICIAL = [
    ("The Cat.", ["cat"], 1, 1),
    ("a  cat, sat", ["the cat sat!"], 1, 1),
    ("cat sat", ["the cat sat down"], 0, 4 / 5),
    ("cat cat dog", ["cat dog dog"], 0, 2 / 3),  # a multiset: one cat, one dog
    ("in 1066", ["1066", "the year 1066"], 0, 2 / 3),
    ("1066", ["1067", "1066"], 1, 1),
    ("U.S.A", ["USA"], 1, 1),
    ("twenty-one", ["twenty one"], 0, 0),  # punctuation goes before words are split
    ("theatre", ["atre"], 0, 0),  # articles go as words only
    ("the", ["a"], 1, 0),  # no words are left: v1.1 has F1 0 here
    ("", ["cat"], 0, 0),
    ("Café", ["café"], 1, 1),
    ("“cat”", ["cat"], 0, 0),  # only ASCII's punctuation goes
    ("a-b the", ["ab"], 1, 1),
]


@pytest.mark.parametrize(("prediction", "answers", "exact", "overlap"), OFFICIAL)
def test_answers_score_as_squads_script_has_it(prediction, answers, exact, overlap):
    assert spans.exact_match(prediction, answers) == exact
    assert spans.f1(prediction, answers) == pytest.approx(overlap, abs=1e-12)


def test_scores_are_means_over_the_questions_and_missing_ones_are_wrong():
    gold = {str(index): answers for index, (_, answers, _, _) in enumerate(OFFICIAL)} | {"left out": ["cat"]}
    predictions = {str(index): prediction for index, (prediction, *_) in enumerate(OFFICIAL)} | {
        "more": "cat"
    }
    scores = spans.squad_scores(predictions, gold)
    assert scores["exact_match"] == pytest.approx(sum(row[2] for row in OFFICIAL) / (len(OFFICIAL) + 1))
    assert scores["f1"] == pytest.approx(sum(row[3] for row in OFFICIAL) / (len(OFFICIAL) + 1))
    assert spans.squad_scores({}, {}) == {"exact_match": 0, "f1": 0}


def test_a_question_without_an_answer_is_refused():
    with pytest.raises(UserError, match="question 'q2': has no answer"):
        spans.squad_scores({"q1": "cat"}, {"q1": ["cat"], "q2": []})


# --- spans

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def windows(rng, count, length, examples, context_length, ties=False):
    """Random windows: some tokens of a question in front, padding behind, the rest a part of the context."""
    contexts = ["".join(rng.choice(list(LETTERS[:6]), 2 * context_length)) for _ in range(examples)]
    owner = rng.integers(0, examples, count)
    offsets = np.full((count, length, 2), -1)
    for row in range(count):
        question, tokens = rng.integers(1, 4), rng.integers(1, length - 5)
        start = rng.integers(0, context_length - tokens + 1)
        places = 2 * np.arange(start, start + tokens)  # tokens of two characters
        offsets[row, question : question + tokens] = np.stack([places, places + 2], -1)
    logits = rng.normal(size=(2, count, length)).astype(np.float32) * 3
    return (*(np.round(logits) if ties else logits), offsets, contexts, owner)


def as_run_squad(start_logits, end_logits, offsets, contexts, examples, n_best, max_answer_tokens):
    """Loop for loop what run_spans.py does, with starts and ends of the context only."""
    answers = {}
    for example in sorted(set(examples.tolist())):
        candidates = []
        for w in np.flatnonzero(examples == example):
            inside = [t for t in range(len(offsets[w])) if offsets[w, t, 0] >= 0]
            starts = sorted(inside, key=lambda t: start_logits[w, t], reverse=True)[:n_best]
            ends = sorted(inside, key=lambda t: end_logits[w, t], reverse=True)[:n_best]
            for s in starts:
                for e in ends:
                    if s <= e < s + max_answer_tokens:
                        score = float(start_logits[w, s]) + float(end_logits[w, e])
                        candidates.append((score, int(offsets[w, s, 0]), int(offsets[w, e, 1])))
        candidates.sort(key=lambda c: c[0], reverse=True)
        seen = {}
        for score, start, end in candidates:
            text = contexts[example][start:end]
            if text not in seen and len(seen) < n_best:
                seen[text] = (text, score, start, end)
        total = sum(math.exp(row[1]) for row in seen.values())
        answers[example] = [(*row, math.exp(row[1]) / total) for row in seen.values()]
    return answers


def best_spans(start_logits, end_logits, offsets, contexts, examples, n_best=20, max_answer_tokens=30):
    """The answers to each question, from windows of all of them."""
    rows = {example: np.flatnonzero(examples == example) for example in sorted(set(examples.tolist()))}
    given_ = (np.stack([start_logits, end_logits], axis=1), offsets)
    return {
        example: spans.best_spans(*(x[r] for x in given_), contexts[example], n_best, max_answer_tokens)
        for example, r in rows.items()
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n_best", "longest"), [(1, 30), (3, 4), (20, 30), (50, 6)])
def test_spans_are_those_that_loops_find(seed, n_best, longest):
    rng = np.random.default_rng(seed)
    given_ = windows(rng, 40, 24, 9, 30, ties=seed % 2 == 1)
    found = best_spans(*given_, n_best=n_best, max_answer_tokens=longest)
    expected = as_run_squad(*given_, n_best, longest)
    assert found.keys() == expected.keys()
    for example, rows in expected.items():
        keys = ("text", "score", "start", "end", "probability")
        if not rows:
            assert found[example] == [{"text": "", "score": 0, "probability": 1, "start": 0, "end": 0}]
            continue
        assert [tuple(answer[key] for key in keys[:4]) for answer in found[example]] == [r[:4] for r in rows]
        np.testing.assert_allclose(
            [a["probability"] for a in found[example]], [r[4] for r in rows], rtol=1e-9
        )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_with_enough_starts_and_ends_the_best_is_the_best_of_all_spans(seed, longest):
    start_logits, end_logits, offsets, contexts, examples = windows(np.random.default_rng(seed), 6, 14, 3, 12)
    found = best_spans(start_logits, end_logits, offsets, contexts, examples, 14, longest)
    for example, answers in found.items():
        best = max(
            float(start_logits[w, s]) + float(end_logits[w, e])
            for w in np.flatnonzero(examples == example)
            for s in range(14)
            for e in range(s, min(s + longest, 14))
            if offsets[w, s, 0] >= 0 and offsets[w, e, 0] >= 0
        )
        assert answers[0]["score"] == best
        assert sum(answer["probability"] for answer in answers) == pytest.approx(1)
        for answer in answers:
            assert contexts[example][answer["start"] : answer["end"]] == answer["text"] != ""
        assert len({answer["text"] for answer in answers}) == len(answers)


def test_the_better_of_two_windows_has_the_answer():
    context = "Paris is in France"
    offsets = np.array([[[-1, -1], [0, 5], [6, 8]], [[-1, -1], [9, 11], [12, 18]]])
    starts = np.array([[9, 1, 0], [9, 0, 2]], np.float32)  # 9: the question's, which cannot be
    ends = np.array([[9, 1, 0], [9, 0, 3]], np.float32)
    answer = best_spans(starts, ends, offsets, [context], np.array([0, 0]), n_best=2)[0]
    assert [(row["text"], row["score"]) for row in answer] == [("France", 5), ("in France", 3)]
    assert answer[0]["probability"] == pytest.approx(1 / (1 + math.exp(-2)))


def test_logits_that_are_nan_are_no_answer():
    offsets = np.array([[[0, 1], [2, 3]]])
    nan = np.full((1, 2), np.nan)
    assert best_spans(nan, nan, offsets, ["a b"], np.array([0]))[0][0]["text"] == ""


def test_true_spans_of_a_real_split_are_found_and_score_1():
    """One-hot logits at the true answers, of words cut at white space and punctuation."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = os.environ.get("TFDS_DATA_DIR", "")
    if not (Path(folder) / "xquad_en").is_dir():
        pytest.skip("needs xquad_en in TFDS_DATA_DIR")
    builder = tfds.builder_from_directory(next((Path(folder) / "xquad_en").glob("*.*.*")))
    source = builder.as_data_source(next(iter(builder.info.splits)))
    contexts, gold, predictions = [], {}, {}
    for row in (source[index] for index in range(100)):
        context, answer = row["context"].decode(), row["answers"]["text"][0].decode()
        begin = int(row["answers"]["answer_start"][0])
        offsets = np.array([[place, place + 1] for place in range(len(context))])[None]
        starts, ends = np.zeros((2, 1, len(context)))
        starts[0, begin] = ends[0, begin + len(answer) - 1] = 5
        key = row["id"].decode()
        contexts.append(context)
        gold[key] = [answer]
        found = best_spans(starts, ends, offsets, [context], np.array([0]), 20, 300)
        predictions[key] = found[0][0]["text"]
    assert spans.squad_scores(predictions, gold) == {"exact_match": 1, "f1": 1}


def test_questions_without_an_answer_are_scored_as_in_squad_2():
    """By hand from evaluate-v2.0.py: nothing is right where there is nothing, and there alone."""
    gold = {"q1": ["a cat"], "q2": [], "q3": [], "q4": ["two dogs"]}
    predictions = {"q1": "", "q2": "", "q3": "a dog", "q4": "dogs"}
    scores = spans.squad_scores(predictions, gold, unanswerable=True)
    assert scores == {"exact_match": 1 / 4, "f1": pytest.approx((0 + 1 + 0 + 2 / 3) / 4)}


def test_no_answer_comes_first_where_it_scores_more_by_the_threshold():
    found = [
        {"text": text, "score": score, "probability": 0.5, "start": 0, "end": 1}
        for text, score in (("a", 5.0), ("b", 3.0))
    ]
    for score, threshold, texts in (
        (6.0, 0.0, ["", "a", "b"]),
        (5.0, 0.0, ["a", "", "b"]),
        (6.0, 2.0, ["a", "", "b"]),
        (4.5, -1.0, ["", "a", "b"]),
        (1.0, 0.0, ["a", "b", ""]),
    ):
        answers = spans.with_no_answer(found, score, threshold)
        assert [answer["text"] for answer in answers] == texts
        scores = np.array([answer["score"] for answer in answers])
        np.testing.assert_allclose(
            [one["probability"] for one in answers], np.exp(scores) / np.exp(scores).sum()
        )
    empty = [{"text": "", "score": 0.0, "probability": 1.0, "start": 0, "end": 0}]
    assert [one["text"] for one in spans.with_no_answer(empty, -9.0, 0.0)] == [""]


def test_the_score_of_no_answer_is_the_least_of_all_windows():
    """Two windows of a question; the first token's logits add up to 6 and to 2, the answer's to 4."""
    logits = np.array([[[3.0, 2.0], [3.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]])
    places = [np.array([[-1, -1], [0, 1]]), np.array([[-1, -1], [2, 3]])]
    for threshold, answer in ((None, "a"), (0.0, "a"), (-3.0, "")):
        task = spans.SpanQA(no_answer_threshold=threshold)
        assert task.best(logits, places, "a b")[0]["text"] == answer
