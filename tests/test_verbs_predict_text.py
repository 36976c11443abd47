"""`jaxformer predict` for runs of text: what the model itself says, from the run's folder alone."""

import io
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text_runs import LABELS, RUNS, TAGS, random_run, write_texts

from jaxformer import cli
from jaxformer.config.schema import load
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.inference.loaded import LoadedRun
from jaxformer.runs import Run
from jaxformer.tasks import TASKS

TEXTS = ["the cat saw", "a dog and the dog saw a cat in Oslo"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Makes runs, each when it is first asked for."""
    root = tmp_path_factory.mktemp("text")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(root / "cache"))
        write_texts(root / "data")

        def make(name):
            if name not in made:
                made[name] = random_run(name, root / "data", root / name)
                if name == "classes":
                    assert cli.main(["evaluate", str(made[name])]) == 0
            return made[name]

        yield make


@pytest.fixture
def run(runs, tmp_path, monkeypatch):
    """A copy of a run, and nothing else: neither its dataset nor the cache is there."""
    monkeypatch.chdir(tmp_path)

    def copy(name, dataset=False):
        folder = shutil.copytree(runs(name), tmp_path / name)
        if not dataset:
            about = json.loads((folder / "config.json").read_text())
            about["config"]["data"]["data_dir"] = str(tmp_path / "nowhere")
            (folder / "config.json").write_text(json.dumps(about))
        return folder

    return copy


@pytest.fixture
def lines(capsys):
    """The JSON lines that a command line prints that succeeds."""

    def ask(*argv):
        capsys.readouterr()
        code = cli.main(["predict", *map(str, argv)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return ask


@pytest.fixture
def refused(capsys):
    """The message of a command line that is refused."""

    def ask(*argv):
        capsys.readouterr()
        assert cli.main(["predict", *map(str, argv)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        return err

    return ask


def outputs_of(folder, ids, types=None):
    """The model's outputs for one text alone, without any padding."""
    trained = LoadedRun(folder)
    types = np.zeros(len(ids), int) if types is None else types
    arrays = (jnp.array([row], jnp.int32) for row in (ids, types))
    tokens, token_types = arrays
    return jax.jit(trained.model.apply)(trained.variables, tokens, token_types=token_types).logits[0]


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return weights / weights.sum(-1, keepdims=True)


def test_classes_have_the_names_that_the_evaluation_wrote(run, lines, tmp_path):
    folder = run("classes")
    (tmp_path / "more.txt").write_text(f"{TEXTS[1]}\r\n\n{TEXTS[0]}\n")
    found = lines(folder, "--text", TEXTS[0], "--top", "2", "more.txt")
    assert [line["text"] for line in found] == [TEXTS[0], TEXTS[1], TEXTS[0]]
    assert found[0] == found[2]
    written = (folder / "predictions" / "predictions.jsonl").read_text()
    assert [json.loads(line) for line in written.splitlines()] == found
    tokenizer = LoadedRun(folder).tokenizer
    for line in found[:2]:
        expected = softmax(outputs_of(folder, tokenizer.encode(line["text"])))
        order = np.argsort(-expected)[:2]
        assert [p["index"] for p in line["predictions"]] == order.tolist()
        assert [p["label"] for p in line["predictions"]] == [LABELS[index] for index in order]
        np.testing.assert_allclose(
            [p["probability"] for p in line["predictions"]], expected[order], atol=1e-5
        )


def test_classes_have_the_names_of_the_folder_or_the_dataset_or_numbers(run, lines, refused):
    folder = run("classes", dataset=True)
    (folder / "evaluation.json").unlink()
    config, data = folder / "config.json", folder / "data.json"
    there, known = config.read_text(), json.loads(data.read_text())
    elsewhere = json.loads(there)
    elsewhere["config"]["data"]["data_dir"] = "nowhere"
    config.write_text(json.dumps(elsewhere))

    def labels():
        (line,) = lines(folder, "--text", TEXTS[0])
        return {p["label"] for p in line["predictions"]}

    assert labels() == set(LABELS)
    known["evaluation"]["class_names"] = None
    data.write_text(json.dumps(known))
    assert labels() == {"0", "1", "2"}
    data.unlink()  # as of a run of an earlier version
    assert "dataset 'tiny' is not prepared" in refused(folder, "--text", TEXTS[0])
    config.write_text(there)
    assert labels() == set(LABELS)


def test_pairs_of_texts_get_a_number(run, lines, refused, monkeypatch):
    folder = run("pairs")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"the cat\tthe dog\n")))
    first, second = lines(folder, "--text", "a dog\tAnn saw", "-", "--output", "elsewhere")
    assert first["texts"] == ["a dog", "Ann saw"]
    assert second["texts"] == ["the cat", "the dog"]
    assert not (folder / "predictions").exists()
    encoding = LoadedRun(folder).tokenizer.hf.encode("a dog", "Ann saw")
    expected = outputs_of(folder, encoding.ids, encoding.type_ids)
    assert first["value"] == pytest.approx(float(expected[0]), abs=1e-4)
    assert "--text 1: has 0 tabs; this model takes two texts" in refused(folder, "--text", "one")


