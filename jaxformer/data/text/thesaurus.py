"""Synonyms of words: from a text file, from JSON lines, or from WordNet's database files.

WordNet is read here and not by NLTK, which reads the same files: it would be one more package for these few lines.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.reading import numbered_lines, numbered_objects

# Part of speech -> endings of inflected words with what they are replaced by, "-" being the end of the word:
# morph(7WN), "Rules of Detachment".
DETACHMENT = {
    "noun": "s-, ses-s, xes-x, zes-z, ches-ch, shes-sh, men-man, ies-y",
    "verb": "s-, ies-y, es-e, es-, ed-e, ed-, ing-e, ing-",
    "adj": "er-, est-, er-e, est-e",
    "adv": "",
}
RULES = {
    part: [tuple(rule.split("-")) for rule in rules.split(", ") if rule] for part, rules in DETACHMENT.items()
}
SYNSET = re.compile(r"\d{8} \d\d [nvasr] ([0-9a-f]{2}) ")  # offset, lexicographer's file, type, words
MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand
DATABASE = "the folder of WordNet's database (Debian: apt-get install wordnet-base, then /usr/share/wordnet)"


@dataclass(frozen=True)
class Thesaurus:
    """Words that may stand for others. The keys of all tables are in lower case."""

    groups: Mapping[str, Mapping[str, list[tuple[str, ...]]]]
    """Part of speech -> word -> groups of synonyms that it has (WordNet's synsets); a word list is of the part ""."""
    exceptions: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    """Part of speech -> irregular form -> its base forms."""

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Synonyms of `word`, sorted, without the word itself; none if it is not known. Case does not matter.

        Where there are parts of speech, an inflected word is looked up by its base forms too, so that "movies" has
        "film" and "movie".
        """
        word = word.lower()
        found = {
            name
            for part, groups in self.groups.items()
            for base in self._base_forms(word, part)
            for group in groups.get(base, ())
            for name in group
        }
        return tuple(sorted(name for name in found if name.lower() != word))

    def _base_forms(self, word: str, part: str) -> list[str]:
        """The word itself and what it may be an inflection of: exceptions first, else one ending is detached."""
        irregular = self.exceptions.get(part, {}).get(word)
        detached = (word.removesuffix(end) + base for end, base in RULES.get(part, ()) if word.endswith(end))
        return [word, *(detached if irregular is None else irregular)]


def word_list(entries: Iterable[tuple[str, Iterable[str]]]) -> Thesaurus:
    """The thesaurus of (word, synonyms) as they are written; a word may come several times."""
    table: dict[str, list[tuple[str, ...]]] = {}
    for word, synonyms in entries:
        table.setdefault(word.lower(), []).append(tuple(synonyms))
    return Thesaurus({"": table})


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
    thesaurus = word_list(entries(place))
    if not thesaurus.groups[""]:
        raise UserError(f"thesaurus {place}: holds no words; write lines as in 'big: large, huge'")
    return thesaurus


def entries(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(word, synonyms) of lines "word: synonym, synonym", or {"word": ..., "synonyms": [...]} in a .jsonl."""
    found: Iterable[tuple[int, str, list[Any]]]  # number, the line as a message shows it, names
    if path.suffix == ".jsonl":
        sample = '{"word": "big", "synonyms": ["large", "huge"]}'
        found = ((number, "", names_of_object(entry)) for number, entry in numbered_objects(path))
    else:
        sample = "'big: large, huge'"
        lines = ((number, line) for number, line in numbered_lines(path) if not line.startswith("#"))
        found = ((number, f"{line.strip()!r} ", names_of_text(line)) for number, line in lines)
    for number, shown, names in found:
        if not all(isinstance(name, str) and name.strip() for name in names):
            problem = f"{shown}is not a word and its synonyms; write it as in {sample}"
            raise UserError(f"{path}, line {number}: {problem}")
        word, *synonyms = (" ".join(name.split()) for name in names)
        yield word, synonyms


def names_of_text(line: str) -> list[Any]:
    """A word and its synonyms; None, which is no name, where there is no colon."""
    word, colon, rest = line.partition(":")
    return [word, *rest.split(",")] if colon else [None]


def names_of_object(entry: Mapping[str, Any]) -> list[Any]:
    """A word and its synonyms; None, which is no name, where there is no list of them."""
    synonyms = entry.get("synonyms")
    return [entry.get("word"), *synonyms] if isinstance(synonyms, list) else [None]


def read_wordnet(folder: Path) -> Thesaurus:
    """Reads WordNet's database files (Fellbaum 1998), about a second's work.

    Raises:
      UserError: a file is missing, or a line does not have the format of wndb(5WN).
    """
    names = [name for part in DETACHMENT for name in (f"data.{part}", f"{part}.exc")]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            f"thesaurus {folder}: a folder without {', '.join(missing)}, so not WordNet's",
            f"name a text file, or {DATABASE}",
        )
    return Thesaurus(
        {part: read_synsets(folder / f"data.{part}") for part in DETACHMENT},
        {part: read_exceptions(folder / f"{part}.exc") for part in DETACHMENT},
    )


def read_synsets(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """Word in lower case -> its synsets, of a file data.POS; words that it writes with "_" have spaces."""
    synsets: dict[str, list[tuple[str, ...]]] = {}
    for number, line in numbered_lines(path):
        if line.startswith("  "):  # the licence
            continue
        head = SYNSET.match(line)
        count = int(head[1], 16) if head else 0
        fields = line[head.end() :].split(" ", 2 * count) if head else []
        if len(fields) <= 2 * count:
            raise UserError(
                f"{path}, line {number}: {line[:60].strip()!r} is not a synset of WordNet's; "
                "restore the file, or install WordNet again"
            )
        synset = tuple(MARKER.sub("", name).replace("_", " ") for name in fields[: 2 * count : 2])
        for name in {name.lower() for name in synset}:
            synsets.setdefault(name, []).append(synset)
    return synsets


def read_exceptions(path: Path) -> dict[str, list[str]]:
    """Irregular form -> base forms, of a file POS.exc."""
    lines = ([name.replace("_", " ") for name in line.split()] for _, line in numbered_lines(path))
    return {form: bases for form, *bases in lines}
