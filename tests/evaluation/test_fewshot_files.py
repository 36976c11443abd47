"""Files of few-shot tasks, YAML in the harness's format and JSON lines: what they say, and what is wrong with them.

test_harness.py has the harness's figures side by side.
"""

import json
import re

import pytest
import yaml
from helpers.capitals import CHOICES, CITIES, EXAMPLES, HEADER, bigram, write

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot import evaluate_fewshot
from jaxformer.evaluation.fewshot_task import read_task


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
        ({"filter_list": []}, "capitals.yaml: filter_list: there is no key 'filter_list'"),
        ({"num_fewshot": -1}, "num_fewshot=-1: expected 0 or more"),
        ({"doc_to_text": None}, 'capitals.yaml: doc_to_text: missing; say what it is of each question, such as "Q: {{'),
        ({"doc_to_choice": None}, "capitals.yaml: doc_to_choice: missing; say what it is of each question"),
        ({"description": "{{country}}"}, "expected text, no template"),
        ({"dataset_kwargs": {"data_files": "all.jsonl"}}, "dataset_kwargs.data_files: expected keys with values, was"),
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


# Files of JSON lines.


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
        (GOOD.replace('"b", ', ""), "line 1: choices are ['c'], expected at least 2"),
        (GOOD.replace('"b"', '" "'), "line 1: choices are"),
        (GOOD.replace('"a"', "null"), "line 1: 'prompt' is None, expected text"),
        (GOOD.replace("}", ', "split": "train"}'), 'split is \'train\', expected "test" or "demo"'),
        (GOOD.replace("}", ', "split": "demo"}'), 'all lines are of split "demo"'),
        ('{"prompt": "a", "answer": 3}\n', "line 1: the answer is 3, expected the text"),
        ('{"prompt": "a", "answer": ""}\n', "line 1: the answer is '', expected the text"),
        (
            '{"task": "x", "metrics": "cloze"}\n' + GOOD,
            "line 1: metrics: there is no key 'metrics'; did you mean 'metric'",
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