def test_words_get_the_tag_of_their_first_token(run, lines):
    folder = run("tags", dataset=True)
    long = " ".join(["Oslo"] * 30)
    words = ["thesaw", "Osloand", "thes", "dogs", "sawn", "Oslo", "saws", "cata"]
    short, cut = lines(folder, "--text", "  ".join(words), "--text", long)
    assert short["words"] == words
    encoding = LoadedRun(folder).tokenizer.hf.encode(words, is_pretokenized=True)
    tags = np.argmax(outputs_of(folder, encoding.ids), axis=-1)
    assert short["tags"] == [TAGS[tags[encoding.word_ids.index(word)]] for word in range(len(words))]
    last = {word: TAGS[tag] for word, tag in zip(encoding.word_ids, tags)}
    assert short["tags"] != [last[word] for word in range(len(words))]  # other pieces have other tags
    there = sum(tag is not None for tag in cut["tags"])
    assert len(cut["tags"]) == 30
    assert 0 < there < 24
    assert cut["tags"][there:] == [None] * (30 - there)


def test_masks_get_the_likeliest_tokens(run, lines, refused):
    folder = run("masks")
    text = "the [MASK] saw a [MASK]"
    one, two = lines(folder, "--text", "[MASK] cat", "--text", text, "--top", "3")
    assert (len(one["masks"]), len(two["masks"])) == (1, 2)
    tokenizer = LoadedRun(folder).tokenizer
    ids = tokenizer.encode(text)
    expected = softmax(outputs_of(folder, ids)[np.array(ids) == tokenizer.mask_id])
    for mask, row in zip(two["masks"], expected):
        order = np.argsort(-row)[:3]
        assert [filler["index"] for filler in mask] == order.tolist()
        np.testing.assert_allclose([filler["probability"] for filler in mask], row[order], atol=1e-5)
        assert mask[0]["token"] == tokenizer.decode([order[0]], skip_special=False)
    assert "--text 1: there is no [MASK] in it" in refused(folder, "--text", "the cat")


def test_questions_get_answers_out_of_all_windows(run, lines, refused, tmp_path):
    folder = run("questions")
    context = " ".join(f"the {word} saw Ann in Oslo and a dog" for word in ("cat", "dog", "Oslo", "a"))
    (tmp_path / "context.txt").write_text(context)
    asked = {"question": "the cat", "context": "a dog saw the cat"}
    (tmp_path / "more.jsonl").write_text(json.dumps(asked) + "\n")
    first, second = lines(
        folder, "--question", "what saw", "--context-file", "context.txt", "more.jsonl", "--top", "3"
    )
    assert (first["question"], second["question"]) == ("what saw", "the cat")
    for line, text in ((first, context), (second, asked["context"])):
        assert len(line["answers"]) == 3
        assert line["answer"] == line["answers"][0]["text"] == text[line["start"] : line["end"]]
        assert line["answer"] in text
        scores = [answer["score"] for answer in line["answers"]]
        assert scores == sorted(scores, reverse=True)

    # The short one is one window: the best start and end among the context's tokens, by hand.
    encoding = LoadedRun(folder).tokenizer.hf.encode(asked["question"], asked["context"])
    logits = np.asarray(outputs_of(folder, encoding.ids, encoding.type_ids))
    inside = [i for i, part in enumerate(encoding.sequence_ids) if part == 1]
    score, start, end = max((logits[i, 0] + logits[j, 1], i, j) for i in inside for j in inside if i <= j)
    assert second["score"] == pytest.approx(float(score), abs=1e-4)
    assert (second["start"], second["end"]) == (encoding.offsets[start][0], encoding.offsets[end][1])

    assert "needs the text that answers it" in refused(folder, "--question", "what")
    assert "needs a question about it" in refused(folder, "--context-file", "context.txt")
    assert "this run answers questions" in refused(folder, "--text", "what")
    assert "there is no question" in refused(folder)
    (tmp_path / "broken.jsonl").write_text('{"question": "what"}\n')
    assert "broken.jsonl, line 1: expected texts under both keys" in refused(folder, "broken.jsonl")


