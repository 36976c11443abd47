"""Coloured shapes with captions and questions, whose truth is exact: pictures that need no download.

A picture has one object or two, each of a size, a colour and a shape. Of the 48 colours with shapes, training never
shows eight: one of each colour, four of which validation is about and four test. A model that is right there has
understood the parts (after CLEVR's CoGenT, Johnson et al. 2017, section 4.7, whose training shows half of them).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.data.catalog import EMBEDDED
from jaxformer.data.writing import write_once

NAME = "shapes"
SIDE = 32  # pixels
VERSION, COUNTS, _ = EMBEDDED[NAME]
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 220, 50),
    "purple": (160, 50, 200),
    "white": (240, 240, 240),
    "orange": (240, 130, 30),
    "cyan": (50, 210, 220),
}
SHAPES = ("circle", "square", "triangle", "cross", "bar", "pole")
RADII = {"small": 3, "large": 6}  # pixels from the middle to the edge
KINDS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
# Colours with shapes that training does not show, and the split that is about them: one a colour; of those that lack
# the same shape none is like the other.
HELD_OUT = {
    ("red", "circle"): "test",
    ("blue", "triangle"): "test",
    ("purple", "bar"): "test",
    ("orange", "pole"): "test",
    ("green", "square"): "validation",
    ("yellow", "cross"): "validation",
    ("white", "pole"): "validation",
    ("cyan", "circle"): "validation",
}
DESCRIPTION = (
    "Pictures of one or two coloured shapes with a caption, questions and their answers, made by jaxformer; validation "
    "and test show colours with shapes that training does not."
)


@dataclass(frozen=True)
class Thing:
    """An object in a picture."""

    size: str
    """A key of RADII."""
    colour: str
    """A key of COLOURS."""
    shape: str
    """One of SHAPES."""

    @property
    def called(self) -> str:
        """Its colour and shape."""
        return f"{self.colour} {self.shape}"

    def __str__(self) -> str:
        return f"a {self.size} {self.called}"


class Draw:
    """Random choices from PCG64's uniform numbers, whose stream NumPy keeps stable."""

    def __init__(self, seed: int):
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def one(self, choices: Any) -> Any:
        """One of a sequence."""
        return choices[int(self._rng.random() * len(choices))]

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self._rng.random() * (high - low + 1))

    def noise(self) -> np.ndarray:
        """float64 [SIDE, SIDE, 3], -1 to 1."""
        return self._rng.random((SIDE, SIDE, 3)) * 2 - 1


def kinds_of(split: str) -> list[tuple[str, str]]:
    """The colours and shapes that a split is about: of training, those that no other split is about."""
    return [kind for kind in KINDS if HELD_OUT.get(kind, "train") == split]


def outline(shape: str, radius: int) -> np.ndarray:
    """bool [2r + 1, 2r + 1]: the pixels of a shape."""
    down, across = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    if shape == "circle":
        return down**2 + across**2 <= (radius + 0.3) ** 2
    if shape == "triangle":
        return np.abs(across) <= (down + radius) // 2
    lying, standing = np.abs(down) <= radius // 3, np.abs(across) <= radius // 3
    thin = {"bar": lying, "pole": standing, "cross": lying | standing}
    return thin.get(shape, np.ones(down.shape, bool))


def places(count: int, draw: Draw) -> tuple[str, list[tuple[int, int]]]:
    """How two objects stand to each other ("above", "left of"; "" for one), and the middles (y, x) of all."""
    if count == 1:
        return "", [(draw.between(7, 24), draw.between(7, 24))]
    along, across = [draw.between(6, 8), draw.between(23, 25)], draw.between(8, 23)
    beside = [across + draw.between(-1, 1) for _ in along]
    if draw.one((True, False)):
        return "above", list(zip(along, beside))
    return "left of", list(zip(beside, along))


def picture(things: list[Thing], middles: list[tuple[int, int]], draw: Draw) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3]: the objects on dark grey, with a little noise."""
    image = np.full((SIDE, SIDE, 3), draw.between(10, 60), np.float64)
    for thing, (y, x) in zip(things, middles):
        radius = RADII[thing.size]
        colour = [level + draw.between(-12, 12) for level in COLOURS[thing.colour]]
        image[y - radius : y + radius + 1, x - radius : x + radius + 1][outline(thing.shape, radius)] = colour
    return np.clip(np.rint(image + 8 * draw.noise()), 0, 255).astype(np.uint8)


def asked(
    things: list[Thing], relation: str, kinds: list[tuple[str, str]], draw: Draw
) -> list[tuple[str, str]]:
    """Questions about a picture with their answers, 5 to 7; a question has one answer only.

    Args:
      things: what is in the picture.
      relation: how the first stands to the second.
      kinds: colours and shapes that a question may name which are not there.
      draw: the random choices.
    """
    thing, shapes, colours = draw.one(things), [t.shape for t in things], [t.colour for t in things]
    absent = [" ".join(kind) for kind in kinds if " ".join(kind) not in [t.called for t in things]]
    there = draw.one((True, False))
    found = [
        ("how many objects are there?", ("one", "two")[len(things) - 1]),
        (f"is there a {thing.called if there else draw.one(absent)}?", "yes" if there else "no"),
        (f"how large is the {thing.called}?", thing.size),
    ]
    if shapes.count(thing.shape) == 1:
        found.append((f"what colour is the {thing.shape}?", thing.colour))
    if colours.count(thing.colour) == 1:
        found.append((f"what shape is the {thing.colour} object?", thing.shape))
    if relation:
        first, second = things
        other = {"above": "below", "left of": "right of"}[relation]
        found.append((f"what is {relation} the {second.called}?", str(first)))
        found.append((f"what is {other} the {first.called}?", str(second)))
    return found


def examples(split: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """A split's pictures, each about one of its kinds, with a caption, all questions and answers, and one of these."""
    import cv2

    draw, own, common = Draw(seed), kinds_of(split), kinds_of("train")
    for _ in range(count):
        kinds = [draw.one(own)]
        if draw.one((False, True, True)):
            kinds.append(draw.one([kind for kind in common + own * (split != "train") if kind != kinds[0]]))
        if draw.one((True, False)):
            kinds.reverse()
        things = [Thing(draw.one(list(RADII)), *kind) for kind in kinds]
        relation, middles = places(len(things), draw)
        image = picture(things, middles, draw)
        questions = asked(things, relation, common + own * (split != "train"), draw)
        question, answer = draw.one(questions)
        yield {
            "image": cv2.imencode(".png", image[:, :, ::-1])[1].tobytes(),
            "caption": f" {relation} ".join(map(str, things)),
            "question": question,
            "answer": answer,
            "questions": [question for question, _ in questions],
            "answers": [answer for _, answer in questions],
        }


def prepare_shapes(data_dir: Path) -> Path:
    """Writes the shapes into `data_dir` unless they are there; atomic, and safe in several processes at once.

    Each example has `image` [32, 32, 3] uint8 (PNG), `caption` ("a small red circle above a large blue square"),
    `question` and `answer`, one of those in `questions` and `answers`.

    Returns:
      The dataset's folder.

    Raises:
      OSError: the folder cannot be written.
    """
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png")}
    features |= dict.fromkeys(("caption", "question", "answer"), tfds.features.Text())
    features |= {name: tfds.features.Sequence(tfds.features.Text()) for name in ("questions", "answers")}
    splits = {split: examples(split, count, seed) for seed, (split, count) in enumerate(COUNTS.items())}
    return write_once(data_dir, NAME, VERSION, features, splits, DESCRIPTION)
