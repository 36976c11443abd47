"""Finding pictures by texts, texts by pictures and texts by texts, with vectors of them: NumPy, on the host.

A picture may have several texts, and a text several pictures. A query's right answers are all those that it is paired
with, and it has found one of them among the first k if fewer than k others are as near to it as the nearest right one:
so equal vectors, of a model that has collapsed, find nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

AT = (1, 5, 10)
SHOWN, NEAREST = 8, 5  # pictures and texts of a report, and what is the nearest to each
BLOCK = 2**24  # products at a time


@dataclass(frozen=True)
class Gallery:
    """The distinct pictures and texts of a split."""

    image: np.ndarray
    """Float32 [P, E], of length 1."""
    text: np.ndarray
    """Float32 [C, E], of length 1."""
    pairs: np.ndarray
    """Int64 [N, 2], which picture (a row of `image`) belongs to which text (a row of `text`), each pair once."""
    picture: np.ndarray
    """Int [P], the pictures' numbers in the split."""
    caption: np.ndarray
    """Int [C], the texts' numbers in the split."""
    labels: np.ndarray | None = None
    """Int [P], the pictures' classes, -1 where one has none; None without classes."""

    @property
    def swapped(self) -> np.ndarray:
        """`pairs` with the text first, int64 [N, 2]."""
        return self.pairs[:, ::-1]


def gallery(rows: Mapping[str, np.ndarray]) -> Gallery:
    """The distinct pictures and texts of pairs.

    Args:
      rows: "image" and "text" float32 [N, E], "picture" and "caption" int [N], the numbers of both; "labels" int [N]
        where there are classes.
    """
    picture, first_picture, of_picture = np.unique(rows["picture"], return_index=True, return_inverse=True)
    caption, first_caption, of_caption = np.unique(rows["caption"], return_index=True, return_inverse=True)
    pairs = np.unique(np.stack([of_picture, of_caption], axis=1).astype(np.int64), axis=0)
    labels = rows["labels"][first_picture] if "labels" in rows else None
    image, text = rows["image"][first_picture], rows["text"][first_caption]
    return Gallery(image, text, pairs, picture, caption, labels)


