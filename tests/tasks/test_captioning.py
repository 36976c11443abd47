"""Captions: their scores against pycocoevalcap's, what counts once, prompts, and what does not fit."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.tiny_tasks import BOS, CAPTIONERS, IMAGE_CASES, LENGTH, SIDE, VOCAB, params_of

from jaxformer.data.text.tokenizer_training import Bytes, Characters
from jaxformer.tasks.caption_metrics import caption_scores, words_of
from jaxformer.tasks.captioning import Captioning, prompts_of
from jaxformer.tasks.text import spelled

WORDS = ["a", "red", "blue", "circle", "square", "left", "of", "above", "the", "small", "big", "two"]
# pycocoevalcap 1.2 on the corpora that `corpus` makes: seed, pictures -> Bleu(4)'s last, Rouge, Cider.
REFERENCE = {
    (0, 7): (0.316760031813023, 0.6502846637910311, 1.4036313627511636),
    (1, 30): (0.3520242451572295, 0.6313029702930565, 1.750344217888762),
    (2, 100): (0.3700573208235222, 0.6583110854646634, 2.141146802865976),
}


def corpus(seed, count):
    """Captions of 1 to 4 references a picture, each a reference and more with a fifth of the words left out."""
    rng = np.random.default_rng(seed)

    def text():
        return " ".join(rng.choice(WORDS, rng.integers(1, 11)))

    references = [[text() for _ in range(rng.integers(1, 5))] for _ in range(count)]
    kept = [[w for w in f"{true[0]} {text()}".split() if rng.random() < 0.8] for true in references]
    return [" ".join(words) or "a" for words in kept], references


@pytest.mark.parametrize("case", REFERENCE)
def test_scores_are_pycocoevalcaps(case):
    found = caption_scores(*corpus(*case))
    bleu, rouge, cider = REFERENCE[case]
    # Its BLEU adds 1e-15 and 1e-9 to counts.
    assert found["bleu4"] == pytest.approx(bleu, rel=1e-8)
    assert found["rouge_l"] == pytest.approx(rouge, rel=1e-12)
    assert found["cider"] == pytest.approx(cider, rel=1e-12)


def test_scores_of_what_is_right_and_of_nothing():
    true = [["a red circle on the left"], ["two blue squares above a cat"], ["it's well-known"]]
    right = caption_scores([f"  {each[0]}" for each in true], true)
    assert right["exact_match"] == right["rouge_l"] == 1
    assert right["bleu4"] == pytest.approx(1)
    nothing = dict.fromkeys(right, 0)
    assert caption_scores(["", "", ""], true) == nothing
    assert caption_scores([], []) == nothing
    assert words_of("It's a Well-known, RED Été!") == ("it's", "a", "well-known", "red", "été")


class Split:
    """Three pictures: the first with two captions, the last one unreadable."""

    captions = ("a red", "b red", "c", "a red")
    pictures = (0, 0, 1, 2)

    def __init__(self):
        self.tokenizer = Characters("seq2seq").build(lambda: iter(["abcdefgh red"]))
        self.source = self

    def __len__(self):
        return len(self.captions)

    def truth(self, index):
        return {"picture": self.pictures[index], "caption": index}

    def prompt_of(self, index):
        return ""

    def captions_of(self, index):
        return [text for text, n in zip(self.captions, self.pictures) if n == self.pictures[index]]


def test_a_picture_counts_once_and_one_that_cannot_be_read_is_missed():
    data, task = Split(), Captioning(beams=1)
    sums = {name: np.array([1.0, 3.0]) for name in ("loss", "accuracy", "count")}

    def evaluated(*texts):
        rows = [data.tokenizer.encode(text, special=False) for text in texts]
        written = np.array([row + [-1] * (9 - len(row)) for row in rows])
        return task.summarize(sums, {"index": np.arange(len(rows)), "written": written}, data)

    found = evaluated("b red", "b red", "c")
    assert found.metrics["exact_match"] == pytest.approx(2 / 3)
    assert set(found.metrics) == set(task.metric_names)
    assert found.baseline == {"exact_match": pytest.approx(2 / 3)}  # "a red" is right of two
    assert evaluated("b red", "b red", "d").metrics["exact_match"] == pytest.approx(1 / 3)
    none = Captioning(beams=0)
    assert set(none.summarize(sums, {}, data).metrics) == set(none.metric_names) == {"loss", "accuracy"}


def test_prompts_are_what_is_in_front_of_the_first_target():
    tokens = np.array([[BOS, 5, 6, 7, 2, 0], [BOS, 8, 2, 0, 0, 0], [0] * 6], np.int32)
    targets = np.array([[-1, -1, 7, 2, -1, -1], [8, 2, -1, -1, -1, -1], [-1] * 6], np.int32)
    batch = {"tokens": tokens, "token_mask": tokens > 0, "targets": targets}
    found, mask = map(np.asarray, prompts_of(batch))
    assert found.tolist()[:2] == [[0, 0, 0, BOS, 5, 6], [0, 0, 0, 0, 0, BOS]]
    assert mask.sum(1).tolist() == [3, 1, 1]
    alone = {"tokens": tokens[:, :3], "token_mask": tokens[:, :3] > 0}
    assert np.asarray(prompts_of(alone)[0]).tolist()[0] == [BOS, 5, 6]


@pytest.mark.parametrize("name", ["cross", "prefix"])
def test_each_token_that_is_written_has_the_map_of_the_place_before_it(name):
    """Behind prompts of 3 and 1 tokens, by a pass over each text alone, made by hand."""
    case = IMAGE_CASES[f"captions, {name}"]
    variables, batch = {"params": params_of(f"captions, {name}")}, case.batch(2)
    batch["tokens"], batch["token_mask"] = (
        np.full((2, 3), 5, np.int32),
        np.array([[1, 1, 1], [1, 0, 0]], bool),
    )
    del batch["targets"]
    found = jax.jit(lambda v, b: case.task.shown(None, b, case.model, v))(variables, batch)
    images = case.task.normalised(batch)["image"]
    for row, count in enumerate((3, 1)):
        written = np.asarray(found["written"][row])
        written = written[written >= 0]
        text = [*[5] * count, *written[:-1]]
        given = images[row : row + 1], np.array([text], np.int32)
        maps, _ = case.model.apply(variables, *given, method="looking", mutable=["attention_maps"])
        seen = found["seen"][row][: len(written)]
        np.testing.assert_allclose(seen, maps[0, count - 1 :], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("tokenizer", "text", "words"),
    [
        (Bytes("seq2seq"), "a  rød é", {"a": [0], "rød": [3, 4, 6], "é": [8]}),
        (Characters("seq2seq"), " a red", {"a": [1], "red": [3, 4, 5]}),
        (Characters("seq2seq"), "", {}),
    ],
)
def test_words_are_made_of_their_tokens(tokenizer, text, words):
    """Of a letter of two bytes the first is enough."""
    tokenizer = tokenizer.build(lambda: iter(["a red"]))
    ids = np.array([*tokenizer.encode(text, special=False), tokenizer.eos_id])
    assert dict(spelled(ids, SimpleNamespace(tokenizer=tokenizer))) == words


def test_a_word_looks_where_its_tokens_do_in_the_mean():
    tokenizer = Characters("seq2seq").build(lambda: iter(["a red"]))
    ids = tokenizer.encode("a red", special=False)
    predicted = {"written": np.array([*ids, -1]), "seen": np.arange(6.0)[:, None, None] * np.ones((1, 2, 3))}
    found = Captioning().looked(predicted, SimpleNamespace(tokenizer=tokenizer))
    assert [(word, seen.shape, seen.max()) for word, seen in found] == [("a", (2, 3), 0), ("red", (2, 3), 3)]


def test_a_users_picture_starts_with_the_token_that_starts_a_text():
    data = Split()
    example = Captioning().prepare({"image": np.zeros((2, 2, 3), np.uint8)}, data)
    assert example["tokens"].tolist() == [data.tokenizer.bos_id]
    assert example["token_mask"].all()
    asked = Captioning().prepare({"image": np.zeros((2, 2, 3), np.uint8), "prompt": "red"}, data)
    assert asked["tokens"].tolist() == [data.tokenizer.bos_id, *data.tokenizer.encode("red", special=False)]
    assert set(asked) == {"image", "tokens", "token_mask"}


def spec(length=LENGTH, side=SIDE, vocab=VOCAB, **changes):
    row, number = ((length,), np.dtype(np.int32)), ((), np.dtype(np.int32))
    arrays = {
        "image": ((side, side, 3), np.dtype(np.uint8)),
        "tokens": row,
        "token_mask": row,
        "targets": row,
    }
    arrays |= {"picture": number, "caption": number} | changes
    tokenizer = SimpleNamespace(vocab_size=vocab)
    return SimpleNamespace(element_spec=arrays, tokenizer=tokenizer, class_names=None)


def test_what_does_not_fit_is_named():
    task, model = Captioning(eos_id=2), CAPTIONERS["cross"]

    def lines(task=task, model=model, **data):
        return list(task.fits(model, spec(**data), spec(**data)))

    assert lines() == []
    (line,) = lines(length=LENGTH + 1)
    assert f"data.examples.length={LENGTH + 1}: the model takes {LENGTH} tokens" in line
    (line,) = lines(vocab=VOCAB + 1)
    assert f"model.vocab_size={VOCAB}" in line
    (line,) = lines(task=dataclasses.replace(task, eos_id=None))
    assert "has no end token" in line
    assert lines(task=dataclasses.replace(task, eos_id=None, beams=0)) == []
    (line,) = lines(model=CAPTIONERS["cross"].backbone)
    assert 'ResNet does not write about images; choose another, such as "captioner"' in line
    train = spec()
    del train.element_spec["targets"]
    (line,) = task.fits(model, train, train)
    assert "this task needs" in line
    assert 'choose "captions"' in line
