"""Windows and packed documents: every token is a target exactly once."""

import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxformer.data.kinds.documents import DocumentRows, Documents, best_fit, cut
from jaxformer.data.kinds.windows import WindowRows, Windows
from jaxformer.data.text.cache import Entry
from jaxformer.data.text.rows import share, stream
from jaxformer.errors import UserError

TEXTS = st.lists(st.text(alphabet="abcdefgh", max_size=40), min_size=1, max_size=12)


class FakeRecords:
    """Documents without a dataset."""

    name, split = "fake/1.0.0", "train"

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def groups(self):
        yield 0, self.texts

    def text(self, record, feature, index) -> str:
        return record

    def digest(self) -> str:
        return repr(self.texts)


def tokenizer(template: str = "none"):
    from jaxformer.data.text.tokenizer_training import Bytes

    return Bytes(template).build(lambda: iter(()))


def open_rows(kind, settings, texts, template):
    """Opens rows with a cache that is gone afterwards (hypothesis runs a test many times in one)."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", folder)
        assert not list(Path(folder).iterdir())
        return kind(settings, FakeRecords(texts), tokenizer(template))


def every_row(rows) -> dict[str, np.ndarray]:
    return rows.gather(np.arange(len(rows)), rows.length)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, length=st.integers(2, 17), template=st.sampled_from(["none", "gpt"]))
def test_every_token_but_the_first_is_a_windows_target_once(texts, length, template):
    end = [0] if template == "gpt" else []  # <|endoftext|> is token 0 of "gpt", and bytes follow
    joined: list[int] = []
    for number, text in enumerate(texts):
        joined += (end if number else []) + [byte + len(end) for byte in text.encode()]
    if len(joined) < 2:
        with pytest.raises(UserError, match=f"has {len(joined)} tokens?: a target needs two"):
            open_rows(WindowRows, Windows(length), texts, template)
        return
    rows = open_rows(WindowRows, Windows(length), texts, template)
    batch = every_row(rows)
    assert batch["tokens"].shape == batch["targets"].shape == (len(rows), length)
    real = batch["targets"].reshape(-1) != -1
    assert batch["targets"].reshape(-1)[real].tolist() == joined[1:]
    assert batch["tokens"].reshape(-1)[real].tolist() == joined[:-1]
    assert not real[real.sum() :].any()
    assert (batch["tokens"].reshape(-1)[~real] == 0).all()


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, length=st.integers(2, 17), template=st.sampled_from(["none", "gpt"]))
def test_every_token_but_a_documents_first_is_a_packed_target_once(texts, length, template):
    end = [0] if template == "gpt" else []
    documents = [[byte + len(end) for byte in text.encode()] + end for text in texts]
    pairs = Counter()  # (token, target) of every place that there has to be
    for document in documents:
        pairs.update(pairwise(document))
    if not pairs:
        with pytest.raises(UserError, match="no document has two tokens"):
            open_rows(DocumentRows, Documents(length), texts, template)
        return
    batch = every_row(open_rows(DocumentRows, Documents(length), texts, template))
    real = batch["targets"] != -1
    assert Counter(zip(batch["tokens"][real].tolist(), batch["targets"][real].tolist())) == pairs
    np.testing.assert_array_equal(real, batch["segment_ids"] > 0)
    pieces = []
    for row in range(len(real)):
        segments = batch["segment_ids"][row]
        count = segments.max()
        assert segments[segments > 0].tolist() == sorted(segments[segments > 0].tolist())
        for segment in range(1, count + 1):
            place = np.flatnonzero(segments == segment)
            assert (np.diff(place) == 1).all()
            assert batch["positions"][row, place].tolist() == list(range(len(place)))
            tokens, targets = batch["tokens"][row, place].tolist(), batch["targets"][row, place].tolist()
            assert tokens[1:] == targets[:-1]  # inside a piece, a target is the next place's token
            pieces.append((*tokens, targets[-1]))
    expected = [
        tuple(document[start : start + length + 1])
        for document in documents
        for start in range(0, len(document) - 1, length)
    ]
    assert Counter(pieces) == Counter(expected)


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=60), capacity=st.just(12))
def test_packing_is_best_fit_decreasing(sizes, capacity):
    row_of, rows = best_fit(np.asarray(sizes), capacity)
    loads = np.bincount(row_of, weights=sizes, minlength=rows)
    assert loads.max() <= capacity
    assert loads.min() > 0
    # The textbook algorithm, one by one.
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [n for n, room in enumerate(rooms) if room >= size]
        if fitting:
            rooms[min(fitting, key=lambda n: rooms[n])] -= size
        else:
            rooms.append(capacity - size)
    assert sorted(capacity - load for load in loads) == sorted(rooms)


def test_packing_is_tight_and_quick():
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.geometric(1 / 300, 300_000), 1024)
    row_of, rows = best_fit(sizes, 1024)
    assert sizes.sum() / (rows * 1024) > 0.99
    assert np.bincount(row_of, weights=sizes).max() <= 1024


def test_long_documents_are_cut_into_pieces():
    document, begin, size = cut(np.asarray([5, 0, 8, 3]), 4)
    assert document.tolist() == [0, 0, 2, 2, 3]
    assert begin.tolist() == [0, 4, 0, 4, 0]
    assert size.tolist() == [4, 1, 4, 4, 3]


def test_shakespeare_by_characters(prepared, batches):
    folder = prepared("tiny_shakespeare")
    values = {
        "name": "tiny_shakespeare",
        "data_dir": folder,
        "tokenizer": "characters",
        "examples": {"name": "windows", "length": 64},
        "batch_size": 12,
    }
    train = batches(**values)
    assert train.sizes == {"vocab_size": 65}  # Karpathy's char-rnn and nanoGPT: 65 characters
    assert train.num_examples == 15_686  # ceil((1,003,854 - 1) / 64)
    batch = train[7]
    assert batch["tokens"].shape == (12, 64)
    np.testing.assert_array_equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
    evaluation = batches("validation", train=False, **values)
    first = evaluation[0]
    assert evaluation.tokenizer.decode(first["tokens"][0]).startswith("?\n\nGREMIO:\nGood morrow, neighbour")
    assert first["index"].tolist() == list(range(12))
    assert evaluation.sizes == {"vocab_size": 65}  # learnt from train, whatever is opened


def test_a_stream_has_document_boundaries():
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", folder)
        entry = stream(FakeRecords(["ab", "", "c"]), "text", tokenizer("gpt"))
    assert isinstance(entry, Entry)
    assert entry.arrays["ids"].dtype == np.uint16
    assert entry.arrays["offsets"].tolist() == [0, 3, 4, 6]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"examples": {"name": "windows", "length": 8, "feature": "txet"}},
            "data.examples.feature: written/1.0.0 has no feature 'txet'; did you mean 'text'?",
        ),
        (
            {"examples": {"name": "documents", "length": 8, "feature": "label"}},
            "'label' of written/1.0.0 is ClassLabel, not a text; features that are: other, text",
        ),
        ({"split": "empty"}, "split 'empty' of written/1.0.0 has no examples"),
    ],
)
def test_what_is_not_in_a_dataset_is_named(written, batches, values, words):
    folder = written(train=["hello", "there"], empty=[])
    with pytest.raises(UserError) as error:
        batches(**{"data_dir": folder, "examples": {"name": "windows", "length": 8}} | values)
    assert words in str(error.value)


def test_text_that_is_not_utf8_is_named(written, batches):
    folder = written(train=["fine", b"caf\xe9"])
    with pytest.raises(UserError, match=r"split 'train', index 1: its text is not UTF-8 \(.* at byte 3\)"):
        batches(data_dir=folder, examples={"name": "windows", "length": 8})


def test_a_character_that_is_not_in_the_vocabulary_is_named(written, batches):
    folder = written(train=["abc"], test=["cab", "xyz"])
    values = {"data_dir": folder, "tokenizer": "characters", "examples": {"name": "windows", "length": 2}}
    with pytest.raises(UserError, match=r"split 'test', index 1: text: .*'x'"):
        batches("test", train=False, **values)


def test_shares_are_said_as_people_read_them():
    said = [share(part, 12_000) for part in (12_000, 11_999, 1_234, 600, 41, 1, 0)]
    assert said == ["100%", "100%", "10%", "5%", "0.34%", "0.0083%", "0%"]
    assert share(0, 0) == "0%"
