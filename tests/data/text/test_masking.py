"""Masked tokens: how many, which, and what becomes of them."""

import numpy as np
import pytest

from jaxformer.data.text.masking import MaskTokens
from jaxformer.data.text.tokenizer_training import Bytes, Characters, Trained
from jaxformer.data.text.tokenizers import FromFile
from jaxformer.errors import UserError

BERT = {"name": "bytes", "template": "bert"}  # [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then 256 bytes


def test_fifteen_in_a_hundred_are_chosen_and_80_10_10_of_them_are_masked_replaced_kept():
    transform = MaskTokens().bind(Bytes("bert").build(lambda: iter(())))
    rng = np.random.default_rng(0)
    count = 200_000
    tokens = rng.integers(5, 261, count).astype(np.int32)
    made = transform({"tokens": tokens, "targets": tokens}, rng)
    chosen = made["targets"] != -1

    def close(found: float, share: float, of: int) -> None:
        assert abs(found / of - share) < 4 * np.sqrt(share * (1 - share) / of)  # four standard deviations

    close(chosen.sum(), 0.15, count)
    np.testing.assert_array_equal(made["targets"][chosen], tokens[chosen])
    np.testing.assert_array_equal(made["tokens"][~chosen], tokens[~chosen])
    after, before, total = made["tokens"][chosen], tokens[chosen], int(chosen.sum())
    close((after == 4).sum(), 0.8, total)
    close((after == before).sum(), 0.1 + 0.1 / 256, total)
    replaced = after[(after != 4) & (after != before)]
    close(len(replaced), 0.1 * 255 / 256, total)
    assert replaced.min() >= 5
    assert np.unique(replaced).size == 256
    np.testing.assert_array_equal(tokens, np.random.default_rng(0).integers(5, 261, count))  # untouched


def test_special_tokens_and_padding_are_never_chosen(written, batches):
    folder = written(train=["abc", "a", "", "abcdefgh"] * 5)
    values = {
        "data_dir": folder,
        "tokenizer": BERT,
        "examples": {"name": "sequences", "length": 10, "features": ["text"]},
    }
    made = batches(**values, transforms=[{"name": "mask_tokens", "share": 1.0}], batch_size=20)
    plain = batches(**values, batch_size=20)
    assert made.element_spec["targets"] == ((10,), np.int32)
    for step in range(20):
        before, after = plain[step], made[step]
        ordinary = before["tokens"] > 4
        np.testing.assert_array_equal(after["targets"], np.where(ordinary, before["tokens"], -1))
        np.testing.assert_array_equal(after["tokens"][~ordinary], before["tokens"][~ordinary])
        np.testing.assert_array_equal(after["token_mask"], before["token_mask"])


@pytest.mark.parametrize("kind", ["windows", "documents"])
def test_streams_are_masked_too(written, batches, kind):
    folder = written(train=["abcde", "fghijklmnopq", "rs"])
    values = {"data_dir": folder, "tokenizer": BERT, "examples": {"name": kind, "length": 8}}
    masks = {"transforms": [{"name": "mask_tokens", "share": 1.0}]}
    made, plain = batches(**values, **masks, batch_size=3), batches(**values, batch_size=3)
    batch, before = made[0], plain[0]
    real = before["segment_ids"] > 0 if kind == "documents" else before["targets"] != -1
    if kind == "windows":
        np.testing.assert_array_equal(batch["token_mask"], real)
    ordinary = real & (before["tokens"] > 4)
    np.testing.assert_array_equal(batch["targets"], np.where(ordinary, before["tokens"], -1))


