"""Back-translation with two runs: what comes out, going on where it was stopped, and what is refused."""

import json
import shutil
from unittest.mock import ANY

import pytest
from helpers import text_runs

from jaxformer import cli
from jaxformer.data.batches import make_batches
from jaxformer.data.config import DataConfig
from jaxformer.data.kinds.sequences import Sequences
from jaxformer.data.records import Records
from jaxformer.data.text.paraphrases import BackTranslate, read_paraphrases
from jaxformer.data.text.tokenizer_training import Characters
from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.inference import back_translation
from jaxformer.inference.back_translation import (
    BackTranslation,
    check_runs,
    translations,
    write_paraphrases,
)
from jaxformer.inference.writing import Continuation, Generation

DRAWN = Generation(1000, Sampling(temperature=1.0))
LETTERS = {"name": "characters", "template": "seq2seq"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the dataset "tiny" and random runs: "there" from text to other, "back", and one of classes."""
    root = tmp_path_factory.mktemp("runs")
    task, model, examples, _, monitor = text_runs.RUNS["translation"]
    turned = {**examples, "source_feature": "other", "target_feature": "text"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(root / "cache"))
        patch.setitem(text_runs.RUNS, "there", (task, model, examples, LETTERS, monitor))
        patch.setitem(text_runs.RUNS, "back", (task, model, turned, LETTERS, monitor))
        text_runs.write_texts(root / "data")
        for name in ("there", "back", "classes"):
            text_runs.random_run(name, root / "data", root / name)
        yield root


@pytest.fixture
def ask(root, tmp_path, capsys, monkeypatch):
    """Exit code, stdout and stderr of `data back-translate`, with flags that may be replaced."""
    monkeypatch.setattr(back_translation, "CHUNK", 6)
    flags = {
        "--data-dir": root / "data",
        "--feature": "text",
        "--forward": root / "there",
        "--backward": root / "back",
        "--output": tmp_path / "made.jsonl",
    }

    def run(*argv, name="tiny", **changes):
        given = flags | {f"--{key.replace('_', '-')}": value for key, value in changes.items()}
        words = [str(word) for flag in given.items() if flag[1] is not None for word in flag]
        capsys.readouterr()
        code = cli.main(["data", "back-translate", name, *words, *map(str, argv)])
        return code, *capsys.readouterr()

    return run


def test_paraphrases_of_a_split_are_written_and_trained_on(root, ask, tmp_path):
    made = tmp_path / "made.jsonl"
    asked = ("--samples", 4, "--temperature", 4, "--split", "train[:12]")
    code, out, err = ask(*asked)
    assert code == 0, err
    records = Records(DataConfig(name="tiny", data_dir=str(root / "data")), "train[:12]")
    texts = [records.text(record, "text", 0) for record in records.read(range(12))]
    table = read_paraphrases(made)
    assert list(table) == list(dict.fromkeys(texts))
    count, changed = sum(map(len, table.values())), sum(map(bool, table.values()))
    assert count > changed > 2  # most texts are too long for these runs
    assert all(text not in found and len(set(found)) == len(found) <= 4 for text, found in table.items())
    assert f"made.jsonl: {count} paraphrases of {changed} texts; texts without any" in out
    assert f"came back): {len(table) - changed}\n" in out
    assert list(tmp_path.iterdir()) == [made]
    before = made.read_bytes(), made.stat().st_mtime_ns
    assert ask(*asked) == (0, out, ANY)  # all is there
    assert (made.read_bytes(), made.stat().st_mtime_ns) == before

    batches = make_batches(
        DataConfig(
            name="tiny",
            data_dir=str(root / "data"),
            train_split="train[:12]",
            batch_size=6,
            examples=Sequences(64, ("text",)),
            tokenizer=Characters("bert"),
            transforms=(BackTranslate(str(made)),),
        ),
        "train[:12]",
        seed=0,
        train=True,
    )
    seen = {
        batches.tokenizer.decode(row[mask])
        for step in range(10)
        for row, mask in zip(batches[step]["tokens"], batches[step]["token_mask"])
    }
    paraphrases = {text for found in table.values() for text in found}
    assert seen <= {*table, *paraphrases}
    assert seen & paraphrases
    assert seen & {*table}


def test_a_file_that_was_made_in_another_way_is_left_alone(ask, tmp_path):
    for name in ("made.jsonl", "made.jsonl.part"):
        path = tmp_path / name
        path.write_text('{"text": "a", "paraphrases": ["b"]}\n')
        code, _, err = ask()
        assert code == 2
        assert (
            f"{name}: is there already, and was made of other texts, by other runs or in another way" in err
        )
        assert path.read_text() == '{"text": "a", "paraphrases": ["b"]}\n'
        path.unlink()


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        (
            {"forward": "classes"},
            [],
            "classes: its task is TextClassification; name a run with task.name='transl",
        ),
        ({"backward": "classes"}, [], "classes: its task is TextClassification"),
        (
            {"backward": "there"},
            [],
            "goes from 'text' to 'other', as ",
        ),
        ({"forward": "data"}, [], "data: not a run's folder"),
        ({"feature": "words"}, [], "--feature: 'words' of tiny/1.0.0 is Sequence, not a text"),
        ({"feature": "txt"}, [], "--feature: tiny/1.0.0 has no feature 'txt'; did you mean 'text'"),
        ({"feature": None}, [], "tiny/1.0.0: has the texts "),
        ({"name": "a/b/c"}, [], "a/b/c: no dataset can be called that"),
        ({"name": "tiny?"}, [], "dataset 'tiny?' is not prepared"),
        ({}, ["--split", "dev"], "dev"),
        ({}, ["--samples", 0], "--samples 0: expected 1 or more"),
        ({}, ["--beams", 0], "--beams 0: expected 1 or more"),
        ({}, ["--beams", 2, "--temperature", 1], "--temperature 1.0: --beams draws nothing; leave one out"),
        ({}, ["--beams", 2, "--samples", 2], "--samples 2: would all be the same"),
        ({}, ["--temperature", 0, "--samples", 2], "--samples 2: would all be the same"),
        ({}, ["--temperature", -1], "--temperature -1.0: expected 0"),
        ({}, ["--checkpoint", 9], "checkpoint"),
    ],
)
def test_bad_input_is_said_in_a_line_or_two(root, ask, tmp_path, changes, flags, message):
    runs = {key: root / value for key, value in changes.items() if key in ("forward", "backward")}
    code, out, err = ask(*flags, **changes | runs)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(root, ask, tmp_path):
    (tmp_path / "taken").write_text("")
    code, _, err = ask(output=tmp_path / "taken" / "made.jsonl")
    assert code == 2
    assert "cannot write there" in err


# With writers that are tables


class Fixed:
    """Writes what a table says; a text that ends in an ellipsis was cut off."""

    context_length = 9

    def __init__(self, table):
        self.table, self.asked = table, []

    def encode(self, text):
        if "?" in text:
            raise UserError("'?' is not in the vocabulary")
        return [ord(character) for character in text]

    def generate(self, prompts, how):
        texts = ["".join(map(chr, ids)) for ids in prompts]
        self.asked.append((how, texts))
        for text in texts:
            written = self.table[text]
            yield Continuation(written, len(written), "length" if written.endswith("...") else "end of text")


def test_what_cannot_be_read_or_does_not_end_is_no_translation():
    writer = Fixed({"a": "b ", "c": "d...", "123456789": "e"})
    texts = ["a", None, "c", "  ", "123456789", "1234567890", "a?"]
    assert translations(writer, texts, DRAWN) == ["b", None, None, None, "e", None, None]
    assert writer.asked == [(DRAWN, ["a", "c", "123456789"])]


def test_repeats_and_the_text_itself_are_no_paraphrases():
    there = Fixed({"a film": "ein Film", "so": "so", "no": " "})
    back = Fixed({"ein Film": " a movie ", "so": "so "})
    by = BackTranslation(there, back, DRAWN, samples=2)
    assert by.paraphrases(["a film", "so", "no"], 0) == [["a movie"], [], []]
    assert there.asked[0][1] == ["a film", "a film", "so", "so", "no", "no"]
    by.paraphrases(["a film"], 1)
    seeds = {how.seed for how, _ in there.asked + back.asked}
    assert len(seeds) == 4, "each translation of each chunk draws anew"


class Numbered:
    """Stands for a BackTranslation: its paraphrases say which chunk they are of."""

    def __init__(self):
        self.chunks = []

    def paraphrases(self, texts, number):
        self.chunks.append(number)
        return [[f"{text}\u2028{number}"] for text in texts]


@pytest.mark.parametrize(
    ("cut", "chunks"), [(0, [0, 1, 2]), (1, [0, 1, 2]), (3, [0, 1, 2]), (9, [1, 2]), (12, [1, 2]), (16, [2])]
)
def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch, cut, chunks):
    """In the middle of a line: chunks that are not whole are made again."""
    monkeypatch.setattr(back_translation, "CHUNK", 6)
    made, texts = tmp_path / "made.jsonl", [f"t\u00e4xt {number}" for number in range(16)]
    by = Numbered()
    assert list(write_paraphrases(made, {"seed": 1}, texts, by)) == [0, 6, 12, 16]
    assert by.chunks == [0, 1, 2]
    whole = made.read_bytes()
    made.unlink()
    lines = whole.splitlines(keepends=True)
    torn = lines[cut].removesuffix(b"\n")[: 11 if cut else -1]  # in the middle of a character
    if cut:
        (tmp_path / "made.jsonl.part").write_bytes(b"".join(lines[:cut]) + torn)
    by = Numbered()
    assert list(write_paraphrases(made, {"seed": 1}, texts, by))[-1] == 16
    assert by.chunks == chunks
    assert made.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [made]
    with pytest.raises(UserError, match="was made of other texts"):
        list(write_paraphrases(made, {"seed": 2}, texts, by))
    assert list(write_paraphrases(made, {"seed": 1}, texts, by)) == [16]


def test_runs_of_another_dataset_may_call_their_sides_alike(root, tmp_path):
    """Two imports of pairs both have a source and a target: only runs on the same data tell the direction."""
    folder = shutil.copytree(root / "there", tmp_path / "elsewhere")
    config = json.loads((folder / "config.json").read_text())
    config["config"]["data"]["name"] = "turned"
    (folder / "config.json").write_text(json.dumps(config))
    check_runs(root / "there", folder)
