"""What a format reads: examples with their features; how they are checked and divided into splits."""

from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxformer.data.names import class_name
from jaxformer.data.writing import held_out_places
from jaxformer.errors import UserError
from jaxformer.importing.images import Opened
from jaxformer.importing.sources import SPLITS, Broken, File, listing
from jaxformer.reading import lines_of, read_text


@dataclass(frozen=True)
class Example:
    """An example that was read."""

    values: dict[str, Any]
    """Values by feature, as TFDS encodes them; a function is called when the example is written."""
    file: File
    """Where it is from, which tells the split."""
    label: str = ""
    """Its class, where the same share of each class is held out."""
    classes: Set[Any] = frozenset()
    """All its classes, where an example has several: of its objects, its pixels or its words."""
    image: Opened | None = None
    """Its image; identical images are taken once."""
    annotation: Any = None
    """What was said of its image; identical images need the same."""


Examples: TypeAlias = Sequence[Example]
Divided: TypeAlias = tuple[list[Example], list[Example]]


def shares_of_labels(examples: Examples, share: float) -> Divided:
    """Holds out a random `share` of each label (rounded), but never the last example of it."""
    return divided(examples, held_out_places([example.label for example in examples], share))


def random_share(examples: Examples, share: float) -> Divided:
    """Holds out a random `share` (rounded), but never the last example."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(examples))
    return divided(examples, set(order[: min(round(len(examples) * share), len(examples) - 1)].tolist()))


def divided(examples: Examples, held_out: set[int]) -> Divided:
    """The examples that stay, and those at the places `held_out`."""
    stay = [example for place, example in enumerate(examples) if place not in held_out]
    return stay, [examples[place] for place in sorted(held_out)]


def several(names: list[str], seen: Set[Any], source: Path) -> list[str]:
    """Refuses a single class, with which there is nothing to learn."""
    if len(names) == 1:
        raise UserError(f"{source}: there is only the class {names[0]!r}; two are needed at least")
    return []


def all_in_train(names: list[str], seen: Set[Any], source: Path) -> list[str]:
    """Refuses a single class, and classes that no example in train is of."""
    missing = ", ".join(name for name in names if name not in seen)
    if len(names) > 1 and missing:
        raise UserError(f"{source}: no example in train for {missing}; check how classes are spelt")
    return several(names, seen, source)


@dataclass
class Contents:
    """What a format found in the sources."""

    features: dict[str, Any]
    """TFDS feature connectors by name."""
    examples: list[Example]
    """In the order of the files."""
    class_names: list[str] = field(default_factory=list)
    """The classes, in the order of their labels."""
    notes: list[str] = field(default_factory=list)
    """What was changed or left out by intent; a line for people each."""
    hold_out: Callable[[Examples, float], Divided] = shares_of_labels
    """Divides examples without splits into those to train on and those to test with; always in the same way."""
    check: Callable[[list[str], Set[Any], Path], list[str]] = all_in_train
    """Compares the classes with those of the examples to train on; the source is for messages. It returns notes, or
    raises a UserError."""


def into_splits(
    examples: Examples, hold_out: Callable[[Examples, float], Divided], share: float, source: Path
) -> dict[str, list[Example]]:
    """Examples by split: as the files tell, or divided into train and test.

    Raises:
      UserError: only some examples have a split, or none is for training.
    """
    by_split = {split: [e for e in examples if e.file.split == split] for split in SPLITS}
    splits = {split: members for split, members in by_split.items() if members}
    undivided = list(dict.fromkeys(e.file.path for e in examples if e.file.split is None))
    if not splits:
        train, test = hold_out(examples, share)
        return {"train": train} | ({"test": test} if test else {})
    if undivided:
        split, (first, *_) = next(iter(splits.items()))
        raise UserError(
            f"{source}: {first.file.name} is in the split {split!r}, and {listing(undivided)} in none; put all into "
            "train, validation (val) and test, by the names of files or folders, or none of them"
        )
    if "train" not in splits:
        names = " and ".join(splits)
        raise UserError(f"{source}: there is {names}, but no train; add it, or rename the files or folders")
    return splits


def without_copies(examples: Examples, broken: list[Broken]) -> tuple[list[Example], list[Path]]:
    """The first of identical images, and the others: a copy could be evaluated on after it has been learnt.

    Copies that are annotated otherwise go to `broken`.

    Raises:
      UserError: the same image is in two classes or two splits.
    """
    first: dict[Hashable, Example] = {}
    copies: list[Path] = []
    for number, example in enumerate(examples):
        other = first.setdefault(number if example.image is None else example.image.digest, example)
        ours, theirs = example.file, other.file
        if other is example:
            continue
        for what, one, two in (("labels", other.label, example.label), ("splits", theirs.split, ours.split)):
            if one != two:
                both = f"{theirs.path} and {ours.path} are the same image"
                raise UserError(f"{both}, with the {what} {one!r} and {two!r}; remove one")
        if example.annotation == other.annotation:
            copies.append(ours.path)
        else:
            broken.append((ours.path, f"is the same image as {theirs.path}, with other annotations"))
    return list(first.values()), copies


def natural(name: str) -> tuple[bool, int, str, str]:
    """A sort key that orders numbers by value, before words."""
    digits = name.lstrip("0") if name.isdecimal() else ""
    return not name.isdecimal(), len(digits), digits, name


def checked_names(where: str | Path, names: Sequence[str]) -> list[str]:
    """The classes that a file or an option lists, by their keys; refuses what can be no name, and two of one class."""
    if not names:
        raise UserError(f"{where}: has no names of classes")
    written: dict[str, str] = {}
    for name in names:
        try:
            key = class_name(name, f"{where}: ")
        except ValueError as error:
            raise UserError(str(error)) from error
        if key in written:
            both = "" if name == key == written[key] else f", as {written[key]!a} and {name!a}"
            raise UserError(f"{where}: the class {key!r} is there twice{both}")
        written[key] = name
    return list(written)


def read_names(path: Path) -> list[str]:
    """The names of classes in a file, one a line."""
    return checked_names(path, lines_of(read_text(path).rstrip()))