def test_translations_are_those_of_generate(run, lines, capsys):
    folder = run("translation")
    found = lines(folder, "--text", TEXTS[0], "--text", TEXTS[1])
    prompts = [part for text in TEXTS for part in ("--prompt", text)]
    capsys.readouterr()
    assert cli.main(["generate", str(folder), *prompts, "--beams", "2"]) == 0
    generated = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert [line["translation"] for line in found] == generated


def test_several_words_that_name_no_file_are_a_text(run, lines, tmp_path):
    folder = run("classes")
    (tmp_path / "the dog saw").write_text("the cat saw a dog\n")
    found = lines(folder, "the cat saw", tmp_path / "the dog saw", "--text", "Ann")
    assert [line["text"] for line in found] == ["the cat saw", "Ann", "the cat saw a dog"]


def test_what_a_run_does_not_take_is_said(run, refused, tmp_path):
    folder = run("classes")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    assert "there is no text" in refused(folder)
    assert "there is no text" in refused(folder, "empty.txt")
    for given in ("missing.txt", "the_cat_saw", "the cat saw.txt", "the_cat_saw" * 100):
        message = refused(folder, given)
        assert "there is no such file; what is no file, but a text itself, stands behind --text" in message
        assert given[:11] in message
        assert len(message) < 400
    assert "a text itself, stands behind --question" in refused(run("questions"), "what comes after cat")
    assert "latin.txt, line 2: is not UTF-8" in refused(folder, "latin.txt")
    assert "cat.png: " in refused(folder, "cat.png")
    assert "holds a model of text; give files of one text a line" in refused(folder, tmp_path)
    assert "--question, --context-file: are for runs that answer questions" in refused(
        folder, "--question", "why"
    )
    assert "--skip-broken: is for images" in refused(folder, "--text", "a", "--skip-broken")
    assert "--top 0: expected 1 or more" in refused(folder, "--text", "a", "--top", "0")
    assert "--text 1: has half a surrogate pair" in refused(folder, "--text", "a\udcff")
    assert "unrecognized arguments: --nonsense" in refused(folder, "--nonsense")
    (folder / "file").write_text("")
    assert "file: cannot write there" in refused(folder, "--text", "a", "--output", folder / "file")
    message = refused(run("language"), "--text", "the")
    assert "it learns to go on with texts" in message
    assert "use generate to continue texts" in message


def test_every_task_over_texts_is_tried_here():
    tried = {load(TASKS[task]) for task, *_ in RUNS.values()}
    assert tried == {task for task in map(load, TASKS.values()) if task.modality == "text"}


def test_the_remedy_for_a_damaged_tokenizer_works(run, refused, lines):
    folder = run("classes", dataset=True)
    file = folder / "tokenizer.json"
    whole = file.read_text()
    config = Run.open(folder).read_config()
    for damaged in ("", whole[: len(whole) // 2]):
        file.write_text(damaged)
        message = refused(folder, "--text", "the cat")
        assert "tokenizer.json: no tokenizer can be read from it\n" in message
        assert "copy it from a backup" in message
        experiment = Experiment(config)
        with pytest.raises(UserError) as error:
            Run(folder).keep_data(experiment.train_data, experiment.eval_data)
        assert error.value.lines[1] == "delete it, and the same command writes it anew"
        file.unlink()
        Run(folder).keep_data(experiment.train_data, experiment.eval_data)
        assert file.read_text() == whole
        assert len(lines(folder, "--text", "the cat")) == 1
