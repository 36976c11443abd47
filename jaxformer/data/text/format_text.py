"""Plain text: each file, paragraph or line is an example."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import ClassVar, Literal

from jaxformer.data.text.formats import Broken, Example, Parsed, TextFile, lines_of, read_files


@dataclass(frozen=True)
class TextFormat:
    """UTF-8 texts as examples of `text` and `path`."""

    extensions: ClassVar[frozenset[str]] = frozenset({".txt", ".text", ".md"})
    test_share: ClassVar[float] = 0.1

    unit: Literal["file", "paragraph", "line"] = "file"
    """What an example is: a whole "file", a "paragraph" (blank lines are between them) or a "line" (blank
    ones are none)."""

    def problems(self) -> Iterator[str]:
        """Yields nothing: every option works."""
        yield from ()

    def read(self, files: Sequence[TextFile], broken: list[Broken]) -> Parsed:
        """All texts, in the order of the files."""
        import tensorflow_datasets as tfds

        features = {"text": tfds.features.Text(), "path": tfds.features.Text()}
        examples = [
            Example({"text": unit, "path": file.name}, file.split)
            for file, text in read_files(files, broken)
            for unit in self.units(text)
        ]
        return Parsed(features, examples)

    def units(self, text: str) -> list[str]:
        """A text's documents."""
        if self.unit == "file":
            return [text]
        lines = lines_of(text)
        if self.unit == "line":
            return [line for line in lines if line.strip()]
        return [
            "\n".join(block) for filled, block in groupby(lines, lambda line: bool(line.strip())) if filled
        ]

    def hold_out(self, examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
        """Cuts the tail off: `share` of all characters, from the character on where a file has to be cut.

        For a single file that is nanoGPT's split (data/shakespeare_char/prepare.py). Paragraphs and lines
        stay whole: those that reach into the tail are held out.
        """
        if not share or not examples:
            return examples, []
        ends = list(accumulate(len(example.values["text"]) for example in examples))
        cut = min(int(ends[-1] * (1 - share)), ends[-1] - 1)
        place = bisect.bisect_right(ends, cut)  # the first example that reaches beyond the cut
        if self.unit != "file":
            place = min(max(place, 1), max(len(examples) - 1, 1))
            return examples[:place], examples[place:]
        inside = max(cut - (ends[place - 1] if place else 0), 0 if place else 1)
        text = examples[place].values["text"]
        halves = [
            [replace(examples[place], values=examples[place].values | {"text": half})] if half else []
            for half in (text[:inside], text[inside:])
        ]
        return examples[:place] + halves[0], halves[1] + examples[place + 1 :]
