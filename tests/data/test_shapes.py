"""The coloured shapes: captions and answers are true of the pixels, by a reading that knows nothing of the drawing."""

import re
from collections import Counter
from colorsys import rgb_to_hsv
from itertools import islice

import numpy as np
import pytest

from jaxformer.data.decoding import decode_image
from jaxformer.data.shapes import examples, kinds_of, prepare_shapes

# Up to which angle on the circle of hues, in degrees, a colour reaches.
HUES = {
    15: "red",
    45: "orange",
    70: "yellow",
    160: "green",
    200: "cyan",
    255: "blue",
    320: "purple",
    361: "red",
}
SPLITS = ("train", "validation", "test")


def parts(image: np.ndarray) -> list[np.ndarray]:
    """bool [32, 32] of each connected bright part."""
    left, found = image.max(2) > 110, []
    while left.any():
        part = np.zeros_like(left)
        part[tuple(np.argwhere(left)[0])] = True
        while True:
            near = part.copy()
            near[1:] |= part[:-1]
            near[:-1] |= part[1:]
            near[:, 1:] |= part[:, :-1]
            near[:, :-1] |= part[:, 1:]
            if (grown := near & left).sum() == part.sum():
                break
            part = grown
        found.append(part)
        left &= ~part
    return found


def colour_of(pixels: np.ndarray) -> str:
    """The hue of the mean pixel; white has none."""
    hue, saturation, _ = rgb_to_hsv(*(pixels.mean(0) / 255))
    return "white" if saturation < 0.2 else next(name for end, name in HUES.items() if 360 * hue < end)


def shape_of(part: np.ndarray) -> str:
    """By the widths of its rows: all equal, of two kinds, never falling, or anything else."""
    widths = part.sum(1)[part.any(1)]
    if len(set(widths)) == 1:
        return {-1: "pole", 0: "square", 1: "bar"}[int(np.sign(widths[0] - len(widths)))]
    if (np.diff(widths) >= 0).all():
        return "triangle"
    return "cross" if len(set(widths)) == 2 else "circle"


def seen(image: np.ndarray) -> list[tuple[float, float, str]]:
    """The middle (y, x) of each object, and its description."""
    found = []
    for part in parts(image):
        rows, columns = np.nonzero(part)
        size = "small" if max(np.ptp(rows), np.ptp(columns)) < 9 else "large"
        middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
        found.append((*middle, f"a {size} {colour_of(image[part])} {shape_of(part)}"))
    return found


def described(image: np.ndarray) -> str:
    objects = seen(image)
    if len(objects) == 1:
        return objects[0][2]
    (y0, x0, one), (y1, x1, other) = sorted(objects)
    if y1 - y0 > abs(x1 - x0):
        return f"{one} above {other}"
    (*_, one), (*_, other) = sorted(objects, key=lambda item: item[1])
    return f"{one} left of {other}"


def answered(question: str, caption: str) -> str:
    """The answer that a caption gives to a question."""
    things = re.findall("a (small|large) ([a-z]+) ([a-z]+)", caption)
    if question.startswith("how many"):
        return ("one", "two")[len(things) - 1]
    if found := re.match("is there a ([a-z]+) ([a-z]+)", question):
        return "yes" if found.groups() in [thing[1:] for thing in things] else "no"
    if found := re.match("how large is the ([a-z]+) ([a-z]+)", question):
        (size,) = [size for size, *kind in things if tuple(kind) == found.groups()]
        return size
    if found := re.match("what colour is the ([a-z]+)", question):
        (colour,) = [colour for _, colour, shape in things if shape == found[1]]
        return colour
    if found := re.match("what shape is the ([a-z]+) object", question):
        (shape,) = [shape for _, colour, shape in things if colour == found[1]]
        return shape
    relation, named = re.match("what is (above|below|left of|right of) the ([a-z ]+)", question).groups()
    first, second = (" ".join(thing) for thing in things)
    answer, about = (first, second) if relation in ("above", "left of") else (second, first)
    assert relation in (("above", "below") if " above " in caption else ("left of", "right of"))
    assert about.endswith(named)
    return f"a {answer}"


@pytest.mark.parametrize("split", SPLITS)
def test_captions_and_answers_are_true_of_the_pictures(split):
    made = list(examples(split, 300, seed=11))
    for example in made:
        assert described(decode_image(example["image"], 3)) == example["caption"]
        pairs = list(zip(example["questions"], example["answers"], strict=True))
        assert 5 <= len(pairs) == len({question for question, _ in pairs}) <= 7
        assert (example["question"], example["answer"]) in pairs
        for question, answer in pairs:
            assert answered(question, example["caption"]) == answer
    answers = Counter(example["answer"] for example in made if example["question"].startswith("is there"))
    assert 0.3 < answers["yes"] / answers.total() < 0.7


def test_training_never_shows_the_kinds_of_the_other_splits_but_all_their_words():
    kinds = {split: set(kinds_of(split)) for split in SPLITS}
    assert sum(map(len, kinds.values())) == len(set.union(*kinds.values())) == 48
    shown, words = {split: set() for split in SPLITS}, {split: set() for split in SPLITS}
    for split in SPLITS:
        for example in examples(split, 500, seed=3):
            there = set(re.findall("(?:small|large) ([a-z]+) ([a-z]+)", example["caption"]))
            assert there & kinds[split]
            shown[split] |= there | set(re.findall("is there a ([a-z]+) ([a-z]+)", example["question"]))
            words[split] |= {
                word for name in ("caption", "question", "answer") for word in example[name].split()
            }
    assert shown["train"] == kinds["train"]
    for split in ("validation", "test"):
        assert kinds[split] <= shown[split] <= kinds[split] | kinds["train"]
        assert words[split] <= words["train"]


def test_they_are_the_same_each_time():
    first, again, other = (list(islice(examples("test", 3, seed), 3)) for seed in (2, 2, 3))
    assert first == again != other


def test_they_are_prepared_on_first_use(tmp_path, monkeypatch):
    from jaxformer.data import DataConfig, make_batches, shapes
    from jaxformer.data.kinds.captions import Captions
    from jaxformer.data.text.tokenizer_training import Characters

    monkeypatch.setattr(shapes, "COUNTS", {"train": 20, "validation": 4, "test": 4})
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    kind = Captions(length=80, prompt_feature="question", caption_feature="answer")
    config = DataConfig(name="shapes", examples=kind, tokenizer=Characters("seq2seq"), batch_size=4)
    batches = make_batches(config, "test", train=False)
    assert batches[0]["image"].shape == (4, 32, 32, 3)
    stored = list(examples("test", 4, seed=2))
    assert [batches.source.text_of(index) for index in range(4)] == [example["answer"] for example in stored]
    assert prepare_shapes(tmp_path) == tmp_path / "shapes" / "1.2.0"
