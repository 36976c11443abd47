"""Questions about paragraphs, with answers that are parts of them: SQuAD's JSON, versions 1.1 and 2.0.

Rajpurkar et al. 2016 (arXiv:1606.05250) and 2018 (arXiv:1806.03822).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents, Divided, Example, Examples, divided
from jaxformer.importing.formats.tables import storable
from jaxformer.importing.sources import File, Sources
from jaxformer.reading import parse_json, read_bool

FEW_TOPICS = 10  # with fewer, a share of them is too coarse

# What every object has to have: texts, and lists of objects.
QUESTION = {"id": str, "question": str, "answers": [{"text": str}]}
SHAPE = {"data": [{"paragraphs": [{"context": str, "qas": [QUESTION]}]}]}
EXAMPLE = '{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}'


def read(sources: Sources, answerable: bool = False) -> Contents:
    """Reads questions as examples, with the features of TFDS's squad; with `is_impossible` if any question has it.

    Every answer is looked up in its context.

    Args:
      sources: files and folders.
      answerable: leave out the questions that are marked as impossible to answer.
    """
    examples: list[Example] = []
    seen: dict[str, File] = {}
    impossible = 0
    for file, text in sources.texts():
        for values, item in questions(file.path, text):
            key, problem = item["id"], question_problem(values, item)
            checked = [(answer, wrong_answer(values["context"], answer)) for answer in item["answers"]]
            good = [answer for answer, wrong in checked if not wrong]
            reasons = [problem] if problem else [wrong for _, wrong in checked if wrong]
            for reason in reasons:
                sources.broken.append((file.path, f"{line_of(key, text)}question {key!r}: {reason}"))
            if reasons and (problem or not good):
                continue
            if key in seen:
                also = "" if seen[key] is file else f" (also in {seen[key].path})"
                sources.broken.append((file.path, f"question {key!r} is there twice{also}"))
                continue
            seen[key] = file
            if answerable and not good:
                impossible += 1
                continue
            values["answers"] = {name: [answer[name] for answer in good] for name in ("text", "answer_start")}
            if item.get("is_impossible") is not None and not answerable:
                values["is_impossible"] = read_bool(item, "is_impossible")
            examples.append(Example(values, file))
    features = {name: tfds.features.Text() for name in ("id", "title", "context", "question")}
    features["answers"] = tfds.features.Sequence({"text": tfds.features.Text(), "answer_start": np.int32})
    if any("is_impossible" in example.values for example in examples):
        features["is_impossible"] = tfds.features.Tensor(shape=(), dtype=np.bool_)
        for example in examples:
            example.values.setdefault("is_impossible", False)
    notes = [f"left out: {counted(impossible, 'question')} without an answer"] if impossible else []
    return Contents(features, examples, notes=notes, hold_out=share_of_articles)


def share_of_articles(examples: Examples, share: float) -> Divided:
    """Holds out random whole articles, as near to `share` of the examples as they come; one article stays.

    Where there are few articles, contexts are held out. No context is in both splits, whatever the title above it is.
    """
    titles: dict[str, str] = {}  # of each context, the first
    for example in examples:
        titles.setdefault(example.values["context"], example.values["title"])
    if len(set(titles.values())) < FEW_TOPICS:
        titles = {context: context for context in titles}
    topics = [titles[example.values["context"]] for example in examples]
    sizes, count, chosen = Counter(topics), 0, set()
    names = sorted(sizes)
    order = np.argsort(np.random.Generator(np.random.PCG64(0)).random(len(names)), kind="stable")
    for name in (names[number] for number in order[:-1]):
        if count + sizes[name] / 2 <= share * len(examples):
            chosen.add(name)
            count += sizes[name]
    return divided(examples, {place for place, topic in enumerate(topics) if topic in chosen})


def questions(path: Path, text: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The questions of a file: their values but for the answers, and the objects that stand in the file.

    Raises:
      UserError: it is no JSON of this shape; says where.
    """
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    check_shape(path, content, SHAPE, "")
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            above = {"title": article.get("title", ""), "context": paragraph["context"]}
            for item in paragraph["qas"]:
                yield {"id": item["id"], **above, "question": item["question"]}, item


def check_shape(path: Path, value: Any, shape: Mapping[str, Any], place: str) -> None:
    """Raises a UserError for the first object without a member that `shape` has; `place` is where `value` stands."""
    for key, kind in shape.items():
        wanted, words = (str, "a text") if kind is str else (list, "a list")
        if not isinstance(value, dict) or not isinstance(value.get(key), wanted):
            needs = f"{place or 'the file'} needs {key!r}, {words}"
            raise UserError(f"{path}: {needs}; expected SQuAD's JSON, as in {EXAMPLE}")
        for number, entry in enumerate(value[key] if wanted is list else ()):
            check_shape(path, entry, kind[0], f"{place}.{key}[{number}]".removeprefix("."))


def line_of(key: str, text: str) -> str:
    """The line of a question, where its id can be found in the file."""
    place = max(text.find(json.dumps(key)), text.find(json.dumps(key, ensure_ascii=False)))
    return f"line {text.count(chr(10), 0, place) + 1}: " if place >= 0 else ""


def question_problem(values: Mapping[str, Any], item: Mapping[str, Any]) -> str | None:
    """Why a question cannot be used, whatever its answers are."""
    try:
        for name, value in values.items():
            storable(value, name)
            if name in ("context", "question") and not value.strip():
                return f"its {name} is empty"
        impossible = read_bool(item, "is_impossible")
    except ValueError as error:
        return str(error)
    if impossible and item["answers"]:
        return "is_impossible, but there are answers"
    if not impossible and not item["answers"]:
        return "has no answers, and is not marked is_impossible"
    return None


def wrong_answer(context: str, answer: Mapping[str, Any]) -> str | None:
    """What is wrong with an answer; None if the context has it at character `answer_start`."""
    text, start = answer["text"], answer.get("answer_start")
    if type(start) is not int:
        return f"answer {text!r} needs 'answer_start', a whole number"
    if not text.strip():
        return "an answer is empty"
    if start >= 0 and context.startswith(text, start):
        return None
    places = [place for place in range(len(context)) if context.startswith(text, place)]
    if not places:
        return f"answer {text!r} is nowhere in its context"
    nearest = min(places, key=lambda place: abs(place - start))
    return f"answer {text!r} is not at character {start} of its context, but at {nearest}"
