"""Few-shot evaluation: what is asked, and how answers are scored."""

import itertools
import json
import math

import numpy as np
import pytest
from helpers.bigram import Bigram, random_table, words
from helpers.capitals import CHOICES, CITIES, EXAMPLES, HEADER, bigram, write

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot import choice_scores, evaluate_fewshot, summarize, write_rows
from jaxformer.evaluation.fewshot_task import read_task
from jaxformer.evaluation.likelihood import encode_pair


@pytest.fixture
def capitals(tmp_path):
    return write(tmp_path / "capitals.jsonl", HEADER, *EXAMPLES)


def log_likelihood(model, context, continuation):
    """By going through the text: characters are tokens."""
    text = model.tokenizer.encode(context[-1] + continuation, special=False)
    return sum(math.log(model.table[a, b]) for a, b in itertools.pairwise(text))


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_prompts_are_instruction_demonstrations_and_question(capitals, shots):
    rows = evaluate_fewshot(bigram(), capitals, shots, seed=0)["rows"]
    solved = {f"Q: {country}\nA: {city}" for country, city in CITIES.items()}
    for row, country in zip(rows, CITIES, strict=True):
        parts = row["context"].split("\n\n")
        assert parts[0] == "Name them."
        assert parts[-1] == f"Q: {country}\nA:"
        demonstrations = parts[1:-1]
        assert len(set(demonstrations)) == len(demonstrations) == shots == row["shots"]
        assert set(demonstrations) <= solved - {f"Q: {country}\nA: {CITIES[country]}"}


def test_scores_are_those_of_going_through_the_text(capitals):
    model = bigram()
    result = evaluate_fewshot(model, capitals, 2, seed=0)
    lengths = {
        "accuracy": lambda city: 1,
        "accuracy_per_token": lambda city: len(" " + city),  # the delimiter is scored
        "accuracy_per_character": len,
        "accuracy_per_byte": lambda city: len(city.encode()),
    }
    for name, length in lengths.items():
        right = []
        for i, row in enumerate(result["rows"]):
            expected = [log_likelihood(model, row["context"], " " + city) for city in CHOICES]
            np.testing.assert_allclose(row["log_likelihoods"], expected, rtol=1e-6)
            best = int(np.argmax([value / length(city) for value, city in zip(expected, CHOICES)]))
            assert row["predictions"][name] == best
            assert row["answer"] == i
            right.append(best == i)
        assert result["metrics"][name] == np.mean(right)
    names = [*lengths, "accuracy_over_answer_context"]
    assert set(result["metrics"]) == {*names, *(f"{name}_stderr" for name in names)}
    assert result["examples"] == 5


@pytest.mark.parametrize("seed", range(5))
def test_over_answer_context_is_a_ratio(tmp_path, seed):
    """Of bigrams nothing but the first letter's is left of it."""
    model = bigram(seed=seed)
    path = write(tmp_path / "t.jsonl", {**HEADER, "delimiter": "", "answer_context": "Name"}, *EXAMPLES)
    colon, e, *letters = (
        model.tokenizer.encode(c, special=False)[0] for c in [":", "e", *(c[0] for c in CHOICES)]
    )
    expected = np.argmax(model.table[colon, letters] / model.table[e, letters])
    rows = evaluate_fewshot(model, path, 0, seed=0)["rows"]
    assert {row["predictions"]["accuracy_over_answer_context"] for row in rows} == {expected}


def test_each_way_of_scoring_chooses_its_own():
    choices = ["ab", "abc", "abcdefgh", "éééééé", "abcd"]
    likelihoods = np.array([-2, -4.5, -6, -5, -7.0])
    prior = np.array([-1, -5, -6, -5.5, -20.0])
    scores = choice_scores(likelihoods, [1, 3, 2, 2, 4], choices, prior)
    assert {name: int(score.argmax()) for name, score in scores.items()} == {
        "accuracy": 0,
        "accuracy_per_token": 1,  # -2, -1.5, -3, -2.5, -1.75
        "accuracy_per_character": 2,  # -1, -1.5, -0.75, -0.83, -1.75
        "accuracy_per_byte": 3,  # -1, -1.5, -0.75, -0.42, -1.75
        "accuracy_over_answer_context": 4,  # -1, 0.5, 0, 0.5, 13
    }


def test_an_impossible_choice_is_not_chosen_for_being_impossible_anyway():
    scores = choice_scores(np.array([-np.inf, -3]), [1, 1], ["a", "b"], np.array([-np.inf, -1]))
    assert scores["accuracy_over_answer_context"].tolist() == [-np.inf, -2]
    assert "accuracy_over_answer_context" not in choice_scores(np.ones(1), [1], ["a"], np.array([]))


