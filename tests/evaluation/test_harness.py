"""lm-evaluation-harness drives a model: what it is told, and, where it is installed, its figures on a local task."""

import itertools
import json
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bigram import Bigram, characters, random_table, words

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot import evaluate_fewshot
from jaxformer.evaluation.harness import Requests, generation, harness_model, run_harness
from jaxformer.evaluation.likelihood import encode_pair

TABLE = random_table(5)
VOCABULARY = ["a", "b", "c", ".", "<>"]
CYCLE = np.eye(5)[[1, 2, 3, 0, 1]] * 0.9 + 0.02  # a b c . a b c . ...

QUESTIONS = [("France", 0), ("Italy", 1), ("Spain", 2), ("Norway", 0), ("Malta", 2)]
CHOICES = ["Paris", "Rome", "Madrid!"]


def model(table=TABLE, context_length=8):
    return Bigram(words(VOCABULARY, eos=4), table, context_length)


def ask(*args):
    return [SimpleNamespace(args=arguments) for arguments in args]


def test_log_likelihoods():
    answers = Requests(model()).loglikelihood(ask(("ab", "ca"), ("", "b"), ("a", "")))
    expected = [TABLE[1, 2] * TABLE[2, 0], TABLE[4, 1], 1]
    np.testing.assert_allclose([math.exp(answer) for answer, _ in answers], expected, rtol=1e-6)
    cycle = Requests(model(CYCLE)).loglikelihood(ask(("a", "bc."), ("a", "bca"), ("", "bc")))
    assert [greedy for _, greedy in cycle] == [True, False, True]


def test_what_does_not_fit_loses_its_beginning(caplog):
    bigram = model(context_length=4)
    with caplog.at_level(logging.WARNING, "jaxformer"):
        Requests(bigram).loglikelihood(ask(("aabcab", "ca"), ("a", "b")))
    assert bigram.asked == [([2, 0, 1], [2, 0]), ([0], [1])]
    assert "1 of 2 requests lost their beginning: the model sees 4 tokens" in caplog.text
    with pytest.raises(UserError, match="a continuation of 5 tokens, and the model sees 4"):
        Requests(bigram).loglikelihood(ask(("a", "abcab")))


def test_rolling_log_likelihood_is_that_of_the_whole_text():
    text = "abcab.cabba.abca.."
    ids = [4, *(VOCABULARY.index(letter) for letter in text)]
    expected = sum(math.log(TABLE[a, b]) for a, b in itertools.pairwise(ids))
    for context_length in (1, 3, 8, 50):
        found = Requests(model(context_length=context_length)).loglikelihood_rolling(ask((text,), ("",)))
        assert found == [pytest.approx(expected, rel=1e-6), 0]


def test_generations_come_in_their_order(caplog):
    bigram = model(CYCLE)
    settings = [{"until": ["."], "max_gen_toks": 5}, {"until": "a", "max_gen_toks": 3}, {"until": []}]
    with caplog.at_level(logging.WARNING, "jaxformer"):
        found = Requests(bigram).generate_until(
            ask(
                ("a", settings[0]),
                ("b", settings[1]),
                ("c", settings[0]),
                ("", settings[2]),
                ("abcabcab", settings[0]),
            )
        )
    assert found == ["bc", "c.", "", "bc.a", "c"]
    assert "generations end after 4 tokens, not 256: the model sees 8" in caplog.text
    assert "1 of 3 prompts lost their beginning" in caplog.text
    assert [2, 0, 1] in bigram.asked, "8 tokens that it sees, less 5 new ones"


def test_only_greedy_decoding():
    assert generation({"until": ["x", "y"], "do_sample": False, "temperature": 0.7}) == (("x", "y"), 256)
    assert generation({"do_sample": True, "temperature": 0.0, "max_gen_toks": 3}) == ((), 3)
    for settings in ({"do_sample": True}, {"do_sample": True, "temperature": 0.5}, {"num_beams": 4}):
        with pytest.raises(UserError, match="only greedy decoding"):
            generation(settings)


def test_arguments_out_of_range():
    with pytest.raises(UserError, match="shots=-1"):
        run_harness(model(), ["x"], -1)
    with pytest.raises(UserError, match="limit=0"):
        run_harness(model(), ["x"], 0, 0)
    with pytest.raises(UserError, match="no tasks"):
        run_harness(model(), [])


