"""Plain text: each file, paragraph or line is an example."""

import bisect
from dataclasses import replace
from functools import partial
from itertools import accumulate, groupby
from typing import Literal

import tensorflow_datasets as tfds

from jaxformer.errors import UserError
from jaxformer.importing.contents import Contents, Divided, Example, Examples
from jaxformer.importing.sources import Sources
from jaxformer.reading import lines_of

UNITS = ("file", "paragraph", "line")


def read(sources: Sources, unit: Literal["file", "paragraph", "line"] = "file") -> Contents:
    """Reads UTF-8 texts as examples of `text` and `path`.

    Args:
      sources: files and folders.
      unit: what an example is: a whole "file", a "paragraph" (blank lines are between them) or a "line" (blank ones are
        none).
    """
    if unit not in UNITS:
        raise UserError(f"`unit` {unit!r}: expected {', '.join(UNITS)}")
    features = {"text": tfds.features.Text(), "path": tfds.features.Text()}
    found = ((file, part) for file, text in sources.texts() for part in parts(text, unit))
    examples = [Example({"text": part, "path": file.name}, file) for file, part in found]
    return Contents(features, examples, hold_out=partial(tail, may_cut=unit == "file"))


def parts(text: str, unit: str) -> list[str]:
    """The examples in a text: the whole text, its paragraphs or its lines."""
    if unit == "file":
        return [text]
    lines = lines_of(text)
    if unit == "line":
        return [line for line in lines if line.strip()]
    blocks = groupby(lines, lambda line: bool(line.strip()))
    return ["\n".join(block) for filled, block in blocks if filled]


def tail(examples: Examples, share: float, may_cut: bool) -> Divided:
    """Holds out the tail: `share` of all characters, from the character on where a file has to be cut.

    For a single file that is nanoGPT's split (data/shakespeare_char/prepare.py). What may not be cut, and reaches into
    the tail, is held out.
    """
    if not share:
        return list(examples), []
    ends = list(accumulate(len(example.values["text"]) for example in examples))
    cut = min(int(ends[-1] * (1 - share)), ends[-1] - 1)
    place = bisect.bisect_right(ends, cut)  # the first example that reaches beyond the cut
    if not may_cut:
        place = min(max(place, 1), max(len(examples) - 1, 1))
        return list(examples[:place]), list(examples[place:])
    inside = max(cut - (ends[place - 1] if place else 0), 0 if place else 1)
    text = examples[place].values["text"]
    train, test = (
        [replace(examples[place], values=examples[place].values | {"text": half})] if half else []
        for half in (text[:inside], text[inside:])
    )
    return [*examples[:place], *train], [*test, *examples[place + 1 :]]
