"""Metrics of text against published scripts' results, definitions written out, and scikit-learn's and SciPy's kin."""

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxformer.errors import UserError
from jaxformer.tasks import text_metrics as metrics

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
    assert metrics.exact_match(prediction, answers) == exact
    assert metrics.f1(prediction, answers) == pytest.approx(overlap, abs=1e-12)


def test_scores_are_means_over_the_questions_and_missing_ones_are_wrong():
    gold = {str(index): answers for index, (_, answers, _, _) in enumerate(OFFICIAL)} | {"left out": ["cat"]}
    predictions = {str(index): prediction for index, (prediction, *_) in enumerate(OFFICIAL)} | {
        "more": "cat"
    }
    scores = metrics.squad_scores(predictions, gold)
    assert scores["exact_match"] == pytest.approx(sum(row[2] for row in OFFICIAL) / (len(OFFICIAL) + 1))
    assert scores["f1"] == pytest.approx(sum(row[3] for row in OFFICIAL) / (len(OFFICIAL) + 1))
    assert metrics.squad_scores({}, {}) == {"exact_match": 0, "f1": 0}


def test_a_question_without_an_answer_is_refused():
    with pytest.raises(UserError, match="question 'q2': has no answer"):
        metrics.squad_scores({"q1": "cat"}, {"q1": ["cat"], "q2": []})


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
    """Loop for loop what run_squad.py does, with starts and ends of the context only."""
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


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n_best", "longest"), [(1, 30), (3, 4), (20, 30), (50, 6)])
def test_spans_are_those_that_loops_find(seed, n_best, longest):
    rng = np.random.default_rng(seed)
    given_ = windows(rng, 40, 24, 9, 30, ties=seed % 2 == 1)
    found = metrics.best_spans(*given_, n_best=n_best, max_answer_tokens=longest)
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
    found = metrics.best_spans(start_logits, end_logits, offsets, contexts, examples, 14, longest)
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
    answer = metrics.best_spans(starts, ends, offsets, [context], np.array([0, 0]), n_best=2)[0]
    assert [(row["text"], row["score"]) for row in answer] == [("France", 5), ("in France", 3)]
    assert answer[0]["probability"] == pytest.approx(1 / (1 + math.exp(-2)))


def test_logits_that_are_nan_are_no_answer():
    offsets = np.array([[[0, 1], [2, 3]]])
    nan = np.full((1, 2), np.nan)
    assert metrics.best_spans(nan, nan, offsets, ["a b"], np.array([0]))[0][0]["text"] == ""


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
        found = metrics.best_spans(starts, ends, offsets, [context], np.array([0]), 20, 300)
        predictions[key] = found[0][0]["text"]
    assert metrics.squad_scores(predictions, gold) == {"exact_match": 1, "f1": 1}


# --- entities

TRUE = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"], ["B-LOC", "B-LOC"]]
FOUND = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"], ["B-LOC", "I-LOC"]]


def test_entities_by_hand():
    """MISC begins a word too early; PER is right; of LOC there are two, and one was found that is neither."""
    scores = metrics.entity_scores(FOUND, TRUE)
    assert (scores["precision"], scores["recall"]) == (1 / 3, 1 / 4)
    assert scores["f1"] == pytest.approx(2 / 7)
    assert scores["entities"] == [
        {"type": "LOC", "precision": 0, "recall": 0, "f1": 0, "support": 2},
        {"type": "MISC", "precision": 0, "recall": 0, "f1": 0, "support": 1},
        {"type": "PER", "precision": 1, "recall": 1, "f1": 1, "support": 1},
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
    scores = metrics.entity_scores(predicted, true)
    found, there = chunks(predicted), chunks(true)
    right = len(found & there)
    assert scores["precision"] == pytest.approx(right / len(found) if found else 0)
    assert scores["recall"] == pytest.approx(right / len(there) if there else 0)
    assert scores["f1"] == pytest.approx(2 * right / (len(found) + len(there)) if right else 0)
    assert [row["type"] for row in scores["entities"]] == sorted({chunk[1] for chunk in found | there})
    for row in scores["entities"]:
        assert row["support"] == sum(chunk[1] == row["type"] for chunk in there)


def test_tags_of_other_kinds_and_lengths_are_refused():
    with pytest.raises(UserError, match="tag 'NOUN': not an entity's"):
        metrics.entity_scores([["O", "NOUN"]], [["O", "O"]])
    with pytest.raises(ValueError, match="not of the same lengths"):
        metrics.entity_scores([["O", "O"], ["O"]], [["O"], ["O", "O"]])


# --- translations


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
    scores, signatures = metrics.translation_scores(HYPOTHESES, REFERENCES)
    assert scores["bleu"] == pytest.approx(bleu_by_definition(HYPOTHESES, REFERENCES))
    assert scores["chrf"] == pytest.approx(chrf_by_definition(HYPOTHESES, REFERENCES), rel=1e-3)
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_translations_are_cased_and_tokenised_here():
    score = lambda one, two: metrics.translation_scores([one], [two])[0]["bleu"]  # noqa: E731
    plain, split = "Yes, it is a cat.", "Yes , it is a cat ."
    assert score(plain, plain) == pytest.approx(100)
    assert score(plain, split) == pytest.approx(100)  # 13a splits punctuation off
    assert score(plain.lower(), plain) < 90


def test_no_translations_score_0_and_unequal_numbers_are_refused():
    scores, signatures = metrics.translation_scores([], [])
    assert scores == {"bleu": 0, "chrf": 0}
    assert signatures.keys() == scores.keys()
    with pytest.raises(ValueError, match="1 hypotheses, 2 references"):
        metrics.translation_scores(["a"], ["a", "b"])


# --- correlations

NUMBERS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30)


@given(NUMBERS)
def test_correlations_are_numpys(pairs):
    x, y = np.array(pairs, np.float64).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert metrics.pearson(x, y) == metrics.spearman(x, y) == 0
        return
    ranks = [
        [(v < w).sum() + ((v == w).sum() + 1) / 2 for w in v] for v in (x, y)
    ]  # ties share their mean rank
    assert metrics.pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert metrics.spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)


def test_correlations_of_a_table_by_hand():
    assert metrics.pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert metrics.spearman([1, 2, 300], [1, 3, 2]) == pytest.approx(0.5)
    assert metrics.spearman([1, 2, 300], [-5, 0, 1]) == pytest.approx(1)
    assert metrics.pearson([], []) == metrics.spearman([], []) == 0
