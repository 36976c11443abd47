"""Pictures with captions: the arrays of a batch, what is counted, and what is refused."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer.config.schema import resolve
from jaxformer.data.batches import make_batches
from jaxformer.data.config import DataConfig
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError

TEXT, TEXTS = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
SEQ2SEQ = {"name": "bytes", "template": "seq2seq"}  # <pad> 0, <unk> 1, <s> 2, </s> 3, then the bytes
BERT = {"name": "characters", "template": "bert"}  # [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4
IGNORED = -1


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def opened(tmp_path):
    """Batches of pictures of one value each, with what each example has besides."""

    def make(examples, train=False, tokenizer=SEQ2SEQ, texts=TEXTS, data=(), **fields):
        folder = tmp_path / f"tfds{len(list(tmp_path.iterdir()))}"
        kinds = {"caption": texts, "question": texts if "question" in examples[0] else TEXT}
        kinds["label"] = tfds.features.ClassLabel(names=["cat", "dog"])
        features = {"image": tfds.features.Image(shape=(None, None, 3))}
        features |= {name: kinds[name] for name in examples[0] if name != "image"}
        stored = [{"image": png(10 * place)} | example for place, example in enumerate(examples)]
        write_dataset(folder, "pairs", "1.0.0", features, {"train": stored, "test": stored[:1]})
        errors: list[str] = []
        values = {
            "name": "pairs",
            "data_dir": str(folder),
            "batch_size": 4,
            "tokenizer": tokenizer,
        }
        values |= {"examples": {"name": "captions", "length": 8} | fields}
        config = resolve(DataConfig, values | dict(data), "data", errors)
        assert errors == []
        assert list(config.problems()) == []
        return make_batches(config, "train", seed=1, train=train)

    return make


def ids(text: str) -> list[int]:
    return [4 + byte for byte in text.encode()]


def test_captions_of_further_features_are_pairs_too(opened):
    pictures = [{"caption": ["a", "b"], "question": ["A"]}, {"caption": ["c"], "question": ["C", "D"]}]
    batches = opened(pictures, more_captions=("question",))
    source = batches.source
    assert [source.text_of(index) for index in range(len(source))] == ["a", "b", "A", "c", "C", "D"]
    assert source.captions_of(3) == ["c", "C", "D"]
    with pytest.raises(UserError, match=r"data.examples.more_captions\[0\].*'answer'"):
        opened(pictures, more_captions=("answer",))


def test_each_pair_of_a_picture_and_a_caption_is_an_example(opened):
    batches = opened([{"caption": ["ab", "c"]}, {"caption": ["c"]}, {"caption": ["d", "ab", "e"]}])
    assert (batches.num_examples, len(batches), batches.sizes) == (6, 2, {"vocab_size": 260})
    first, last = batches[0], batches[1]
    assert first["image"].shape == (4, 4, 5, 3)
    np.testing.assert_array_equal(first["image"][:, 0, 0, 0], 10 * first["picture"])
    assert first["picture"].tolist() == [0, 0, 1, 2]
    captions = np.concatenate([first["caption"], last["caption"]])[:6]
    texts = ["ab", "c", "c", "d", "ab", "e"]
    assert [(a == b) for a in captions for b in captions] == [a == b for a in texts for b in texts]
    assert [batches.source.text_of(index) for index in range(6)] == texts
    assert batches.source.captions_of(4) == ["d", "ab", "e"]
    a, b = ids("ab")
    assert first["tokens"][0].tolist() == [2, a, b, 3, 0, 0, 0, 0]
    assert first["targets"][0].tolist() == [a, b, 3, *[IGNORED] * 5]
    np.testing.assert_array_equal(first["token_mask"][0], np.arange(8) < 4)
    assert last["example_mask"].tolist() == [True, True, False, False]
    assert last["index"].tolist()[:2] == [4, 5]
    assert (last["targets"][2:] == IGNORED).all()
    assert not last["token_mask"][2:].any()
    assert {name: array.dtype for name, array in first.items()} == {
        "image": np.uint8, "token_mask": bool, "example_mask": bool,
        **dict.fromkeys(("tokens", "targets", "picture", "caption", "index"), np.int32),
    }  # fmt: skip
    truth = batches.source.truth(4)
    assert truth == {"picture": 2, "caption": last["caption"][0]}


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_training_shows_each_pair_once_an_epoch(opened, cache):
    batches = opened(
        [{"caption": ["ab", "c"]}, {"caption": ["c"]}, {"caption": ["d"]}], train=True, data={"cache": cache}
    )
    seen = [
        (int(p), int(c)) for step in range(3) for p, c in zip(*map(batches[step].get, ("picture", "caption")))
    ]
    assert sorted(seen) == sorted(3 * [(0, 0), (0, 1), (1, 1), (2, 2)])
    assert batches.sizes == {"vocab_size": 260}


def test_nothing_is_predicted_on_a_prompt_but_at_its_last_place(opened):
    examples = [{"caption": ["yes", "no"], "question": ["q", "rs"]}, {"caption": ["yes"], "question": ["rs"]}]
    batches = opened(examples, prompt_feature="question")
    batch = batches[0]
    q, y, e, s = ids("qyes")
    assert batch["tokens"][0].tolist() == [2, q, y, e, s, 3, 0, 0]
    assert batch["targets"][0].tolist() == [IGNORED, y, e, s, 3, IGNORED, IGNORED, IGNORED]
    assert [batches.source.prompt_of(index) for index in range(3)] == ["q", "rs", "rs"]
    assert batches.source.captions_of(0) == ["yes"]  # "no" answers another question


def test_one_prompt_stands_for_all_captions_of_a_picture(opened):
    batches = opened([{"caption": ["a", "b"], "question": ["q"]}], prompt_feature="question")
    assert [batches.source.prompt_of(index) for index in range(2)] == ["q", "q"]
    assert batches.source.captions_of(0) == ["a", "b"]
    with pytest.raises(UserError, match="index 0: has 3 of caption and 2 of question; each caption needs"):
        opened([{"caption": ["a", "b", "c"], "question": ["q", "r"]}], prompt_feature="question")


def test_templates_write_what_they_write(opened):
    batches = opened([{"caption": "ba"}], tokenizer=BERT, texts=TEXT)
    tokenizer = batches.tokenizer
    row = [tokenizer.cls_id, *tokenizer.encode("ba", special=False), tokenizer.sep_id]
    assert tokenizer.encode("ba") == row
    assert batches[0]["tokens"][0].tolist() == [*row, *[tokenizer.pad_id] * 4]


@pytest.mark.parametrize(("template", "start"), [("gpt", 0), ("t5", None)])
def test_without_a_template_a_text_stands_between_start_and_end(opened, template, start):
    batches = opened([{"caption": "a"}], texts=TEXT, tokenizer={"name": "bytes", "template": template})
    inside = batches.tokenizer.encode("a", special=False)
    row = [*([] if start is None else [start]), *inside, batches.tokenizer.eos_id]
    assert batches[0]["tokens"][0][: len(row)].tolist() == row
    assert batches[0]["targets"][0][: len(row)].tolist() == [*row[1:], IGNORED]
    with pytest.raises(UserError, match="captions need a token to start from"):
        opened([{"caption": "b"}], texts=TEXT, tokenizer={"name": "bytes", "template": "none"})


def test_classes_become_prompts_in_turn(opened):
    labels = [0, 1, 0, 1, 0, 1]
    prompts = ["a {}.", "{}!"]
    batches = opened([{"label": label} for label in labels], prompts=prompts, length=9)
    assert batches.sizes == {"vocab_size": 260, "num_classes": 2}
    assert batches.class_names == ["cat", "dog"]
    texts = [batches.source.text_of(index) for index in range(6)]
    assert texts == ["a cat.", "a dog.", "cat!", "dog!", "a cat.", "a dog."]
    assert batches[0]["labels"].tolist() == labels[:4]
    assert batches[0]["labels"].dtype == np.int32
    assert batches.source.captions_of(1) == ["a dog.", "dog!"]
    learnt = opened([{"label": 0}], prompts=prompts, length=9, tokenizer=BERT).tokenizer
    assert learnt.vocab_size == 5 + len(set("a cat.a dog.cat!dog!"))


def test_what_is_cut_or_there_twice_is_counted(opened):
    examples = [{"caption": ["a" * 20, "b"]}, {"caption": ["b"]}, {"caption": ["b", "b"]}, {"caption": ["c"]}]
    examples[1]["image"] = png(0)  # the same as of the first
    batches = opened(examples)
    assert batches.facts == [
        "train: 6 pairs of 4 pictures and a caption, 3.8 tokens on average",
        "train: 17% of 6 pairs were cut at 8 tokens",
        "train: 33% of 6 pairs are there before, picture and caption",
        "train: 67% of 6 pairs have a caption that other pictures have, too",
    ]
    row = batches[0]["tokens"][0]
    assert row.tolist() == [2, *ids("a" * 6), 3]


@pytest.mark.parametrize(
    ("caption", "problem"), [(["a", " "], "its caption is empty"), ([], "has no caption"), ([""], "is empty")]
)
def test_an_empty_caption_is_refused_or_left_out(opened, caption, problem):
    examples = [{"caption": ["a"]}, {"caption": caption}]
    with pytest.raises(
        UserError, match=f"dataset pairs/1.0.0, split 'train', index 1: .*{problem}; leave it out"
    ):
        opened(examples)


def test_what_is_empty_or_broken_can_be_skipped(opened, caplog):
    examples = [{"caption": ["a", ""]}, {"caption": []}, {"caption": ["b", "c"]}, {"caption": ["d"]}]
    examples[2]["image"] = b"no picture"
    batches = opened(examples, broken="skip")
    assert "train: 2 captions are empty, and left out" in batches.facts
    batch = batches[0]
    assert batch["example_mask"].tolist() == [True, False, False, True]
    assert batch["picture"].tolist() == [0, 0, 0, 3]
    assert batch["caption"][3] == batches.source.truth(3)["caption"]
    named = [record.message for record in caplog.records if "index 2: broken image" in record.message]
    assert len(named) == 1  # though it has two captions


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"caption_feature": "captoin"},
            "caption_feature: pairs/1.0.0 has no feature 'captoin'; did you mean",
        ),
        ({"caption_feature": "label"}, "is ClassLabel, not a text or a list of texts"),
        ({"prompt_feature": "question"}, "prompt_feature: pairs/1.0.0 has no feature 'question'"),
        ({"length": 2}, "length=2: special tokens alone take 2; enlarge it to 3 or more"),
        ({"prompts": ["{}"], "label_feature": "caption"}, "label_feature: 'caption' of pairs/1.0.0 is Text"),
    ],
)
def test_what_does_not_fit_is_named(opened, fields, words):
    with pytest.raises(UserError) as error:
        opened([{"caption": "a", "label": 1}], texts=TEXT, **fields)
    assert words in str(error.value)
    assert len(error.value.lines) <= 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"examples": {"name": "captions", "length": 8}}, "tokenizer: missing; examples='captions' need one"),
        ({"tokenizer": "bytes"}, "tokenizer: 'images' have no text"),
        (
            {"examples": {"name": "captions", "length": 8, "prompts": ["a cat"]}},
            "expected a text with one {}",
        ),
        (
            {"examples": {"name": "captions", "length": 8, "prompts": ["{}"], "prompt_feature": "q"}},
            "prompts make captions of classes",
        ),
    ],
)
def test_configs_that_cannot_be_are_refused(values, words):
    errors: list[str] = []
    config = resolve(DataConfig, values, "data", errors)
    assert any(words in line for line in errors or config.problems())