def test_training_masks_change_with_the_seed_and_evaluations_do_not(written, batches):
    folder = written(train=["abcdefghijklmnopqrstuvwxyz"[n:] * 2 for n in range(12)])
    values = {
        "data_dir": folder,
        "tokenizer": BERT,
        "examples": {"name": "sequences", "length": 60, "features": ["text"]},
        "transforms": ["mask_tokens"],
        "eval_transforms": ["mask_tokens"],
    }
    one, same, other = (batches(**values, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[5]["targets"], same[5]["targets"])
    assert (one[5]["targets"] != other[5]["targets"]).any()
    assert (one[5]["targets"] != one[8]["targets"]).any()
    first, second = (batches(**values, seed=seed, train=False) for seed in (1, 2))
    halves = batches(**values, train=False, eval_batch_size=2)
    np.testing.assert_array_equal(first[1]["targets"], second[1]["targets"])
    np.testing.assert_array_equal(first[1]["targets"][:2], halves[2]["targets"])  # by example, not by batch
    sorted_by_length = batches(**values, train=False, buckets=[44])
    for batch in sorted_by_length:
        for row, index in zip(batch["targets"], batch["index"]):
            np.testing.assert_array_equal(row, first[index // 4]["targets"][index % 4][: len(row)])
    assert sorted_by_length[0]["index"].tolist() != [0, 1, 2, 3]
    rows = {row.tobytes() for row in np.concatenate([batch["targets"] for batch in first])}
    assert len(rows) == 12


def wordpiece(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##believ", "##able", "story", "##s", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return FromFile(str(tmp_path / "vocab.txt")).build(lambda: iter(()))


def test_the_pieces_of_a_word_are_masked_together(tmp_path):
    tokenizer = wordpiece(tmp_path)
    transform = MaskTokens(share=0.5, whole_word=True).bind(tokenizer)
    tokens = np.asarray(tokenizer.encode("unbelievable the stories unbelievable storys"))
    words = [
        [1, 2, 3],
        [4],
        [6, 7, 8],
        [9, 10],
    ]  # "stories" is [UNK], a special token; its neighbours stay apart
    assert tokens[5] == tokenizer.unk_id
    seen = set()
    for seed in range(300):
        example = {"tokens": tokens, "token_mask": np.ones(len(tokens), bool)}
        chosen = transform(example, np.random.default_rng(seed))["targets"] != -1
        picked = tuple(bool(chosen[word[0]]) for word in words)
        assert all(chosen[word].tolist() == [pick] * len(word) for word, pick in zip(words, picked))
        assert chosen.sum() == sum(len(word) for word, pick in zip(words, picked) if pick)
        seen.add(picked)
    assert len(seen) == 16  # every combination: words are chosen one by one


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_words_of_other_vocabularies_begin_with_a_space(kind):
    texts = ["the cat sat on the mat", "the dog sat on the log", "cats and dogs and mats and logs"] * 20
    tokenizer = Trained(kind, 330 if kind == "bpe" else 40, template="roberta").build(lambda: iter(texts))
    transform = MaskTokens(share=0.5, whole_word=True).bind(tokenizer)
    encoding = tokenizer.hf.encode("the cats sat on dogs")
    ids = np.asarray(encoding.ids)
    spans = [(0, 3), (3, 8), (8, 12), (12, 15), (15, 20)]  # characters, spaces before words
    middle = [(start + stop) / 2 if stop > start else -1 for start, stop in encoding.offsets]
    word_of = np.asarray([next((n for n, (a, b) in enumerate(spans) if a <= m < b), -1) for m in middle])
    for seed in range(100):
        example = {"tokens": ids, "token_mask": np.ones(len(ids), bool)}
        chosen = transform(example, np.random.default_rng(seed))["targets"] != -1
        for word in range(5):
            assert chosen[word_of == word].all() or not chosen[word_of == word].any()


def test_tokenizers_that_cannot_be_used_are_refused(written, batches):
    values = {"data_dir": written(train=["abc"]), "examples": {"name": "windows", "length": 2}}
    with pytest.raises(UserError, match=r"has no mask token; give it template='bert' or 'roberta'"):
        batches(**values, transforms=["mask_tokens"])
    characters = Characters("bert").build(lambda: iter(["abc"]))
    with pytest.raises(UserError, match="whole_word needs a WordPiece"):
        MaskTokens(whole_word=True).bind(characters)
