"""Questions about paragraphs, with answers that are parts of them: SQuAD's JSON, versions 1.1 and 2.0.

Rajpurkar et al. 2016 (arXiv:1606.05250) and 2018 (arXiv:1806.03822).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxformer.errors import UserError
from jaxformer.files import parse_json
from jaxformer.importing.contents import Contents, Divided, Example, Examples, share_of_topics
from jaxformer.importing.formats.tables import storable
from jaxformer.importing.sources import Broken, File, Sources

FEW_TOPICS = 10  # with fewer, a share of them is too coarse
KINDS: dict[type, str] = {list: "a list", str: "a text"}


def read_squad(sources: Sources) -> Contents:
    """Reads questions as examples, with the features of TFDS's squad; with `is_impossible` if any question has it.

    Every answer is looked up in its context.
    """
    import tensorflow_datasets as tfds

    examples: list[Example] = []
    seen: dict[str, File] = {}
    for file, text in sources.texts():
        for example in Reader(file, text, sources.broken).examples():
            key = example.values["id"]
            if key in seen:
                also = "" if seen[key] is file else f" (also in {seen[key].path})"
                sources.broken.append((file.path, f"question {key!r} is there twice{also}"))
            else:
                seen[key] = file
                examples.append(example)
    texts = {name: tfds.features.Text() for name in ("id", "title", "context", "question")}
    answers = tfds.features.Sequence({"text": tfds.features.Text(), "answer_start": np.int32})
    features: dict[str, Any] = texts | {"answers": answers}
    if any("is_impossible" in example.values for example in examples):
        features["is_impossible"] = tfds.features.Tensor(shape=(), dtype=np.bool_)
        for example in examples:
            example.values.setdefault("is_impossible", False)
    return Contents(features, examples, hold_out=share_of_articles)


def share_of_articles(examples: Examples, share: float) -> Divided:
    """Holds out a random share: of the articles where there are enough, else of the contexts.

    No context is in both splits, whatever the title above it is.
    """
    titles: dict[str, str] = {}  # of each context, the first
    for example in examples:
        titles.setdefault(example.values["context"], example.values["title"])
    if len(set(titles.values())) < FEW_TOPICS:
        titles = {context: context for context in titles}
    return share_of_topics([replace(e, topic=titles[e.values["context"]]) for e in examples], share)


@dataclass(frozen=True)
class Reader:
    """Reads one file."""

    file: File
    """The file."""
    text: str
    """What it holds."""
    broken: list[Broken]
    """Takes questions and answers that are wrong."""

    def examples(self) -> Iterator[Example]:
        """Its questions.

        Raises:
          UserError: it is no JSON of this shape; says where.
        """
        try:
            content = parse_json(self.text)
        except ValueError as error:
            raise UserError(f"{self.file.path}: {error}") from error
        for place, article in self.members(content, "data", "the file", ""):
            title = self.member(article, "title", str, place) if "title" in as_dict(article) else ""
            for inner, paragraph in self.members(article, "paragraphs", place):
                context = self.member(paragraph, "context", str, inner)
                for where, item in self.members(paragraph, "qas", inner):
                    values = {
                        "id": self.member(item, "id", str, where),
                        "title": title,
                        "context": context,
                        "question": self.member(item, "question", str, where),
                    }
                    given = self.members(item, "answers", where)
                    answers = [
                        (self.member(answer, "text", str, at), as_dict(answer).get("answer_start"))
                        for at, answer in given
                    ]
                    example = self.example(values, answers, item.get("is_impossible"))
                    if example:
                        yield example

    def example(
        self, values: dict[str, Any], answers: list[tuple[str, Any]], impossible: Any
    ) -> Example | None:
        """A question with its answers (text and place), or None if it had to be left out."""
        problem = question_problem(values, answers, impossible)
        if problem:
            self.leave_out(values["id"], problem)
            return None
        good = []
        for text, start in answers:
            wrong = wrong_answer(values["context"], text, start)
            if wrong:
                self.leave_out(values["id"], wrong)
            else:
                good.append((text, start))
        if answers and not good:
            return None  # each answer was reported
        values["answers"] = {"text": [text for text, _ in good], "answer_start": [start for _, start in good]}
        return Example(values | ({} if impossible is None else {"is_impossible": impossible}), self.file)

    def leave_out(self, key: str, reason: str) -> None:
        """Reports a question, with its line where its id can be found."""
        place = max(self.text.find(json.dumps(key)), self.text.find(json.dumps(key, ensure_ascii=False)))
        line = f"line {self.text.count(chr(10), 0, place) + 1}: " if place >= 0 else ""
        self.broken.append((self.file.path, f"{line}question {key!r}: {reason}"))

    def member(self, value: Any, key: str, kind: type, place: str) -> Any:
        """An object's member of a type; `place` is where the object stands."""
        if not isinstance(value, dict) or not isinstance(value.get(key), kind):
            raise UserError(
                f"{self.file.path}: {place} needs {key!r}, {KINDS[kind]}; expected SQuAD's JSON, "
                'as in {"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}'
            )
        return value[key]

    def members(
        self, value: Any, key: str, place: str, prefix: str | None = None
    ) -> Iterator[tuple[str, Any]]:
        """The entries of an object's list, with where they stand: "data[0].paragraphs[3]"."""
        before = f"{place}." if prefix is None else prefix
        for number, entry in enumerate(self.member(value, key, list, place)):
            yield f"{before}{key}[{number}]", entry


def as_dict(value: Any) -> dict[str, Any]:
    """An object, or an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def question_problem(values: dict[str, Any], answers: list[tuple[str, Any]], impossible: Any) -> str | None:
    """Why a question cannot be used, whatever its answers are."""
    for name, value in values.items():
        try:
            storable(value, name)
        except ValueError as error:
            return str(error)
        if name in ("context", "question") and not value.strip():
            return f"its {name} is empty"
    if impossible not in (None, True, False):
        return f"is_impossible is {impossible!r}; expected true or false"
    if impossible and answers:
        return "is_impossible, but there are answers"
    if not impossible and not answers:
        return "has no answers, and is not marked is_impossible"
    return None


def wrong_answer(context: str, text: str, start: Any) -> str | None:
    """What is wrong with an answer; None if the context has it at character `start`."""
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
