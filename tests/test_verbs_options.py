"""Verbs are classes of options: what is parsed, what is refused, and what the help says."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from jaxformer import cli
from jaxformer.config import schema
from jaxformer.config.fields import PositiveInt, length
from jaxformer.config.reference import field_docs
from jaxformer.errors import UserError
from jaxformer.verbs import VERBS
from jaxformer.verbs.options import COMMAS, Names, OfRun, argument, flag, in_flags, parse


@dataclass(frozen=True, kw_only=True)
class Paint(OfRun):
    """Paint what a run sees.

    More about it.
    """

    files: tuple[Path, ...] = argument("FILE")
    """What to paint."""
    how: Literal["oil", "ink"] = "oil"
    """The colours, 100% pure."""
    coats: PositiveInt | None = None
    size: Annotated[tuple[int, ...], COMMAS, length(2)] | None = None
    names: Names | None = None
    tag: tuple[str, ...] = ()
    thin: bool = False
    frame: Path | bool | None = None
    kind: float = flag(0.5, "K", "--class")

    def problems(self):
        if self.thin and self.coats:
            yield f"coats={self.coats}: not with --thin"


WORDS = [
    "runs/a", "--coats", "2", "x.png", "--size", "3,4", "--names", "a,,b", "--tag", "u", "--tag", "v", "y.png",
    "--frame", "--class", "2",
]  # fmt: skip


def test_every_kind_of_option_is_parsed():
    made = parse(
        "paint",
        Paint,
        WORDS,
    )
    assert made == Paint(
        run=Path("runs/a"),
        files=(Path("x.png"), Path("y.png")),
        coats=2,
        size=(3, 4),
        names=("a", "", "b"),
        tag=("u", "v"),
        frame=True,
        kind=2.0,
    )
    assert parse("paint", Paint, ["r", "f", "--frame", "wood"]).frame == Path("wood")
    assert parse("paint", Paint, ["r", "f"]) == Paint(run=Path("r"), files=(Path("f"),))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "paint: give the run first: `jaxformer paint RUN FILE`"),
        ("--run r f", "paint: give the run first: `jaxformer paint RUN FILE`"),
        ("r", "paint: FILE is missing"),
        ("r f --nope", "paint: unrecognized arguments: --nope"),
        ("r f --coa 1", "paint: unrecognized arguments: --coa 1"),
        ("r f --coats 0", "--coats 0: expected 1 or more"),
        ("r f --coats many", "--coats: expected int, was given 'many' (str)"),
        ("r f --how inq", "--how: 'inq' is not a choice; did you mean 'ink'?"),
        ("r f --size 1", "--size [1]: expected 2 entries"),
        ("r f --size a,b", "--size: expected int, was given 'a' (str)"),
        ("r f --class x", "--class: expected float, was given 'x' (str)"),
        ("r f --checkpoint newest", "--checkpoint newest: expected best, latest or a step"),
        ("r f --coats", "paint: argument --coats: expected one argument"),
        ("r f --thin --coats 2", "--coats 2: not with --thin"),
        ("r f --config.seed=1", "--config.seed=1: `paint` reads the run's own config"),
    ],
)
def test_what_cannot_be_is_refused(argv, message):
    with pytest.raises(UserError) as error:
        parse("paint", Paint, argv.split())
    assert error.value.lines[0].startswith(message)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("predict RUN *", "INPUT"),
        ("predict * a.png", "RUN"),
        ("predict RUN a.png --output *", "--output"),
        ("predict RUN --question q --context-file *", "--context-file"),
        ("generate RUN --prompts *", "--prompts"),
        ("perplexity RUN *", "FILE"),
        ("train --config vit_digits --workdir *", "--workdir"),
        ("data list --data-dir *", "--data-dir"),
        ("data import images * --name q", "SOURCE"),
        ("data tokenizer train * --kind bpe", "NAME"),
    ],
)
def test_an_empty_name_of_a_file_is_refused(argv, named, capsys):
    """As of a variable of the shell that is not set: it would be the working directory."""
    assert cli.main([word.replace("*", "") for word in argv.split()]) == 2
    assert capsys.readouterr().err.startswith(f"jaxformer: {named}: expected ")


def test_everything_wrong_is_said_at_once():
    with pytest.raises(UserError) as error:
        parse("paint", Paint, ["r", "f", "--coats", "0", "--how", "ilk"])
    assert len(error.value.lines) == 2


def test_help_has_the_documentation_of_the_fields(capsys):
    with pytest.raises(SystemExit) as left:
        parse("paint", Paint, ["--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Paint what a run sees." in shown
    assert "More about it" not in shown
    assert "RUN FILE [FILE ...]" in shown
    assert "FILE What to paint" in shown
    assert "--how oil|ink The colours, 100% pure (default: oil)" in shown
    assert "--class K" in shown


def test_a_field_of_a_message_becomes_its_flag():
    assert in_flags(Paint, "coats=3: is too much") == "--coats 3: is too much"
    assert in_flags(Paint, 'how="oil": is dear') == "--how oil: is dear"
    assert in_flags(Paint, "kind: is unknown") == "--class: is unknown"
    assert in_flags(Paint, "files[1]=a.png: is broken") == "FILE a.png: is broken"
    assert in_flags(Paint, "run: is gone") == "RUN: is gone"
    assert in_flags(Paint, "coats 3: is too much") == "--coats 3: is too much"
    assert in_flags(Paint, "a.png: give `coats`, or `thin=True`") == "a.png: give --coats, or --thin"
    for line in ("width=3: expected 4", "coats are thick", "`width=3` is small", "a.png: cannot be read"):
        assert in_flags(Paint, line) == line


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_documents_itself(name):
    cls = cli.verb_class(name)
    docs = field_docs(cls)
    assert set(schema.config_fields(cls)) <= set(docs)
    assert cls.__doc__.split("\n")[0][0].isupper()


@pytest.mark.parametrize("name", VERBS)
def test_what_reads_a_run_takes_it_first(name):
    fields = list(schema.config_fields(cli.verb_class(name)))
    assert "run" not in fields or fields[0] == "run"


def test_a_users_own_class_is_found_in_the_working_directory(tmp_path):
    """The console script does not put the working directory on sys.path, nor does `python -P`."""
    (tmp_path / "mine.py").write_text(
        'from jaxformer.models.vit import ViT\n\n\nclass MyViT(ViT):\n    """A ViT of my own."""\n'
    )
    root = str(Path(__file__).parent.parent)
    argv = ["describe", "--config", "vit_digits", "--config.model.name=mine:MyViT", "--no-compile"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jaxformer", *argv],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root, "TFDS_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "MyViT" in done.stdout
