"""`jaxformer generate` and the evaluations of language models, on a run that the command line trained."""

import json
import shutil
import sys

import numpy as np
import pytest
from helpers.text_runs import SENTENCE, random_run, train_run, write_texts

from jaxformer import cli
from jaxformer.decoding.sampling import Sampling
from jaxformer.evaluation.fewshot import evaluate_fewshot
from jaxformer.evaluation.likelihood import perplexity
from jaxformer.inference.loaded import LoadedRun
from jaxformer.inference.writing import Generation

GREEDY = Sampling(temperature=0)
TASK = [
    {"task": "what/comes", "metric": "multiple_choice"},
    {"prompt": "the cat", "choices": ["saw", "dog"], "answer": 0},
    {"prompt": "a dog", "choices": ["in", "and"], "answer": 1},
    {"prompt": "Ann", "choices": ["saw", "and"], "answer": 1},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the trained run "language" and the run "translation"."""
    root = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(root / "cache"))
        write_texts(root / "data")
        train_run("language", root / "data", root / "language")
        random_run("translation", root / "data", root / "translation")
        shutil.rmtree(root / "data")  # nothing needs it any more
        yield root


@pytest.fixture
def run(root, tmp_path, monkeypatch):
    """A copy of a run."""
    monkeypatch.chdir(tmp_path)
    return lambda name="language": shutil.copytree(root / name, tmp_path / name)


@pytest.fixture
def said(capsys):
    """What a command line that succeeds prints to stdout."""

    def ask(*argv):
        capsys.readouterr()
        code = cli.main([str(a) for a in argv])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return ask


@pytest.fixture
def refused(capsys):
    """The message of a command line that is refused."""

    def ask(*argv):
        capsys.readouterr()
        assert cli.main([str(a) for a in argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        return err

    return ask


@pytest.fixture
def task_file(tmp_path):
    (tmp_path / "task.jsonl").write_text("".join(json.dumps(line) + "\n" for line in TASK))
    return tmp_path / "task.jsonl"


def test_one_prompt_is_streamed_with_its_text(run, said):
    folder = run()
    printed = said("generate", folder, "--prompt", "the cat", "--greedy", "--max-new-tokens", "50")
    model = LoadedRun(folder).writer
    assert model.context_length < 50
    (expected,) = model.generate([model.encode("the cat")], Generation(50, GREEDY))
    assert printed == f"the cat{expected.text}\n"
    assert len(expected.text) == 50


def test_several_prompts_are_json_lines(run, said, tmp_path):
    folder = run()
    (tmp_path / "prompts.txt").write_text("a\n\nthe dog saw the cat\n")
    argv = ("generate", folder, "--prompt", "in", "--prompts", "prompts.txt", "--samples", "2")
    lines = [json.loads(line) for line in said(*argv, "--max-new-tokens", "7", "--seed", "3").splitlines()]
    prompts = ["in", "in", "a", "a", "the dog saw the cat", "the dog saw the cat"]
    assert [line["prompt"] for line in lines] == prompts
    assert all(len(line["text"]) == line["tokens"] == 7 for line in lines)
    assert {line["ended"] for line in lines} == {"length"}
    assert lines[0]["text"] != lines[1]["text"]
    again = [json.loads(line) for line in said(*argv, "--max-new-tokens", "7", "--seed", "3").splitlines()]
    assert again == lines


def test_a_stop_string_that_never_comes_is_told(run, capsys):
    argv = ["generate", str(run()), "--prompt", "a", "--greedy", "--max-new-tokens", "5"]
    assert cli.main([*argv, "--stop", "never"]) == 0
    assert "jaxformer: none of the stop strings came in 5 tokens" in capsys.readouterr().err
    assert cli.main(argv) == 0
    whole = capsys.readouterr().out.strip("\n")
    assert cli.main([*argv, "--stop", whole[3]]) == 0
    captured = capsys.readouterr()
    assert captured.out == whole[: whole.index(whole[3], 1)] + "\n"
    assert "none of the stop strings" not in captured.err


def test_an_encoder_decoder_writes_its_text_alone(run, said):
    folder = run("translation")
    printed = said("generate", folder, "--prompt", "the cat saw", "--greedy")
    writer = LoadedRun(folder).writer
    (expected,) = writer.generate([writer.encode("the cat saw")], Generation(256, GREEDY))
    assert printed == f"{expected.text}\n"
    beam = json.loads(said("generate", folder, "--prompt", "the cat saw", "--beams", "3", "--json"))
    (expected,) = writer.generate([writer.encode("the cat saw")], Generation(256, beams=3))
    assert (beam["text"], beam["tokens"]) == (expected.text, expected.tokens)
    plain = said("generate", folder, "--prompt", "the cat saw", "--beams", "3")
    assert plain == f"{expected.text}\n"


def test_mistakes_of_generating_are_said_in_a_line(run, refused, tmp_path):
    folder = run()
    ask = ("generate", folder)
    assert "give --prompt" in refused(*ask)
    assert "--prompt 2: has 33 tokens, the model's context is 32" in refused(
        *ask, "--prompt", "a", "--prompt", "a" * 33
    )
    assert "is empty, and this tokenizer has no token that begins a text" in refused(*ask, "--prompt", "")
    assert "--prompt 1: 'é' (U+00E9)" in refused(*ask, "--prompt", "é")
    assert "--stop: expected a text, or every text would end before its first token" in refused(
        *ask, "--prompt", "a", "--stop", ""
    )
    assert "--max-new-tokens 0: expected 1 or more" in refused(*ask, "--prompt", "a", "--max-new-tokens", "0")
    assert "--samples 0: expected 1 or more" in refused(*ask, "--prompt", "a", "--samples", "0")
    assert "--temperature -1.0: expected 0" in refused(*ask, "--prompt", "a", "--temperature", "-1")
    assert "--top-k 0: expected 1 or more; leave it out to keep all tokens" in refused(
        *ask, "--prompt", "a", "--top-k", "0"
    )
    assert "--length-penalty -1.0" in refused(*ask, "--prompt", "a", "--beams", "2", "--length-penalty", "-1")
    assert "nothing.txt: cannot be read" in refused(*ask, "--prompts", "nothing.txt")
    (tmp_path / "prompts.txt").write_text("\n \n")
    assert "prompts.txt: there is no text in it; give one a line" in refused(*ask, "--prompts", "prompts.txt")
    (tmp_path / "prompts.txt").write_text("a\n\nthe é\n")
    assert "prompts.txt, line 3: 'é' (U+00E9)" in refused(*ask, "--prompts", "prompts.txt")
    assert "--checkpoint newest: expected best, latest or a step" in refused(
        *ask, "--prompt", "a", "--checkpoint", "newest"
    )
    assert "77" in refused(*ask, "--prompt", "a", "--checkpoint", "77")
    message = refused("generate", "nowhere", "--prompt", "a")
    assert message.startswith("jaxformer: nowhere: not a run's folder")


@pytest.mark.parametrize("other", [["--greedy"], ["--beams", "2"]], ids=str)
@pytest.mark.parametrize(
    "flags", [["--temperature", "0"], ["--top-k", "2"], ["--top-p", "0.5"], ["--min-p", "0.1"], ["--samples", "1"],
              ["--seed", "0"]], ids=str)  # fmt: skip
def test_flags_that_would_have_no_effect_are_refused(flags, other, refused):
    message = refused("generate", "nowhere", "--prompt", "a", *flags, *other)
    assert message == f"jaxformer: {flags[0]}: has no effect with {other[0]}; leave one of them out\n"


def test_flags_of_beam_search_are_refused_elsewhere_and_its_own_elsewhere(refused):
    ask = ("generate", "nowhere", "--prompt", "a")
    assert "--greedy: has no effect with --beams" in refused(*ask, "--greedy", "--beams", "3")
    assert "--repetition-penalty: has no effect with --beams" in refused(
        *ask, "--beams", "3", "--repetition-penalty", "1"
    )
    assert "--length-penalty: has no effect without --beams" in refused(*ask, "--length-penalty", "1")


def test_beams_without_a_token_that_ends_texts_go_to_the_last_token(run, said):
    line = json.loads(
        said("generate", run(), "--prompt", "a", "--beams", "3", "--max-new-tokens", "9", "--json")
    )
    assert (line["tokens"], len(line["text"]), line["ended"]) == (9, 9, "length")


@pytest.mark.parametrize(
    "argv",
    [
        ["generate", "language", "--prompt", "a"],
        ["predict", "translation", "--text", "a"],
        ["evaluate", "language"],
        ["perplexity", "language", "text.txt"],
    ],
    ids=" ".join,
)
def test_what_was_deleted_from_a_run_is_named_with_what_helps(argv, run, refused, tmp_path):
    (tmp_path / "text.txt").write_text("the cat")
    folder = run("translation" if "translation" in argv else "language")
    (folder / "result.json").write_text('{"status": "completed", "step": 3}')
    shutil.rmtree(folder / "checkpoints")
    remedy = "copy it from a backup, or train again in a new folder"
    if argv != ["evaluate", "language"]:  # which needs the dataset before that
        message = refused(*argv)
        assert f"{folder.name}/checkpoints: is missing or empty, and the run has ended" in message
        assert remedy in message
    (folder / "tokenizer.json").unlink()
    message = refused(*argv)
    assert f"{folder.name}/tokenizer.json: is missing" in message
    assert remedy in message


def test_fewshot_prints_the_metrics_and_writes_the_rows(run, said, task_file, tmp_path):
    folder = run()
    argv = ("fewshot", folder, task_file, "--shots", "1", "--seed", "5")
    printed = json.loads(said(*argv, "--limit", "2"))
    expected = evaluate_fewshot(LoadedRun(folder).writer, task_file, 1, 5, 2)
    rows = folder / "fewshot" / "what_comes-1.jsonl"
    assert printed["metrics"] == {name: pytest.approx(value) for name, value in expected["metrics"].items()}
    assert (printed["step"], printed["examples"], printed["rows"]) == (3, 2, str(rows))
    assert [json.loads(line)["line"] for line in rows.read_text().splitlines()] == [2, 3]
    said(*argv, "--output", tmp_path / "rows.jsonl")
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


def test_perplexity_prints_what_the_text_costs(run, said, tmp_path):
    folder = run()
    (tmp_path / "text.txt").write_text(SENTENCE)
    printed = json.loads(said("perplexity", folder, "text.txt", "--stride", "5"))
    expected = perplexity(LoadedRun(folder).writer, SENTENCE, 5)
    assert (printed.pop("step"), printed.pop("file")) == (3, "text.txt")
    assert printed == {name: pytest.approx(value) for name, value in expected.items()}
    assert printed["loss"] < np.log(100)


def test_the_harness_is_called_with_the_flags(run, said, monkeypatch, tmp_path):
    def run_harness(model, tasks, shots, limit, seed):
        sample = {"doc_id": 0, "tasks": tasks, "flags": [shots, limit, seed]}
        return {
            "results": {"capitals": {"acc,none": 0.5}},
            "samples": {"capitals": [sample]},
            "config": object(),
        }

    monkeypatch.setattr("jaxformer.evaluation.harness.run_harness", run_harness)
    argv = ("harness", run(), "a.yaml", "b.yaml", "--shots", "2", "--output", "samples.jsonl")
    printed = json.loads(said(*argv))
    assert printed == {"step": 3, "results": {"capitals": {"acc,none": 0.5}}}
    (sample,) = map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())
    assert sample == {
        "task": "capitals",
        "doc_id": 0,
        "tasks": ["a.yaml", "b.yaml"],
        "flags": [2, None, 1234],
    }


def test_mistakes_of_evaluating_are_said_in_a_line(run, refused, task_file, tmp_path, monkeypatch):
    folder = run()
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    assert 'pip install "jaxformer[eval]"' in refused("harness", folder, "task.yaml")
    ask = ("perplexity", folder)
    assert "perplexity: FILE is missing" in refused(*ask)
    assert "a.txt: cannot be read" in refused(*ask, "a.txt")
    (tmp_path / "a.txt").write_text("")
    assert "a.txt: is empty" in refused(*ask, "a.txt")
    (tmp_path / "a.txt").write_text("the cat\nsaw é")
    assert "a.txt, line 2: 'é' (U+00E9)" in refused(*ask, "a.txt")
    (tmp_path / "a.txt").write_text("the cat")
    assert "--stride 0: expected 1 or more" in refused(*ask, "a.txt", "--stride", "0")
    assert "--stride 33: expected 1 to 32" in refused(*ask, "a.txt", "--stride", "33")
    assert "perplexity: unrecognized arguments: --shots 1" in refused(*ask, "a.txt", "--shots", "1")
    ask = ("fewshot", folder)
    assert "nothing.jsonl: cannot be read" in refused(*ask, "nothing.jsonl")
    assert "4 shots need as many examples" in refused(*ask, task_file, "--shots", "4")
    assert "--shots -1: expected 0 or more" in refused(*ask, task_file, "--shots", "-1")
    (tmp_path / "file").write_text("")
    assert "cannot write there" in refused(*ask, task_file, "--output", "file/rows.jsonl")
    message = refused("fewshot", run("translation"), task_file)
    assert "holds a model (Seq2Seq) that does not go from token to token" in message


@pytest.mark.parametrize(
    ("flag", "now"),
    [
        ("--fewshot", "fewshot RUN TASK.yaml"),
        ("--perplexity", "perplexity RUN FILE"),
        ("--harness", "harness RUN TASK"),
    ],
)
def test_the_former_modes_of_evaluate_are_named(flag, now, refused):
    message = refused("evaluate", "nowhere", flag, "a.txt")
    assert f"evaluate: {flag} is a verb of its own: `jaxformer {now}`" in message


def test_the_run_may_be_a_flag_of_generate_as_it_was(run, said):
    folder = run()
    rest = ("--prompt", "the cat", "--greedy", "--max-new-tokens", "5")
    assert said("generate", "--workdir", folder, *rest) == said("generate", folder, *rest)