def test_without_the_harness_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    monkeypatch.delitem(__import__("sys").modules, "lm_eval.api.model", raising=False)
    with pytest.raises(UserError, match=r'pip install "jaxformer\[eval\]"'):
        harness_model(model())


# With the harness itself.


@pytest.fixture(scope="module")
def lm_eval():
    pytest.importorskip(
        "lm_eval", reason='lm-evaluation-harness is not installed: pip install "jaxformer[eval]"'
    )
    import lm_eval

    return lm_eval


YAML = """
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: {kind}
test_split: test
doc_to_text: "{text}"
{more}
"""
MULTIPLE_CHOICE = """
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]
"""
ROLLING = """
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
GENERATE = """
doc_to_target: "{{question}}"
generation_kwargs: {until: ["."], do_sample: false, max_gen_toks: 8}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Writes a task and its data into an empty folder, without a network and with caches of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache", raising=False)
    data = tmp_path / "data.jsonl"
    rows = [{"question": q, "choices": CHOICES, "answer": a} for q, a in QUESTIONS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(name, kind, text, more):
        path = tmp_path / f"{name}.yaml"
        path.write_text(YAML.format(task=name, data=data, kind=kind, text=text, more=more))
        return str(path)

    return make


def letters(seed):
    tokenizer = characters([*("".join(q for q, _ in QUESTIONS)), *"".join(CHOICES), "Q: \nA"])
    return Bigram(tokenizer, random_table(tokenizer.vocab_size, seed), 1000)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "text", [r"Q: {{question}}\nA:", r"{{question}}: "], ids=["", "a space before the delimiter"]
)
def test_multiple_choice_gives_what_fewshot_gives_for_the_same_file(lm_eval, task, seed, text):
    path = task("capitals", "multiple_choice", text, MULTIPLE_CHOICE)
    found = run_harness(letters(seed), [path], 0)["results"]["capitals"]
    expected = evaluate_fewshot(letters(seed), path, 0, seed=0)["metrics"]
    for theirs, name in [("acc", ""), ("acc_norm", "_per_character"), ("acc_bytes", "_per_byte")]:
        assert found[f"{theirs},none"] == pytest.approx(expected[f"accuracy{name}"])
        assert found[f"{theirs}_stderr,none"] == pytest.approx(expected[f"accuracy{name}_stderr"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shots", [0, 4])
def test_prompts_and_likelihoods_are_the_harness_s(lm_eval, task, shots):
    """With all others as demonstrations, both prompts hold the same lines, in an order of each one's own."""
    path = task(
        "capitals", "multiple_choice", r"Q: {{question}}\nA:", MULTIPLE_CHOICE + "fewshot_split: test"
    )
    theirs = run_harness(letters(0), [path], shots)["samples"]["capitals"]
    rows = evaluate_fewshot(letters(0), path, shots)["rows"]
    by_number = {sample["doc_id"]: sample for sample in theirs}
    for number, row in enumerate(rows):
        contexts = [arguments[0] for arguments in by_number[number]["arguments"]]
        assert {tuple(sorted(c.split("\n\n"))) for c in contexts} == {
            tuple(sorted(row["context"].split("\n\n")))
        }
        assert all(c.endswith(row["context"].split("\n\n")[-1]) for c in contexts)
        found = [response[0][0] for response in by_number[number]["resps"]]
        np.testing.assert_allclose(np.array(found, float), row["log_likelihoods"], rtol=1e-6)
    assert len(rows) == len(by_number) == 5


@pytest.mark.filterwarnings("ignore")
def test_loglikelihoods_are_fewshot_s(lm_eval, task):
    more = 'doc_to_target: "{{choices[answer]}}"\nmetric_list: [{metric: acc}, {metric: perplexity}]'
    path = task("cloze", "loglikelihood", r"Q: {{question}}\nA:", more)
    found = run_harness(letters(0), [path], 0)["results"]["cloze"]
    expected = evaluate_fewshot(letters(0), path, 0)["metrics"]
    assert found["acc,none"] == expected["accuracy"]
    assert found["perplexity,none"] == pytest.approx(math.exp(-expected["log_likelihood"]), rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_shots_and_limit_reach_the_harness(lm_eval, task):
    path = task("capitals", "multiple_choice", r"Q: {{question}}\nA:", MULTIPLE_CHOICE)
    results = run_harness(letters(0), [path], 2, limit=3)
    samples = results["samples"]["capitals"]
    assert len({sample["doc_id"] for sample in samples}) == 3
    assert all(sample["arguments"][0][0].count("Q: ") == 3 for sample in samples)


@pytest.mark.filterwarnings("ignore")
def test_rolling(lm_eval, task):
    result = run_harness(letters(0), [task("rolling", "loglikelihood_rolling", "", ROLLING)], 0)
    bigram, total = letters(0), 0.0
    for question, _ in QUESTIONS:
        ids = bigram.tokenizer.encode(question, special=False)
        total += sum(math.log(bigram.table[a, b]) for a, b in itertools.pairwise(ids))
    size = sum(len(question) for question, _ in QUESTIONS)
    found = result["results"]["rolling"]
    assert found["bits_per_byte,none"] == pytest.approx(-total / size / math.log(2), rel=1e-5)
    assert found["word_perplexity,none"] == pytest.approx(math.exp(-total / 5), rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_generate_until(lm_eval, task):
    text = "Spain."
    tokenizer = characters(["".join(q for q, _ in QUESTIONS) + ".:"])
    ids = tokenizer.encode(":" + text, special=False)
    table = np.full((tokenizer.vocab_size,) * 2, 0.01)
    table[ids[:-1], ids[1:]] = 0.9
    result = run_harness(
        Bigram(tokenizer, table), [task("spell", "generate_until", "{{question}}:", GENERATE)], 0
    )
    assert result["results"]["spell"]["exact_match,none"] == 1 / 5


@pytest.mark.filterwarnings("ignore")
def test_unknown_tasks_and_missing_files(lm_eval, task, tmp_path):
    with pytest.raises(UserError, match=r"hellaswg: .* did you mean 'hellaswag'"):
        run_harness(letters(0), ["hellaswg"])
    with pytest.raises(UserError, match=r"none.yaml: there is no such task file"):
        run_harness(letters(0), [str(tmp_path / "none.yaml")])
    path = task("capitals", "multiple_choice", "{{question}}", MULTIPLE_CHOICE)
    (tmp_path / "data.jsonl").unlink()
    with pytest.raises(UserError, match=r"capitals.yaml: its data are not there .*data.jsonl"):
        run_harness(letters(0), [path])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: capitals", "task: [", "ParserError"),
        ("task: capitals", "name: capitals", "Unknown config shape"),
        ("test_split: test", "test_split: valid", "KeyError: 'valid'"),
        ("{{choices}}", "{{options}}", "'options' is undefined"),
        ("output_type:", "output_typo:", "unexpected keyword argument 'output_typo'"),
    ],
)
def test_mistakes_in_task_files(lm_eval, task, tmp_path, old, new, message):
    path = task("capitals", "multiple_choice", "{{question}}", MULTIPLE_CHOICE)
    content = (tmp_path / "capitals.yaml").read_text()
    (tmp_path / "capitals.yaml").write_text(content.replace(old, new))
    with pytest.raises(UserError, match=rf"capitals.yaml: lm-evaluation-harness cannot load .*{message}"):
        run_harness(letters(0), [path])


def test_tokens_are_parted_as_the_harness_parts_them(lm_eval):
    """Wherever no token lies across the border."""
    from lm_eval.api.model import TemplateLM

    tokenizer = words(["The", " cat", "cat", " ", "\n", ":", " sat", "sat"])
    theirs = SimpleNamespace(backend="causal", tok_encode=tokenizer.encode)
    for pair in [
        ("The", " cat"),
        ("The ", "cat"),
        ("The cat: ", "sat"),
        ("The\n", "cat sat"),
        ("The", "cat"),
    ]:
        assert TemplateLM._encode_pair(theirs, *pair) == encode_pair(tokenizer, *pair)


@pytest.mark.parametrize("stride", [1, 2, 5, 8])
def test_windows_are_the_harness_s(lm_eval, stride):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    from jaxformer.evaluation.likelihood import windows

    for length in range(1, 40):
        tokens = list(range(length))
        theirs = get_rolling_token_windows(tokens, -1, max_seq_len=8, context_len=9 - stride)
        sequence = [-1, *tokens]
        ours = [(sequence[a:b], sequence[b:c]) for a, b, c in windows(length + 1, 8, stride)]
        assert ours == [make_disjoint_window(window) for window in theirs]
