"""Few-shot evaluation: what is asked, how answers are scored, and files with mistakes."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import yaml
from helpers.bigram import Bigram, characters, random_table, words

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot import (
    choice_scores,
    encode_pair,
    evaluate_fewshot,
    summarize,
    write_rows,
)
from jaxformer.evaluation.fewshot_task import read_task

HEADER = {
    "task": "capitals",
    "instruction": "Name them.",
    "template": "Q: {country}\nA:",
    "answer_context": "A:",
}
CITIES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Malta": "Valletta", "Österreich": "Wien"}
CHOICES = list(CITIES.values())
LETTERS = sorted(set("Name them.Q: \nA" + "".join(CITIES) + "".join(CHOICES)))
EXAMPLES = [{"country": country, "choices": CHOICES, "answer": i} for i, country in enumerate(CITIES)]


def write(path, *lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def capitals(tmp_path):
    return write(tmp_path / "capitals.jsonl", HEADER, *EXAMPLES)


def bigram(context_length=1000, seed=0):
    tokenizer = characters(["".join(LETTERS)])
    return Bigram(tokenizer, random_table(tokenizer.vocab_size, seed), context_length)


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


# The format of lm-evaluation-harness; test_harness.py has the figures side by side.


@pytest.fixture
def as_yaml(tmp_path):
    """Writes a YAML file with its questions; `changes` are further keys, and None leaves one out."""

    def make(docs=EXAMPLES, demos=None, **changes):
        files = {"test": str(write(tmp_path / "questions.jsonl", *docs))}
        if demos is not None:
            files["demos"] = str(write(tmp_path / "demos.jsonl", *demos))
        keys = {
            "task": "capitals",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "output_type": "multiple_choice",
            "test_split": "test",
            "fewshot_split": None if demos is None else "demos",
            "description": "Name them.\n\n",
            "doc_to_text": "Q: {{country}}\nA:",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            **changes,
        }
        path = tmp_path / "capitals.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in keys.items() if value is not None}))
        return path

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"doc_to_choice": "choices", "doc_to_target": "answer"},
        {"doc_to_choice": CHOICES, "doc_to_target": "{{choices[answer]}}"},
        {"metric_list": [{"metric": "acc"}], "metadata": {"version": 1}, "num_fewshot": 0},
    ],
    ids=["templates", "keys", "a label", "further keys"],
)
@pytest.mark.parametrize("shots", [0, 2])
def test_a_yaml_file_says_what_json_lines_say(tmp_path, as_yaml, changes, shots):
    lines = write(tmp_path / "t.jsonl", {k: v for k, v in HEADER.items() if k != "answer_context"}, *EXAMPLES)
    expected = evaluate_fewshot(bigram(), lines, shots, seed=1)
    found = evaluate_fewshot(bigram(), as_yaml(**changes), shots, seed=1)
    for row in (*expected["rows"], *found["rows"]):
        del row["line"]  # there is no header
    assert found == expected


def test_a_yaml_file_has_demonstrations_of_its_own_and_says_how_many(as_yaml):
    result = evaluate_fewshot(bigram(), as_yaml(EXAMPLES[2:], EXAMPLES[:2], num_fewshot=2))
    assert (result["shots"], result["examples"]) == (2, 3)
    for row in result["rows"]:
        assert "A: Paris\n\n" in row["context"]
        assert "A: Rome\n\n" in row["context"]
    assert evaluate_fewshot(bigram(), as_yaml(EXAMPLES[2:], EXAMPLES[:2], num_fewshot=2), 0)["shots"] == 0


def test_a_loglikelihood_is_a_cloze(tmp_path, as_yaml):
    """Its target has no delimiter before it, as in the harness; demonstrations have one."""
    keys = {
        "output_type": "loglikelihood",
        "doc_to_choice": None,
        "doc_to_target": "{{' ' + choices[answer]}}",
    }
    result = evaluate_fewshot(bigram(), as_yaml(**keys), 1)
    assert result["metric"] == "cloze"
    cloze = [{"country": c, "answer": f" {city}"} for c, city in CITIES.items()]
    header = {"task": "capitals", "instruction": "Name them.", "template": HEADER["template"]}
    lines = evaluate_fewshot(bigram(), write(tmp_path / "t.jsonl", header, *cloze), 1)
    for found, expected in zip(result["rows"], lines["rows"]):
        assert found["answer"] == expected["answer"]
        assert found["context"].replace("A:  ", "A: ") == expected["context"]
        assert found["metrics"] == pytest.approx(expected["metrics"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_type": "generate_until"}, "output_type: 'generate_until' is not a choice"),
        ({"dataset_path": "cais/mmlu"}, "dataset_path: 'cais/mmlu' is not a choice"),
        ({"filter_list": []}, "has no field 'filter_list'"),
        ({"num_fewshot": -1}, "num_fewshot=-1: expected 0 or more"),
        ({"doc_to_text": None}, "doc_to_text: missing"),
        ({"description": "{{country}}"}, "expected text, no template"),
        ({"dataset_kwargs": {"data_files": "all.jsonl"}}, "dataset_kwargs.data_files: expected "),
        ({"dataset_kwargs": {"files": {}}}, "dataset_kwargs.data_files: missing"),
        ({"test_split": "validation"}, "split 'validation' is not in data_files; there are test"),
        ({"doc_to_text": "{{county}}"}, "questions.jsonl, line 1: '{{county}}': 'county' is undefined; it has country"),
        ({"doc_to_text": "{{country"}, "questions.jsonl, line 1: '{{country': "),
        ({"doc_to_choice": "options"}, "questions.jsonl, line 1: lacks 'options'; it has country, choices, answer"),
        ({"doc_to_target": "{{country}}"}, "the answer is 'France', expected a number from 0 to 4, or a choice"),
        ({"doc_to_text": "{{answer}}"}, "line 1: the prompt is '0', expected text"),
    ],
)  # fmt: skip
def test_mistakes_in_yaml_files(as_yaml, changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_task(as_yaml(**changes))


@pytest.mark.parametrize(
    ("content", "message"), [("task: [", "cannot be read as YAML"), ("- a", "expected the keys of a task")]
)
def test_what_is_no_yaml_of_a_task(tmp_path, content, message):
    (tmp_path / "t.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_task(tmp_path / "t.yaml")
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read"):
        read_task(tmp_path / "none.yaml")


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


# Files.


def test_rows_can_be_written_and_read(capitals, tmp_path):
    rows = evaluate_fewshot(bigram(), capitals, 1, seed=0)["rows"]
    write_rows(tmp_path / "rows.jsonl", rows)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    write_rows(tmp_path / "rows.jsonl", [{"log_likelihood": -math.inf}])
    assert (tmp_path / "rows.jsonl").read_text() == '{"log_likelihood": "-Infinity"}\n'


def test_files_may_have_a_mark_blank_lines_and_windows_line_ends(tmp_path):
    path = tmp_path / "t.jsonl"
    line = json.dumps({"prompt": "a\u2028b", "answer": "c"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f'\r\n{{"task": "x"}}\r\n\r\n{line}\r\n'.encode())
    task = read_task(path)
    assert (task.name, task.metric) == ("x", "cloze")
    assert [(e.doc.line, e.prompt, e.choices) for e in task.tests] == [(4, "a\u2028b", ("c",))]


GOOD = '{"prompt": "a", "choices": ["b", "c"], "answer": 0}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no examples"),
        ("\n\n", "holds no examples"),
        ('{"task": "x"}\n', "only a header"),
        (GOOD + "{prompt}\n", "line 2: not JSON"),
        (GOOD + "[1]\n", "line 2: expected a JSON object"),
        (GOOD + '{"choices": ["b", "c"], "answer": 0}\n', "line 2: lacks 'prompt'; it has choices, answer"),
        (GOOD + '{"prompt": "a", "answer": 0}\n', "line 2: lacks 'choices'"),
        (GOOD + '{"prompt": "a", "choices": ["b", "c"]}\n', "line 2: lacks 'answer'"),
        (GOOD + GOOD.replace("0", "2"), "line 2: the answer is 2, expected a number from 0 to 1"),
        (GOOD.replace("0", "-1"), "line 1: the answer is -1"),
        (GOOD.replace("0", "true"), "line 1: the answer is True"),
        (GOOD.replace("0", '"d"'), "line 1: the answer is 'd', expected a number"),
        (GOOD.replace('"b", ', ""), "line 1: expected at least 2 choices, there are 1"),
        (GOOD.replace('"b"', '" "'), "line 1: choices are"),
        (GOOD.replace('"a"', "null"), "line 1: 'prompt' is None, expected text"),
        (GOOD.replace("}", ', "split": "train"}'), 'split is \'train\', expected "test" or "demo"'),
        (GOOD.replace("}", ', "split": "demo"}'), 'all lines are of split "demo"'),
        ('{"prompt": "a", "answer": 3}\n', "line 1: the answer is 3, expected the text"),
        ('{"prompt": "a", "answer": ""}\n', "line 1: the answer is '', expected the text"),
        (
            '{"task": "x", "metrics": "cloze"}\n' + GOOD,
            "line 1: metrics: Header has no field 'metrics'; did you mean 'metric'",
        ),
        (
            '{"task": "x", "metric": "clozes"}\n' + GOOD,
            "line 1: metric: 'clozes' is not a choice; did you mean 'cloze'",
        ),
        ('{"task": 1}\n' + GOOD, "line 1: task: expected str, was given 1"),
        ('{"task": "x", "template": "{"}\n' + GOOD, 'line 1: template="{": expected plain names in braces'),
        ('{"task": "x", "template": "{prompt.__class__}"}\n' + GOOD, "expected plain names"),
        ('{"task": "x", "template": "{}"}\n' + GOOD, "expected plain names"),
        ('{"task": "x", "template": "{question}"}\n' + GOOD, "line 2: lacks 'question'"),
    ],
)
def test_mistakes_in_files(tmp_path, content, message):
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_task(path)
    assert str(caught.value).startswith(str(path))


def test_not_utf8(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(GOOD.encode() + GOOD.replace("a", "ä").encode("latin-1"))
    with pytest.raises(UserError, match=r"line 2: byte .* is not UTF-8"):
        read_task(path)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        read_task(tmp_path / "t.jsonl")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory"):
        read_task(tmp_path)


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
