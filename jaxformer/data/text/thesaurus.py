"""Synonyms of words: from a text file, from JSON lines, or from WordNet's database files."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jaxformer.errors import UserError

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")

# Endings of inflected words and what they are replaced with: morph(7WN), "Rules of Detachment".
DETACHMENT: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}

SYNSET = re.compile(r"\d{8} \d\d [nvasr] ([0-9a-f]{2}) ")  # offset, lexicographer's file, type, words
MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand

Synset = tuple[str, ...]


class Thesaurus(Protocol):
    """Words that may stand for another."""

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Synonyms of `word`, sorted, without the word itself; none if it is not known. Case does not matter."""


@dataclass(frozen=True)
class WordList:
    """Synonyms as a table says."""

    table: Mapping[str, tuple[str, ...]]
    """Word in lower case -> its synonyms, sorted."""

    def synonyms(self, word: str) -> tuple[str, ...]:
        """The synonyms of `word`."""
        return self.table.get(word.lower(), ())


@dataclass(frozen=True)
class WordNet:
    """Synonyms as WordNet has them (Fellbaum 1998): the words of every synset that holds the word.

    Inflected words are looked up by their base forms too, so "movies" has "film" and "movie": the lists of
    exceptions come first, else an ending is detached once (morph(7WN)).
    """

    synsets: Mapping[str, Mapping[str, list[Synset]]]
    """Part of speech -> word in lower case -> the synsets that hold it."""
    exceptions: Mapping[str, Mapping[str, list[str]]]
    """Part of speech -> irregular form -> its base forms."""

    def synonyms(self, word: str) -> tuple[str, ...]:
        """The synonyms of `word`; those of several words have spaces."""
        word = word.lower()
        found: set[str] = set()
        for part, synsets in self.synsets.items():
            for base in self.base_forms(word, part):
                for synset in synsets.get(base.replace(" ", "_"), ()):
                    found.update(synset)
        return tuple(sorted(name for name in found if name.lower() != word))

    def base_forms(self, word: str, part: str) -> list[str]:
        """The word itself and what it may be an inflection of, whether or not WordNet has them."""
        if word in self.exceptions[part]:
            return [word, *self.exceptions[part][word]]
        rules = [(ending, base) for ending, base in DETACHMENT[part] if word.endswith(ending)]
        return [word, *(word[: -len(ending)] + base for ending, base in rules)]


def load_thesaurus(path: str) -> Thesaurus:
    """Reads a thesaurus.

    Args:
      path: a text file of lines "word: synonym, synonym" (blank lines and lines that begin with # are
        skipped); a file NAME.jsonl of lines {"word": "big", "synonyms": ["large"]} (other keys are ignored);
        or a folder of WordNet's database files data.{noun,verb,adj,adv} and {noun,verb,adj,adv}.exc, wndb(5WN),
        as Debian's package wordnet-base (/usr/share/wordnet) or NLTK's corpora/wordnet.

    Raises:
      UserError: there is no such file, or a line of it cannot be read; names file and line.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return read_wordnet(place)
    read = read_json_line if place.suffix == ".jsonl" else read_text_line
    table: dict[str, set[str]] = {}
    for number, line in numbered_lines(place):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            word, synonyms = read(line)
        except ValueError as error:
            raise UserError(f"{place}, line {number}: {error}") from error
        names = {synonym for synonym in synonyms if synonym.lower() != word.lower()}
        table.setdefault(word.lower(), set()).update(names)
    if not table:
        raise UserError(f"thesaurus {place}: holds no words; write lines as in 'big: large, huge'")
    return WordList({word: tuple(sorted(names)) for word, names in table.items()})


def read_text_line(line: str) -> tuple[str, list[str]]:
    """(word, synonyms) of "word: synonym, synonym"; ValueError says what is wrong."""
    word, colon, rest = line.partition(":")
    synonyms = [" ".join(name.split()) for name in rest.split(",")]
    if not colon or not word.strip() or not all(synonyms):
        raise ValueError(
            f"{line.strip()!r} is not a word and its synonyms; write it as in 'big: large, huge'"
        )
    return " ".join(word.split()), synonyms


def read_json_line(line: str) -> tuple[str, list[str]]:
    """(word, synonyms) of {"word": ..., "synonyms": [...]}; ValueError says what is wrong."""
    remedy = 'write it as in {"word": "big", "synonyms": ["large", "huge"]}'
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error}); {remedy}") from error
    word, synonyms = (entry.get("word"), entry.get("synonyms")) if isinstance(entry, dict) else (None, None)
    names = [word, *synonyms] if isinstance(synonyms, list) else []
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"is not a word and its synonyms; {remedy}")
    first, *rest = [" ".join(str(name).split()) for name in names]
    return first, rest


def read_wordnet(folder: Path) -> WordNet:
    """Reads WordNet's database files, about a second's work.

    Raises:
      UserError: a file is missing, or a line does not have the format of wndb(5WN).
    """
    files = [f"data.{part}" for part in PARTS_OF_SPEECH] + [f"{part}.exc" for part in PARTS_OF_SPEECH]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"thesaurus {folder}: a folder without {', '.join(missing)}, so not WordNet's",
            "name a text file, or the folder of WordNet's database (Debian: apt-get install wordnet-base, "
            "then /usr/share/wordnet)",
        )
    return WordNet(
        {part: read_synsets(folder / f"data.{part}") for part in PARTS_OF_SPEECH},
        {part: read_exceptions(folder / f"{part}.exc") for part in PARTS_OF_SPEECH},
    )


def read_synsets(path: Path) -> dict[str, list[Synset]]:
    """Word (lower case, with underscores) -> its synsets, of a file data.POS; names have spaces."""
    synsets: dict[str, list[Synset]] = {}
    for number, line in numbered_lines(path):
        if line.startswith("  "):  # the licence
            continue
        head = SYNSET.match(line)
        count = int(head[1], 16) if head else 0
        fields = line[head.end() :].split(" ", 2 * count) if head else []
        if not head or len(fields) <= 2 * count:
            raise UserError(
                f"{path}, line {number}: {line[:60].strip()!r} is not a synset of WordNet's; "
                "restore the file, or install WordNet again"
            )
        names = [MARKER.sub("", name) for name in fields[: 2 * count : 2]]
        synset = tuple(name.replace("_", " ") for name in names)
        for name in {name.lower() for name in names}:
            synsets.setdefault(name, []).append(synset)
    return synsets


def read_exceptions(path: Path) -> dict[str, list[str]]:
    """Irregular form -> base forms, of a file POS.exc."""
    lines = (line.split() for _, line in numbered_lines(path))
    return {fields[0]: fields[1:] for fields in lines if fields}


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of a UTF-8 file.

    Raises:
      UserError: it is not there, or no text.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from enumerate(file, 1)
    except FileNotFoundError as error:
        raise UserError(f"thesaurus {path}: no such file or folder; correct the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"thesaurus {path}: cannot be read as UTF-8 text ({error})") from error
