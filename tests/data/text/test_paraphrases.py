"""Back-translation as a transform: which paraphrase a text gets, and files with mistakes."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformer.config import schema
from jaxformer.data.batches import make_batches
from jaxformer.data.config import DataConfig
from jaxformer.data.kinds.sequences import Sequences
from jaxformer.data.text.augment import RandomSwap
from jaxformer.data.text.paraphrases import BackTranslate, read_paraphrases
from jaxformer.data.text.tokenizer_training import Characters
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError

TABLE = {
    "a good film": ["a fine movie", "a good movie"],
    "no good": ["bad"],
    "no good at all, they said": ["all bad, so they said"],
    "it is what it is": [],
}
LETTERS = Characters("bert").build(
    lambda: iter([*TABLE, *(text for found in TABLE.values() for text in found), "xyz"])
)


def write(path, table=TABLE, header=True):
    made = [json.dumps({"back_translation": {"seed": 0}})] if header else []
    lines = [json.dumps({"text": text, "paraphrases": found}) for text, found in table.items()]
    path.write_text("\n".join([*made, *lines]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "paraphrases.jsonl")


def example(first, second=None, length=None):
    """Tokens as `Sequences` has them: [CLS] first [SEP], perhaps second [SEP]; the first text cut to fit."""
    more = [] if second is None else [*LETTERS.encode(second, special=False), LETTERS.sep_id]
    body = LETTERS.encode(first, special=False)
    if length is not None:
        body = body[: length - 2 - len(more)]
    tokens = np.array([LETTERS.cls_id, *body, LETTERS.sep_id, *more], np.int32)
    types = np.arange(len(tokens)) >= len(tokens) - len(more)
    mask = np.ones(len(tokens), bool)
    return {"tokens": tokens, "token_mask": mask, "token_types": types.astype(np.int32), "labels": 1}


def texts_of(result):
    parts = result["tokens"].tolist()[1:-1]
    cut = parts.index(LETTERS.sep_id) if LETTERS.sep_id in parts else len(parts)
    return LETTERS.decode(parts[:cut]), LETTERS.decode(parts[cut + 1 :])


def test_a_text_gets_each_of_its_paraphrases_as_often_as_the_probability_says(file):
    transform = BackTranslate(file, probability=0.6).bind(LETTERS, max_length=40)
    rng, found = np.random.default_rng(0), []
    for _ in range(3000):
        result = transform(example("a good film"), rng)
        found.append(texts_of(result)[0])
        assert len({len(result[key]) for key in ("tokens", "token_mask", "token_types")}) == 1
        assert result["token_mask"].all()
    shares = {text: found.count(text) / 3000 for text in set(found)}
    assert set(shares) == {"a good film", "a fine movie", "a good movie"}
    assert shares["a good film"] == pytest.approx(0.4, abs=0.04)
    assert shares["a fine movie"] == pytest.approx(0.3, abs=0.04)


def test_a_text_without_paraphrases_stays(file):
    transform = BackTranslate(file, probability=1.0).bind(LETTERS, max_length=40)
    whole = example("it is what it is")
    assert transform(whole, np.random.default_rng(0)) is whole


def test_only_the_first_of_a_pair_is_replaced(file):
    transform = BackTranslate(file, probability=1.0).bind(LETTERS, max_length=60)
    result = transform(example("no good", "a good film"), np.random.default_rng(0))
    assert texts_of(result) == ("bad", "a good film")
    assert result["token_types"].tolist() == [0] * 5 + [1] * 12


def test_a_text_that_was_cut_is_known_by_its_beginning_and_a_whole_one_by_all_of_it(file):
    transform = BackTranslate(file, probability=1.0).bind(LETTERS, max_length=16)
    cut = example("no good at all, they said", length=16)
    assert texts_of(cut)[0] == "no good at all"
    assert texts_of(transform(cut, np.random.default_rng(0)))[0] == "all bad, so th"
    assert texts_of(transform(example("no good"), np.random.default_rng(0)))[0] == "bad"
    with pytest.raises(UserError, match="has no line for the text 'no goo'"):
        transform(example("no goo"), np.random.default_rng(0))


def test_a_text_that_is_not_in_the_file_stops_or_stays(file):
    unknown = example("a good")
    with pytest.raises(
        UserError, match=r"back_translate: .*paraphrases\.jsonl has no line for the text 'a good'"
    ) as error:
        BackTranslate(file).bind(LETTERS, max_length=40)(unknown, np.random.default_rng(0))
    assert "unknown='keep'" in error.value.lines[1]
    keeping = BackTranslate(file, unknown="keep", probability=1.0).bind(LETTERS, max_length=40)
    assert keeping(unknown, np.random.default_rng(0)) is unknown
    empty = example("")
    assert keeping(empty, np.random.default_rng(0)) is empty


def test_it_is_for_labels_of_whole_texts(file):
    tagged = {**example("no good"), "labels": np.zeros(9, np.int32)}
    with pytest.raises(UserError, match="BackTranslate: moves words, so the examples' labels"):
        BackTranslate(file).bind(LETTERS)(tagged, np.random.default_rng(0))


def test_texts_that_a_tokenizer_does_not_tell_apart_share_their_paraphrases(tmp_path):
    path = write(tmp_path / "p.jsonl", {"?": ["a"], "!": ["b"]}, header=False)  # both unknown
    transform = BackTranslate(path, probability=1.0).bind(LETTERS)
    found = {texts_of(transform(example("!"), np.random.default_rng(seed)))[0] for seed in range(20)}
    assert found == {"a", "b"}


# In batches


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["bad", "good"])}
    rows = [{"text": text, "label": index % 2} for index, text in enumerate([*TABLE] * 4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(folder / "cache"))
        write_dataset(folder, "words", "1.0.0", features, {"train": rows})
        yield str(folder)


def batches(folder, transforms, **changes):
    fields = {
        "name": "words",
        "data_dir": folder,
        "batch_size": 8,
        "examples": Sequences(32, ("text",)),
        "tokenizer": Characters("bert"),
        "transforms": transforms,
        **changes,
    }
    return make_batches(DataConfig(**fields), "train", seed=3, train=True)


def shown(made, step):
    batch = made[step]
    return [made.tokenizer.decode(row[mask]) for row, mask in zip(batch["tokens"], batch["token_mask"])]


@pytest.mark.parametrize("buckets", [(), (20,)])
def test_batches_have_whole_paraphrases_and_are_functions_of_the_step(dataset, tmp_path, buckets):
    """Also longer ones than the text, as far as the batch is wide."""
    longer = {text: [f"{text}, so"] for text in TABLE}
    path = write(tmp_path / "p.jsonl", longer | {"it is what it is": []})
    made = batches(dataset, (BackTranslate(path, 0.5),), buckets=buckets)
    again = batches(dataset, (BackTranslate(path, 0.5),), buckets=buckets)
    found = [text for step in range(8) for text in shown(made, step)]
    paraphrases = {f"{text}, so" for text in TABLE} - {"it is what it is, so"}
    whole = {*TABLE, *paraphrases}
    assert paraphrases <= set(found) <= whole
    assert [text for step in (5, 2) for text in shown(again, step)] == shown(made, 5) + shown(made, 2)


def test_a_file_of_other_texts_is_said_before_training(dataset, tmp_path):
    path = write(tmp_path / "p.jsonl", {"so": ["is"]})
    with pytest.raises(UserError, match="has no line for the text"):
        batches(dataset, (BackTranslate(path),))
    closed = {"tokenizer": Characters("gpt")}
    path = write(tmp_path / "z.jsonl", {"zoo": ["is"]})
    with pytest.raises(UserError, match=r"z\.jsonl: text: 'z' .* is not in the vocabulary") as error:
        batches(dataset, (BackTranslate(path),), **closed)
    assert "of other texts than the dataset's" in error.value.lines[1]


def test_words_are_not_moved_before_it(dataset, file):
    with pytest.raises(UserError, match="leave no transform of words before this one"):
        shown(batches(dataset, (RandomSwap(1.0), BackTranslate(file))), 0)
    made = batches(dataset, (BackTranslate(file), RandomSwap(1.0)))
    assert len(shown(made, 0)) == 8


# Files


def test_a_header_is_optional_and_blank_lines_are_passed_over(tmp_path):
    expected = {text: tuple(found) for text, found in TABLE.items()}
    for header in (True, False):
        path = tmp_path / "p.jsonl"
        write(path, header=header)
        path.write_text(path.read_text() + "\n\n")
        assert read_paraphrases(path) == expected


LINE = '{"text": "a", "paraphrases": ["b"]}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINE + LINE, "line 2: 'a' has a line already; join them"),
        (LINE + "nothing", "line 2: not JSON"),
        (LINE + '{"text": "b"}', "line 2: is not a text with its paraphrases"),
        (LINE + '{"text": 3, "paraphrases": ["b"]}', "line 2: is not a text"),
        (LINE + '{"text": "b", "paraphrases": ["c", 3]}', "line 2: is not a text"),
        (LINE + '{"text": "b", "paraphrases": [" "]}', "line 2: is not a text"),
        (LINE + '{"back_translation": {}}', "line 2: is not a text"),
        (b"\xff", "p.jsonl, line 1: byte 0 (0xff) is not UTF-8"),
    ],
)
def test_mistakes_in_files(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_paraphrases(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_file_without_paraphrases_is_refused(tmp_path):
    for table in ({}, {"a": []}):
        with pytest.raises(UserError, match=r"p\.jsonl: holds no paraphrases; make it with"):
            BackTranslate(write(tmp_path / "p.jsonl", table)).bind(LETTERS)


def test_values_that_cannot_work_are_said(file, tmp_path):
    assert list(schema.problems(BackTranslate(file))) == []
    assert [*schema.problems(BackTranslate("/nowhere.jsonl", 0.0))] == [
        'path="/nowhere.jsonl": expected a file that is there; make it with `jaxformer data back-translate`',
        "probability=0.0: expected more than 0, and at most 1",
    ]
    with pytest.raises(UserError, match="cannot be read"):
        read_paraphrases(tmp_path)
