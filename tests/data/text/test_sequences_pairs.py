"""Texts with labels and translations: what rows hold, buckets, and what is said of bad data."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformer.errors import UserError

BERT = {"name": "characters", "template": "bert"}
SEQ2SEQ = {"name": "bytes", "template": "seq2seq"}  # <pad> 0, <unk> 1, <s> 2, </s> 3, then the bytes
T5 = {"name": "bytes", "template": "t5"}  # <pad> 0, </s> 1, <unk> 2


def text(batches, ids) -> str:
    return batches.tokenizer.decode(ids, skip_special=False)


def test_rows_are_encoded_with_their_template(written, batches):
    folder = written(train=[{"text": "ab", "label": 1}, {"text": "b", "label": 0}, {"text": "", "label": 1}])
    made = batches(
        data_dir=folder,
        tokenizer=BERT,
        examples={"name": "sequences", "length": 6, "features": ["text"]},
        train=False,
    )
    batch = made[0]
    pad, cls, sep = made.tokenizer.pad_id, made.tokenizer.cls_id, made.tokenizer.sep_id
    a, b = made.tokenizer.encode("ab", special=False)
    assert batch["tokens"].tolist() == [
        [cls, a, b, sep, pad, pad],
        [cls, b, sep, pad, pad, pad],
        [cls, sep, pad, pad, pad, pad],
        [pad] * 6,
    ]
    np.testing.assert_array_equal(batch["token_mask"], batch["tokens"] != pad)
    assert not batch["token_types"].any()
    assert batch["labels"].tolist() == [1, 0, 1, 0]
    assert batch["labels"].dtype == np.int32
    assert batch["example_mask"].tolist() == [True, True, True, False]
    assert made.class_names == ["bad", "good"]
    assert made.sizes == {"vocab_size": 7, "num_classes": 2}


def test_of_two_texts_the_longer_is_cut_first_and_counted(written, batches):
    folder = written(train=[{"text": "a" * 20, "other": "b"}, {"text": "a", "other": "b"}])
    values = {"name": "sequences", "length": 8, "features": ["text", "other"], "label_feature": "score"}
    made = batches(data_dir=folder, tokenizer=BERT, examples=values, train=False)
    batch = made[0]
    assert text(made, batch["tokens"][0]) == "[CLS]aaaa[SEP]b[SEP]"
    assert batch["token_types"][0].tolist() == [0] * 6 + [1] * 2
    assert batch["token_types"][1].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert batch["labels"].dtype == np.float32
    assert "train: 50% of 2 examples were cut at 8 tokens" in made.facts
    assert "num_classes" not in made.sizes


def test_texts_may_have_no_labels(written, batches):
    values = {"name": "sequences", "length": 8, "features": ["text"], "label_feature": None}
    assert "labels" not in batches(data_dir=written(train=["a", "b"]), examples=values)[0]


@pytest.mark.parametrize(("tokenizer", "start", "end", "shift"), [(SEQ2SEQ, 2, 3, 4), (T5, 0, 1, 3)])
def test_translations_are_shifted_by_one(written, batches, tokenizer, start, end, shift):
    folder = written(train=[{"text": "abc", "other": "xy"}, {"text": "a" * 9, "other": "y" * 9}])
    values = {"name": "pairs", "length": 6, "source_feature": "text", "target_feature": "other"}
    made = batches(data_dir=folder, tokenizer=tokenizer, examples=values, train=False, eval_batch_size=2)
    batch = made[0]
    x, y, a, b, c = (ord(letter) + shift for letter in "xyabc")
    opening = [start] if tokenizer is SEQ2SEQ else []  # the template of T5 has no start
    row = [*opening, a, b, c, end]
    assert batch["tokens"][0].tolist() == row + [0] * (6 - len(row))
    assert batch["token_mask"][0].sum() == len(row)
    assert batch["decoder_tokens"][0].tolist() == [start, x, y, 0, 0, 0]
    assert batch["targets"][0].tolist() == [x, y, end, -1, -1, -1]
    assert batch["tokens"][1, -1] == end
    assert batch["decoder_tokens"][1].tolist() == [start, y, y, y, y, y]
    assert batch["targets"][1].tolist() == [y, y, y, y, y, end]
    assert "train: 50% of 2 pairs were cut at 6 tokens" in made.facts


def test_pairs_need_a_start_and_an_end(written, batches):
    values = {"name": "pairs", "length": 6, "source_feature": "text", "target_feature": "other"}
    folder = written(train=["a"])
    for tokenizer in ({"name": "bytes"}, {"name": "bytes", "template": "bert"}):
        with pytest.raises(UserError, match=r"'pairs' need .* template='seq2seq'"):
            batches(data_dir=folder, tokenizer=tokenizer, examples=values)


def random_texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list("abc"), size)) for size in rng.integers(1, 40, count)]


@pytest.mark.parametrize("kind", ["sequences", "pairs"])
def test_buckets_show_every_example_once_in_few_shapes(written, batches, kind):
    texts = random_texts(331)
    examples = [{"text": one, "other": other} for one, other in zip(texts, (one[::-1] for one in texts))]
    folder = written(train=examples)
    settings = {"name": kind, "length": 42}
    if kind == "pairs":
        settings |= {"source_feature": "text", "target_feature": "other"}
    else:
        settings |= {"features": ["text"]}
    values = {
        "data_dir": folder,
        "tokenizer": SEQ2SEQ,
        "examples": settings,
        "batch_size": 8,
        "read_threads": 2,
    }
    made = batches(**values, buckets=[8, 16, 24], seed=3)
    shown = []
    widths = set()
    with made.read(0, stop=166) as reader:  # four epochs
        for step, batch in enumerate(reader):
            width = batch["tokens"].shape[1]
            widths.add(width)
            needed = batch["token_mask"].sum(1)
            if kind == "pairs":
                needed = np.maximum(needed, (batch["targets"] >= 0).sum(1))
            assert width == next(w for w in (8, 16, 24, 42) if w >= needed.max())
            shown += [text(made, row[mask]) for row, mask in zip(batch["tokens"], batch["token_mask"])]
            if step in (0, 40, 41, 165):
                halves = [made.local(step, index, 2) for index in range(2)]
                for key in batch:
                    np.testing.assert_array_equal(np.concatenate([half[key] for half in halves]), batch[key])
    assert widths == {8, 16, 24, 42}
    epochs = [sorted(shown[start : start + 331]) for start in range(0, 4 * 331, 331)]
    assert all(epoch == epochs[0] for epoch in epochs[: len(shown) // 331])
    assert len(set(epochs[0])) > 300
    plain = batches(**values, seed=3)

    def padding(made) -> int:
        return int(next(fact for fact in made.facts if "padding" in fact).split()[1].rstrip("%"))

    assert padding(made) < 0.6 * padding(plain)


def test_an_evaluation_with_buckets_tells_which_example_a_row_is(written, batches):
    texts = random_texts(50)
    values = {"name": "sequences", "length": 42, "features": ["text"]}
    made = batches(
        data_dir=written(train=texts),
        tokenizer=SEQ2SEQ,
        examples=values,
        batch_size=8,
        buckets=[8, 16],
        train=False,
    )
    found = {}
    for batch in made:
        for row in np.flatnonzero(batch["example_mask"]):
            found[int(batch["index"][row])] = made.tokenizer.decode(batch["tokens"][row])
    assert [found[index] for index in range(50)] == texts
    assert [batch["tokens"].shape[1] for batch in made] == sorted(b["tokens"].shape[1] for b in made)


def test_mixtures_are_for_training_and_share_a_tokenizer(written, batches):
    folder = written("one", train=["aaaa"] * 40, test=["aa"] * 3)
    written("two", train=["bbbb"] * 400)
    values = {
        "name": "one",
        "data_dir": folder,
        "tokenizer": "characters",
        "examples": {"name": "windows", "length": 4},
        "mixture": [{"name": "two", "weight": 0.25}],
        "batch_size": 10,
    }
    made = batches(**values)
    assert made.sizes == {"vocab_size": 2}
    assert made.num_examples == pytest.approx(40 * 1.25, abs=1)
    shares = [(made[step]["tokens"] == 1).mean() for step in range(20)]
    assert np.mean(shares) == pytest.approx(0.2, abs=0.01)
    assert made.facts[-1] == "mixed in the ratio 1 : 0.25"
    assert batches("test", train=False, **values).num_examples == 2


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (
            {"features": ["txt"]},
            "data.examples.features[0]: written/1.0.0 has no feature 'txt'; did you mean 'text'?",
        ),
        (
            {"features": ["text", "score"]},
            "data.examples.features[1]: 'score' of written/1.0.0 is Scalar, not a text",
        ),
        (
            {"features": ["text"], "label_feature": "lable"},
            "data.examples.label_feature: written/1.0.0 has no feature 'lable'; did you mean 'label'?",
        ),
        (
            {"features": ["text"], "label_feature": "other"},
            "'other' of written/1.0.0 is Text, not a single number",
        ),
        ({"features": ["text"], "length": 3}, None),
        (
            {"features": ["text"], "length": 2},
            "data.examples.length=2: special tokens alone take 2; enlarge it",
        ),
    ],
)
def test_what_does_not_fit_is_named(written, batches, examples, words):
    folder = written(train=["a"])
    values = {
        "data_dir": folder,
        "tokenizer": BERT,
        "examples": {"name": "sequences", "length": 8} | examples,
    }
    if words is None:
        batches(**values)
        return
    with pytest.raises(UserError) as error:
        batches(**values)
    assert words in str(error.value)


def test_labels_that_are_no_class_are_named(written, batches):
    features = {"text": tfds.features.Text(), "label": tfds.features.Scalar(np.int64)}
    folder = written(features=features, train=[{"text": "a", "label": 0}, {"text": "b", "label": -1}])
    values = {"name": "sequences", "length": 8, "features": ["text"]}
    with pytest.raises(UserError, match=r"split 'train', index 1: its label is -1, not a class, from 0 on"):
        batches(data_dir=folder, examples=values)


def test_configs_of_text_are_checked(batches):
    from jaxformer.config.schema import resolve
    from jaxformer.data.config import DataConfig

    def problems(**values) -> str:
        errors: list[str] = []
        resolve(DataConfig, values, "data", errors)
        return "\n".join(errors)

    sequences = {"name": "sequences", "length": 32}
    windows = {"name": "windows", "length": 32}
    assert "data.tokenizer: missing; examples='windows' need one" in problems(examples=windows)
    assert "data.tokenizer: 'images' have no text" in problems(tokenizer="bytes")
    assert "data.examples.length=1: expected at least 2 tokens" in problems(
        examples=windows | {"length": 1}, tokenizer="bytes"
    )
    assert "rows of 'windows' are all of one length" in problems(
        examples=windows, tokenizer="bytes", buckets=[8]
    )
    for buckets in ([16, 8], [8, 8], [1, 8], [8, 32]):
        assert "expected rising lengths" in problems(examples=sequences, tokenizer="bytes", buckets=buckets)
    assert problems(examples=sequences, tokenizer="bytes", buckets=[8, 16]) == ""
    assert "transforms[0]=Flip: is made for images" in problems(
        examples=windows, tokenizer="bytes", transforms=["flip"]
    )
    assert "transforms[0]=MaskTokens: is made for text" in problems(transforms=["mask_tokens"])
    assert "mixture: 'images' cannot be mixed" in problems(mixture=[{"name": "a", "weight": 1.0}])
    assert "data.mixture[0].weight=0.0: expected more than 0" in problems(
        mixture=[{"name": "a", "weight": 0.0}]
    )


def test_text_has_no_contact_sheet(tmp_path, written):
    from jaxformer.data.config import DataConfig
    from jaxformer.data.kinds.windows import Windows
    from jaxformer.importing import contact_sheet

    config = DataConfig(name="written", data_dir=written(train=["a"]), examples=Windows(8))
    with pytest.raises(UserError, match="'windows' have no images to draw"):
        contact_sheet(config, "train", tmp_path / "sheet.png")
