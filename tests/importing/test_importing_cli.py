"""`jaxformer data import` of text files: what it prints, and how it answers to mistakes."""

import subprocess
import sys

import pytest
from helpers.importing_cases import write

from jaxformer import cli
from jaxformer.importing.formats import FORMATS
from jaxformer.verbs.data import DataImport
from jaxformer.verbs.options import parse


@pytest.fixture
def run(tmp_path, capsys):
    """Runs `data import` and gives the exit code, what it printed, and its messages."""

    def importing(*argv) -> tuple[int, str, str]:
        where = ["--data-dir", tmp_path / "tfds", "--name", "mine"]
        code = cli.main([str(word) for word in ("data", "import", *argv, *where)])
        captured = capsys.readouterr()
        return code, captured.out.replace(f"{tmp_path}/", ""), captured.err.replace(f"{tmp_path}/", "")

    return importing


@pytest.mark.parametrize(
    ("argv", "files", "printed"),
    [
        (
            ["text", "a.txt", "--test-share", "0.5", "--unit", "line"],
            {"a.txt": "one\ntwo\n"},
            "train: 1, test: 1\ndata.name='mine' has the features text, path\n",
        ),
        (
            ["csv", "a.csv", "--label", "y", "--text", "t", "--classes", "b, a", "--test-share", "0"],
            {"a.csv": "t,u,y\nx,w,a\nx,w,b\n"},
            "train: 2; 2 classes\ndata.name='mine' has the features t, y\nleft out: columns 'u'\n",
        ),
        (
            ["jsonl", "a.jsonl", "--label", "y", "--regression", "--skip-broken", "--test-share", "0"],
            {"a.jsonl": '{"t": "x", "y": 1}\n{"t": "x"}\n'},
            "train: 1\ndata.name='mine' has the features t, y\nleft out: a.jsonl, line 2: has no column 'y'\n",
        ),
        (
            ["pairs", "a.en", "a.de"],
            {"a.en": "1\n2\n3\n4\n5\n", "a.de": "1\n2\n3\n4\n5\n"},
            "train: 4, test: 1\ndata.name='mine' has the features en, de\n",
        ),
        (
            ["conll", "a.conll", "--columns", "2,1", "--test-share", "0"],
            {"a.conll": "I-X a\nO b\n"},
            "train: 1; 2 classes\ndata.name='mine' has the features tokens, tags\n"
            "changed: 1 tag I-X at the beginning of an entity, to B-X (IOB1 to BIO)\n",
        ),
        (
            ["squad", "a.json", "--test-share", "0"],
            {
                "a.json": '{"data": [{"paragraphs": [{"context": "abc", "qas": [{"id": "1", "question": "?", '
                '"answers": [{"text": "b", "answer_start": 1}]}]}]}]}'
            },
            "train: 1\ndata.name='mine' has the features id, title, context, question, answers\n",
        ),
        (
            ["squad", "a.json", "--test-share", "0", "--answerable"],
            {
                "a.json": '{"data": [{"paragraphs": [{"context": "abc", "qas": [{"id": "1", "question": "?", '
                '"answers": [{"text": "b", "answer_start": 1}]}, {"id": "2", "question": "?", "answers": [], '
                '"is_impossible": true}]}]}]}'
            },
            "train: 1\ndata.name='mine' has the features id, title, context, question, answers\n"
            "left out: 1 question without an answer\n",
        ),
        (
            ["csv", "a.csv", "--test-share", "0"],
            {"a.csv": "t,label\nx,a\ny,b\n"},
            "train: 2\ndata.name='mine' has the features t, label\n"
            "column 'label' is kept as text; give --label to make it the label\n",
        ),
    ],
)
def test_every_kind_says_what_it_made(run, tmp_path, argv, files, printed):
    for name, content in files.items():
        write(tmp_path / name, content)
    code, out, messages = run(*(tmp_path / word if word in files else word for word in argv))
    assert (code, messages) == (0, "")
    assert out == f"tfds/mine/1.0.0: {printed}"


def test_a_long_list_of_what_was_left_out_is_cut(run, tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\n" + "none\n" * 1030)
    code, out, _ = run("pairs", path, "--skip-broken")
    assert code == 0
    assert len(out.splitlines()) == 24
    assert "of 1 example no share of 0.2 can be held out; take a larger --test-share, or more examples" in out
    assert out.endswith("a.tsv, line 21: has 0 tabs; expected one, between two texts\nleft out: 1,010 more\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["text", "nowhere.txt"], "nowhere.txt: there is no such folder or file"),
        (
            ["text", "a.csv", "--label", "y"],
            "--label: is for csv, jsonl, parquet, not for text; leave it out",
        ),
        (["images", "a.csv", "--unit", "line"], "--unit: is for text, not for images"),
        (["images", "a.csv", "b.csv"], "b.csv: is one source too many; images come from one folder or CSV"),
        (["csv", "a.csv", "--regression"], "--regression: is about the label, and there is none"),
        (["csv", "a.csv", "--label", "z"], "a.csv: has no column 'z', which --label names; there are: t, y"),
        (["conll", "a.csv", "--columns", "1"], "--columns 1: expected two numbers, as in 1,4"),
        (["conll", "a.csv", "--columns", "a"], "--columns a: expected two numbers, as in 1,4"),
        (["conll", "a.csv", "--columns", "1,2,3"], "--columns 1,2,3: expected two numbers, as in 1,4"),
        (["words", "a.csv"], "KIND: 'words' is not a choice"),
    ],
)
def test_mistakes_are_answered_with_code_2(run, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, "t,y\nx,1\n")
    code, out, messages = run(*argv)
    assert (code, out) == (2, "")
    assert message in messages
    assert not (tmp_path / "tfds").exists()


def test_the_command_line_knows_every_format():
    for kind in FORMATS:
        assert parse("data import", DataImport, [kind, "x", "--name", "y"]).kind == kind


def test_a_disk_that_fills_up_is_said_in_a_line_and_nothing_is_left(tmp_path):
    """By the size that the system lets a file have; array_record says so in a RuntimeError."""
    rows = "".join(f"{number} {'word ' * 40},a{number % 2}\n" for number in range(2000))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}")
    limits = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
    code = f"{limits}\nfrom jaxformer.__main__ import main\nmain()"
    words = ["data", "import", "csv", tmp_path / "a.csv", "--name", "mine", "--label", "label"]
    words += ["--data-dir", tmp_path / "made"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jaxformer: ")
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "made").exists()
