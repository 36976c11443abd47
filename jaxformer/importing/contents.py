"""What a format reads: examples with their features; how they are checked and divided into splits."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxformer.data.writing import held_out_places
from jaxformer.errors import UserError
from jaxformer.importing.sources import SPLITS, Broken, File, listing


@dataclass(frozen=True)
class Example:
    """An example that was read."""

    values: dict[str, Any]
    """Values by feature, as TFDS encodes them; a function is called when the example is written."""
    file: File
    """Where it is from, which tells the split."""
    label: str = ""
    """Its class, where the same share of each class is held out."""
    topic: str = ""
    """What it is about, where examples of one topic stay in one split."""
    digest: bytes | None = None
    """The digest of its image; identical images are taken once."""
    annotation: Any = None
    """What identical images have to be annotated with alike."""


Examples: TypeAlias = Sequence[Example]
Divided: TypeAlias = tuple[list[Example], list[Example]]


def shares_of_labels(examples: Examples, share: float) -> Divided:
    """Holds out a random `share` of each label (rounded), but never the last example of it."""
    return divided(examples, held_out_places([example.label for example in examples], share))


def random_share(examples: Examples, share: float) -> Divided:
    """Holds out a random `share` (rounded), but never the last example."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(examples))
    return divided(examples, set(order[: min(round(len(examples) * share), len(examples) - 1)].tolist()))


def share_of_topics(examples: Examples, share: float) -> Divided:
    """Holds out random whole topics, as near to `share` of the examples as they come; one topic stays."""
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[example.topic] = sizes.get(example.topic, 0) + 1
    topics = sorted(sizes)
    order = np.argsort(np.random.Generator(np.random.PCG64(0)).random(len(topics)), kind="stable")
    wanted, count = share * len(examples), 0
    chosen: set[str] = set()
    for topic in (topics[number] for number in order[: len(topics) - 1]):
        if count + sizes[topic] / 2 <= wanted:
            chosen.add(topic)
            count += sizes[topic]
    return divided(examples, {place for place, e in enumerate(examples) if e.topic in chosen})


def divided(examples: Examples, held_out: set[int]) -> Divided:
    """The examples that stay, and those at the places `held_out`."""
    stay = [example for place, example in enumerate(examples) if place not in held_out]
    return stay, [examples[place] for place in sorted(held_out)]


def nothing_to_check(train: Examples, source: Path) -> list[str]:
    """A check that finds nothing."""
    return []


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
    check: Callable[[Examples, Path], list[str]] = nothing_to_check
    """Looks at the examples to train on (and the source, for messages); returns more notes, or raises a UserError."""


def into_splits(contents: Contents, source: Path, share: float) -> dict[str, list[Example]]:
    """Examples by split: as the files tell, or divided into train and test.

    Raises:
      UserError: only some examples have a split, or none is for training.
    """
    examples = contents.examples
    named = [example.file for example in examples if example.file.split is not None]
    unnamed = dict.fromkeys(example.file.path for example in examples if example.file.split is None)
    if not named:
        train, test = contents.hold_out(examples, share)
        return {"train": train} | ({"test": test} if test else {})
    if unnamed:
        raise UserError(
            f"{source}: {named[0].name} is in the split {named[0].split!r}, and {listing(list(unnamed))} in none; "
            "put all into train, validation (val) and test, by the names of files or folders, or none of them"
        )
    splits = {split: [e for e in examples if e.file.split == split] for split in SPLITS}
    splits = {split: members for split, members in splits.items() if members}
    if "train" not in splits:
        raise UserError(
            f"{source}: there is {' and '.join(splits)}, but no train; add it, or rename the files or folders"
        )
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
        other = first.setdefault(number if example.digest is None else example.digest, example)
        ours, theirs = example.file, other.file
        if other is example:
            continue
        for what, one, two in (("labels", other.label, example.label), ("splits", theirs.split, ours.split)):
            if one != two:
                raise UserError(
                    f"{theirs.path} and {ours.path} are the same image, with the {what} {one!r} and {two!r}; remove one"
                )
        if example.annotation == other.annotation:
            copies.append(ours.path)
        else:
            broken.append((ours.path, f"is the same image as {theirs.path}, with other annotations"))
    return list(first.values()), copies
