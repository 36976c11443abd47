"""Splits of annotated pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxformer.data.importing import Checked
from jaxformer.data.text.formats import Broken
from jaxformer.errors import UserError

Item = TypeVar("Item")


def held_out(
    items: Sequence[Item], splits: Sequence[str | None], test_share: float, source: Path
) -> dict[str, list[Item]]:
    """Items by split: those that they have, or train and test, a random `test_share`, always the same.

    Raises:
      UserError: nothing is left, or nothing of it is for training.
    """
    if not items:
        raise UserError(f"{source}: no readable pictures are left")
    if any(split is not None for split in splits):
        members = {
            split: [item for item, own in zip(items, splits) if own == split]
            for split in ("train", "validation", "test")
        }
        members = {split: found for split, found in members.items() if found}
        if "train" not in members:
            raise UserError(
                f"{source}: there is {' and '.join(members)}, but no train; add it, or rename the files"
            )
        return members
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(items))
    count = min(round(len(items) * test_share), len(items) - 1)
    test = set(order[:count].tolist())
    members = {"train": [item for place, item in enumerate(items) if place not in test]}
    return members | ({"test": [items[place] for place in sorted(test)]} if test else {})


def without_copies(
    items: Sequence[Item], checked: Callable[[Item], Checked], annotated: Callable[[Item], Any]
) -> tuple[list[Item], list[Path], list[Broken]]:
    """The first of identical pictures; a copy could be evaluated on after it has been learnt.

    Args:
      items: pictures with their annotations.
      checked: an item -> its picture's file.
      annotated: an item -> what it is annotated with.

    Returns:
      What is kept; copies that are annotated alike; copies that are annotated otherwise, which is a mistake.

    Raises:
      UserError: the same picture is in two splits.
    """
    first: dict[bytes, Item] = {}
    kept, copies, broken = [], [], []
    for item in items:
        other = first.setdefault(checked(item).digest, item)
        ours, theirs = checked(item).picture, checked(other).picture
        if other is item:
            kept.append(item)
        elif ours.split != theirs.split:
            splits = f"{theirs.split!r} and {ours.split!r}"
            raise UserError(
                f"{theirs.path} and {ours.path} are the same picture, in the splits {splits}; remove one"
            )
        elif annotated(item) == annotated(other):
            copies.append(ours.path)
        else:
            broken.append((ours.path, f"is the same picture as {theirs.path}, with other annotations"))
    return kept, copies, broken