def test_cloze_is_right_where_greedy_decoding_gives_the_answer(tmp_path):
    vocabulary = ["the", " cat", " sat", " ran", " far"]
    table = np.full((5, 5), 0.1)
    table[0, 1] = table[1, 2] = table[2, 4] = table[3, 4] = table[4, 0] = 0.6
    model = Bigram(words(vocabulary), table)
    asked = ["cat sat", "cat ran", "cat sat far", "sat"]
    path = write(tmp_path / "end.jsonl", *({"prompt": "the", "answer": answer} for answer in asked))
    result = evaluate_fewshot(model, path, 0, seed=0)
    assert (result["task"], result["metric"]) == ("end", "cloze")
    assert [row["metrics"]["accuracy"] for row in result["rows"]] == [1, 0, 1, 0]
    expected = [0.6**2, 0.6 * 0.1, 0.6**3, 0.1]
    found = [row["metrics"]["log_likelihood"] for row in result["rows"]]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-6)
    assert result["metrics"]["accuracy"] == 0.5
    assert result["metrics"]["accuracy_stderr"] == pytest.approx(math.sqrt(0.5 * 0.5 / 3))


def test_standard_error_of_one_row_is_not_known():
    summary = summarize([{"metrics": {"accuracy": 1.0}}])
    assert summary["accuracy"] == 1
    assert math.isnan(summary["accuracy_stderr"])


def test_demonstrations_are_a_function_of_seed_and_index(capitals):
    task = read_task(capitals)
    drawn = {
        (seed, index): [d.doc.line for d in task.demonstrations(index, 3, seed)]
        for seed in range(-1, 20)
        for index in range(5)
    }
    for (seed, index), lines in drawn.items():
        assert lines == [d.doc.line for d in task.demonstrations(index, 3, seed)]
        assert lines[:2] == [d.doc.line for d in task.demonstrations(index, 2, seed)], (
            "fewer are the first of more"
        )
        assert task.tests[index].doc.line not in lines
    for index in range(5):
        everything = {lines[0] for (_, i), lines in drawn.items() if i == index}
        assert everything == {t.doc.line for t in task.tests} - {task.tests[index].doc.line}
    assert len({tuple(lines) for lines in drawn.values()}) > 30


def test_demonstrations_come_from_their_split_if_there_is_one(tmp_path):
    demos = [{**EXAMPLES[i], "split": "demo"} for i in (0, 1)]
    path = write(tmp_path / "t.jsonl", HEADER, demos[0], EXAMPLES[2], demos[1], EXAMPLES[3])
    result = evaluate_fewshot(bigram(), path, 2, seed=0)
    assert [row["line"] for row in result["rows"]] == [3, 5]
    for row in result["rows"]:
        assert "A: Paris" in row["context"]
        assert "A: Rome" in row["context"]


def test_each_example_has_demonstrations_of_its_own(tmp_path):
    demos = [{**example, "split": "demo"} for example in EXAMPLES]
    task = read_task(write(tmp_path / "t.jsonl", HEADER, *demos, *EXAMPLES))
    drawn = [task.demonstrations(index, 1, seed=0)[0].doc.line for index in range(100)]
    assert set(drawn) == {demo.doc.line for demo in task.demos}
    assert max(map(drawn.count, drawn)) < 40


def test_limit_changes_nothing_but_the_number(capitals):
    assert (
        evaluate_fewshot(bigram(), capitals, 2, 3, limit=2)["rows"]
        == evaluate_fewshot(bigram(), capitals, 2, 3)["rows"][:2]
    )
    assert evaluate_fewshot(bigram(), capitals, 4, 3, limit=1)["examples"] == 1, (
        "demonstrations come from all"
    )


@pytest.mark.parametrize("context_length", [36, 60, 70, 80, 200])
def test_demonstrations_that_do_not_fit_are_dropped_from_the_front(capitals, context_length):
    whole = evaluate_fewshot(bigram(), capitals, 4, seed=1)
    result = evaluate_fewshot(bigram(context_length), capitals, 4, seed=1)
    for full, row in zip(whole["rows"], result["rows"]):
        instruction, *solved, question = full["context"].split("\n\n")
        candidates = ["\n\n".join([instruction, *solved[dropped:], question]) for dropped in range(5)]
        fitting = [c for c in candidates if len(c) + len(" Valletta") - 1 <= context_length]
        assert row["context"] == fitting[0]
        assert row["shots"] == 4 - candidates.index(fitting[0])
    shots = [row["shots"] for row in result["rows"]]
    assert result["dropped_demonstrations"] == 20 - sum(shots)
    assert result["shortened_examples"] == sum(kept < 4 for kept in shots)
    assert (result["dropped_demonstrations"] == 0) == (context_length == 200)


