"""Paraphrases by translating texts and translating them back, with two runs of our own; written so as to go on later.

(Sennrich et al. 2016, arXiv 1511.06709; Xie et al. 2020, UDA, arXiv 1904.12848, for augmenting texts.)
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.data.text.paraphrases import HEADER
from jaxformer.errors import UserError
from jaxformer.files import json_line, put_in_place, write_atomically
from jaxformer.inference.writing import Generation, Writer
from jaxformer.runs import Run
from jaxformer.tasks.translation import Translation

CHUNK = 128  # texts that are written at a time


@dataclass(frozen=True)
class BackTranslation:
    """How texts are translated there and back."""

    forward: Writer
    """Writes texts in another language."""
    backward: Writer
    """Writes them in the first one again."""
    how: Generation
    """How each of the two is asked to."""
    samples: int = 1
    """Times that it is done with each text."""

    def paraphrases(self, texts: Sequence[str], number: int) -> list[list[str]]:
        """The paraphrases of each text, from none to `samples`, without repeats and the text itself.

        A text, or its translation, of which no translation comes to an end has none: see `translations`.

        Args:
          texts: what to paraphrase.
          number: of these texts among others: with `how.seed` it decides what is drawn.
        """
        seeds = np.random.SeedSequence([self.how.seed, number]).generate_state(2) // 2
        repeated = [index for index in range(len(texts)) for _ in range(self.samples)]
        there, back = (replace(self.how, seed=int(seed)) for seed in seeds)
        foreign = translations(self.forward, [texts[index] for index in repeated], there)
        returned = translations(self.backward, foreign, back)
        found: list[dict[str, None]] = [{} for _ in texts]
        for index, paraphrase in zip(repeated, returned):
            if paraphrase and paraphrase.split() != texts[index].split():
                found[index][paraphrase] = None
        return [list(paraphrases) for paraphrases in found]


def translations(writer: Writer, texts: Sequence[str | None], how: Generation) -> list[str | None]:
    """A translation of each text, without white space around it.

    None where there is no text, the text is longer than the model takes or has a character that its tokenizer lacks,
    or the translation has not come to an end when the model's context does.
    """
    prompts: dict[int, list[int]] = {}
    for index, text in enumerate(texts):
        with suppress(UserError):  # of a character that the tokenizer lacks
            if text is not None and text.strip() and len(ids := writer.encode(text)) <= writer.context_length:
                prompts[index] = ids
    found: list[str | None] = [None] * len(texts)
    for index, continuation in zip(prompts, writer.generate(list(prompts.values()), how)):
        if continuation.ended == "end of text":
            found[index] = continuation.text.strip()
    return found


# The two runs.


def check_runs(forward: Path, backward: Path) -> None:
    """Refuses runs that do not translate, or of which the second does not go back; before anything is loaded.

    Raises:
      UserError: names the run.
    """
    directions = []
    for folder in (forward, backward):
        config = Run.open(folder).read_config()
        if not isinstance(config.task, Translation):
            remedy = "name a run with task.name='translation'"
            raise UserError(f"{folder}: its task is {type(config.task).__name__}; {remedy}")
        examples = config.data.examples
        directions.append((config.data.name, examples.source_feature, examples.target_feature))
    if directions[0] == directions[1]:
        _, source, target = directions[1]
        both = f"goes from {source!r} to {target!r}, as {forward} does"
        raise UserError(f"{backward}: {both}; name a run that goes back")


# The file.


def write_paraphrases(
    path: Path, made: Mapping[str, Any], texts: Sequence[str], by: BackTranslation
) -> Iterator[int]:
    """Writes the paraphrases of texts, and goes on where an earlier call was stopped.

    They are in FILE.part until all are there: lines of CHUNK texts are added at a time. What is drawn depends on a
    chunk's number, so that the file is the same however often it was stopped.

    Args:
      path: the file; see `data/text/paraphrases.py`.
      made: JSON values: all that decides what the file holds.
      texts: no two are the same.
      by: what makes them.

    Yields:
      How many texts are done: first those that were before.

    Raises:
      UserError: the file, or its part, was made in another way.
    """
    header = json_line({HEADER: made})
    if path.exists():
        whole_lines(path, header)
        yield len(texts)
        return
    part = path.with_name(f"{path.name}.part")
    lines = whole_lines(part, header) if part.exists() else [header]
    done = (len(lines) - 1) // CHUNK * CHUNK
    write_atomically(part, "".join(lines[: 1 + done]))
    yield done
    with part.open("a", encoding="utf-8") as file:
        for first in range(done, len(texts), CHUNK):
            chunk = texts[first : first + CHUNK]
            for text, found in zip(chunk, by.paraphrases(chunk, first // CHUNK)):
                file.write(json_line({"text": text, "paraphrases": found}))
            file.flush()
            os.fsync(file.fileno())
            yield first + len(chunk)
    put_in_place(part, path)


def whole_lines(path: Path, header: str) -> list[str]:
    """The lines of a file with their ends, without a last line that an interruption has cut off.

    Raises:
      UserError: the file does not begin with `header`.
    """
    *lines, _ = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    if lines[:1] != [header.removesuffix("\n")]:
        raise UserError(
            f"{path}: is there already, and was made of other texts, by other runs or in another way",
            "delete it, or name another file",
        )
    return [f"{line}\n" for line in lines]