def ranks(queries: np.ndarray, candidates: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How many wrong candidates are at least as near to each query as the nearest right one, int64 [Q].

    A query whose vector is not finite, or that has no right candidate, has as many as there are candidates.

    Args:
      queries: float32 [Q, E].
      candidates: float32 [C, E].
      pairs: int [N, 2], which candidate is right for which query: (query, candidate), each once.
    """
    found = np.full(len(queries), len(candidates), np.int64)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    step = max(1, BLOCK // max(1, len(candidates)))
    for first in range(0, len(queries), step):
        block = queries[first : first + step]
        begin, end = np.searchsorted(pairs[:, 0], [first, first + len(block)])
        row, column = pairs[begin:end, 0] - first, pairs[begin:end, 1]
        with np.errstate(invalid="ignore", over="ignore"):
            near = block @ candidates.T  # [q, C]
        nearest = np.full(len(block), -np.inf, near.dtype)
        np.maximum.at(nearest, row, near[row, column])
        right = np.bincount(row, near[row, column] == nearest[row], minlength=len(block)).astype(np.int64)
        wrong = np.count_nonzero(~(near < nearest[:, None]), axis=1) - right  # NaN is in front of all
        usable = np.isfinite(nearest)
        found[first : first + len(block)] = np.where(usable, wrong, len(candidates))
    return found


def recalls(ranks: np.ndarray, missed: int = 0) -> dict[int, float]:
    """k of AT -> the share of queries with a right answer among the first k; those `missed` have none."""
    total = max(1, len(ranks) + missed)
    return {k: np.count_nonzero(ranks < k) / total for k in AT}


def chance(pairs: np.ndarray, queries: int, candidates: int) -> dict[int, float]:
    """What `recalls` are on average where candidates come in any order.

    Args:
      pairs: int [N, 2], (query, candidate), each once.
      queries: how many there are.
      candidates: how many there are.
    """
    right = np.bincount(pairs[:, 0], minlength=queries)[:, None]  # [Q, 1]
    drawn = np.arange(max(AT))[None, :]
    none_yet = np.clip(candidates - right - drawn, 0, None) / np.maximum(candidates - drawn, 1)
    none = np.cumprod(none_yet, axis=1)  # [Q, 10], the share of orders with no right one among the first k
    return {k: float(np.mean(1 - none[:, k - 1])) for k in AT}


def class_vectors(found: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """A vector for each class: the mean of its distinct texts' vectors, at length 1 (prompt ensembling, Radford et al.
    2021, section 3.1.4).

    Returns:
      Classes int [K], in order, of those that have a picture and a text; and float32 [K, E].
    """
    assert found.labels is not None
    of_class = np.unique(np.stack([found.labels[found.pairs[:, 0]], found.pairs[:, 1]], axis=1), axis=0)
    of_class = of_class[of_class[:, 0] >= 0]
    classes, where = np.unique(of_class[:, 0], return_inverse=True)
    total = np.zeros((len(classes), found.text.shape[1]), np.float64)
    np.add.at(total, where, found.text[of_class[:, 1]])
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return classes, (total / np.maximum(lengths, 1e-12)).astype(np.float32)


def classified(found: Gallery) -> np.ndarray:
    """The class whose vector is the nearest to each picture, int [P]; -1 of a vector that is not finite."""
    classes, vectors = class_vectors(found)
    if not len(classes):
        return np.full(len(found.image), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        near = found.image @ vectors.T
    return np.where(np.isfinite(near).all(axis=1), classes[np.argmax(near, axis=1)], -1)


def close_up(
    found: Gallery, ranks: np.ndarray, index_of: np.ndarray, text_of: Callable[[int], str]
) -> dict[str, Any]:
    """What a report shows of retrieval, as JSON values; {} where a vector is not finite.

    Args:
      found: the pictures and texts.
      ranks: of the pictures' texts, see `ranks`, int [P].
      index_of: int [P], the number in the split of an example with each picture.
      text_of: the text of a row of `found.text`.

    Returns:
      "pictures" and "texts": the numbers of examples, evenly spread, and a text of each, each text once;
      "similarity": their cosines, a row a picture;
      "right": whether text and picture belong together, in the same places;
      "nearest_texts": of each picture the NEAREST, and "nearest_pictures": of each text, the nearest first: "text" or
        "picture", "similarity", "right";
      "hardest": pictures whose text is the furthest behind others, the furthest first: "picture", "text",
        "similarity", "rank", how many wrong ones are as near, "instead", the nearest text, and "instead_similarity".
    """
    if not (np.isfinite(found.image).all() and np.isfinite(found.text).all()):
        return {}
    together = set(map(tuple, found.pairs.tolist()))
    own = dict(found.pairs[::-1].tolist())  # the first text of each picture
    rows = spread(len(found.image))
    columns = list(dict.fromkeys(own[row] for row in rows))
    texts = {column: text_of(column) for column in columns}

    def entry(row: int, column: int, similarity: float, **named: Any) -> dict[str, Any]:
        return {**named, "similarity": round(float(similarity), 4), "right": (row, column) in together}

    by_picture, by_text = found.image[rows] @ found.text.T, found.text[columns] @ found.image.T
    nearest_texts = [
        [entry(row, c, near[c], text=text_of(c)) for c in nearest(near)]
        for row, near in zip(rows, by_picture)
    ]
    nearest_pictures = [
        [entry(r, column, near[r], picture=int(index_of[r])) for r in nearest(near)]
        for column, near in zip(columns, by_text)
    ]
    hardest = []
    for row in np.argsort(-ranks, kind="stable")[:SHOWN].tolist():
        near = found.text @ found.image[row]
        best = max(
            (text for picture, text in found.pairs.tolist() if picture == row), key=lambda text: near[text]
        )
        first = int(np.argmax(near))
        if ranks[row]:
            named = {"picture": int(index_of[row]), "text": text_of(best), "rank": int(ranks[row])}
            instead = {"instead": text_of(first), "instead_similarity": round(float(near[first]), 4)}
            hardest.append(entry(row, best, near[best], **named, **instead))
    return {
        "pictures": [int(index_of[row]) for row in rows],
        "texts": [texts[column] for column in columns],
        "similarity": np.round(by_picture[:, columns].astype(float), 4).tolist(),
        "right": [[(row, column) in together for column in columns] for row in rows],
        "nearest_texts": nearest_texts,
        "nearest_pictures": nearest_pictures,
        "hardest": hardest,
    }


def neighbours(vectors: np.ndarray, texts: Sequence[str], pairs: np.ndarray) -> dict[str, Any]:
    """What a report shows of texts among themselves, as JSON values; {} where a vector is not finite.

    Args:
      vectors: float32 [N, E], of length 1.
      texts: the N texts, each once.
      pairs: int [M, 2], which of them belong together, in either order.

    Returns:
      "texts": some, evenly spread; "nearest_texts": of each the NEAREST others, as in `close_up`.
    """
    if not np.isfinite(vectors).all():
        return {}
    together, rows = {frozenset(pair) for pair in pairs.tolist()}, spread(len(texts))
    found = []
    for row in rows:
        near = vectors @ vectors[row]
        others = [each for each in nearest(near, NEAREST + 1) if each != row][:NEAREST]
        found.append(
            [
                {
                    "text": texts[each],
                    "similarity": round(float(near[each]), 4),
                    "right": frozenset((row, each)) in together,
                }
                for each in others
            ]
        )
    return {"texts": [texts[row] for row in rows], "nearest_texts": found}


def spread(count: int) -> list[int]:
    """The SHOWN of `count` rows that are shown, evenly spread; all of fewer."""
    return [int(row) for row in np.linspace(0, count - 1, min(SHOWN, count))]


def nearest(near: np.ndarray, count: int = NEAREST) -> list[int]:
    """The `count` places that are the nearest, of products [C]; of equal ones the first."""
    return [int(place) for place in np.argsort(-near, kind="stable")[:count]]


def pictures_of(shown: Mapping[str, Any]) -> list[int]:
    """The numbers of all pictures in a `close_up`."""
    nearest = [each["picture"] for found in shown.get("nearest_pictures", []) for each in found]
    return sorted(
        {*shown.get("pictures", []), *nearest, *(each["picture"] for each in shown.get("hardest", []))}
    )