def test_an_example_that_never_fits_is_said_before_anything_is_asked(capitals):
    model = bigram(35)
    assert len("Name them.\n\nQ: Österreich\nA: Valletta") == 37  # the last is not seen
    with pytest.raises(UserError, match=r"capitals.jsonl, line 6: .* takes 36 tokens, and the model sees 35"):
        evaluate_fewshot(model, capitals, 1, seed=0)
    assert model.asked == []


# Tokens at the border.


def test_a_space_belongs_to_the_word_that_follows():
    tokenizer = words(["A", ":", " ", "Paris", " Paris"])
    for context, continuation in [("A:", " Paris"), ("A: ", "Paris")]:
        assert encode_pair(tokenizer, context, continuation) == ([0, 1], [4])


def test_a_token_across_the_border_is_scored():
    tokenizer = words(["a", "b", "ab", "c"], eos=3)
    assert encode_pair(tokenizer, "ca", "b") == ([3], [2])
    assert encode_pair(tokenizer, "a", "b") == ([3], [2]), "with eos in front, since nothing else is left"


def test_what_stands_in_front():
    assert encode_pair(words(["<", "a", "b"], bos=0, eos=2), "a", "b") == ([0, 1], [2])
    assert encode_pair(words(["<", "a", "b"], bos=0, eos=0), "a", "b") == ([1], [2])  # GPT-2's
    assert encode_pair(words(["<", "a", "b"], bos=0, eos=0), "", "b") == ([0], [2])
    with pytest.raises(UserError, match="no bos or eos"):
        encode_pair(words(["a", "b"]), "", "b")


@pytest.mark.parametrize(
    ("prompt", "delimiter", "continuation"), [("a", " ", " b"), ("a\n", " ", "b"), ("a", "", "b")]
)
def test_delimiter(tmp_path, prompt, delimiter, continuation):
    vocabulary = ["a", "b", " ", "\n", " b"]
    model = Bigram(words(vocabulary), random_table(5))
    path = write(
        tmp_path / "t.jsonl", {"task": "t", "delimiter": delimiter}, {"prompt": prompt, "answer": "b"}
    )
    evaluate_fewshot(model, path, 0, seed=0)
    ((context, answer),) = model.asked
    assert model.tokenizer.decode(context + answer) == prompt + continuation
    assert context == [0]


def test_rows_can_be_written_and_read(capitals, tmp_path):
    rows = evaluate_fewshot(bigram(), capitals, 1, seed=0)["rows"]
    write_rows(tmp_path / "rows.jsonl", rows)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    write_rows(tmp_path / "rows.jsonl", [{"log_likelihood": -math.inf}])
    assert (tmp_path / "rows.jsonl").read_text() == '{"log_likelihood": "-Infinity"}\n'


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ({5: {**EXAMPLES[3], "country": "Malt?"}}, 5),
        ({3: {**EXAMPLES[1], "choices": [*CHOICES[:4], "W?en"]}}, 3),
        ({1: {**HEADER, "instruction": "Name them?"}}, 1),
        ({1: {**HEADER, "answer_context": "A?"}}, 1),
        ({4: {**EXAMPLES[2], "country": "Sp?in", "split": "demo"}}, 4),
    ],
)
def test_a_character_that_the_tokenizer_lacks_is_named_with_its_line(tmp_path, lines, line):
    """Also where it stands in a demonstration for another line's question."""
    whole = dict(enumerate([HEADER, *EXAMPLES], 1)) | lines
    path = write(tmp_path / "t.jsonl", *whole.values())
    model = bigram()
    with pytest.raises(UserError, match=rf"t\.jsonl, line {line}: text: '\?' \(U\+003F\) in "):
        evaluate_fewshot(model, path, 1, seed=0)
    assert model.asked == []


def test_arguments_out_of_range(capitals):
    model = bigram()
    with pytest.raises(
        UserError, match="5 shots need as many examples besides the one that is asked; there are 4"
    ):
        evaluate_fewshot(model, capitals, 5, seed=0)
    with pytest.raises(UserError, match="shots=-1"):
        evaluate_fewshot(model, capitals, -1, seed=0)
    with pytest.raises(UserError, match="limit=0"):
        evaluate_fewshot(model, capitals, 0, seed=0, limit=0)
    assert model.asked == []


def test_a_broken_model_has_no_accuracy(capitals):
    model = bigram()
    model.logs = np.full_like(model.logs, np.nan)
    with pytest.raises(UserError, match="line 2: the log-likelihood is NaN"):
        evaluate_fewshot(model, capitals, 0, seed=0)
