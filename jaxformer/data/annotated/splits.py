"""Splits of annotated pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxformer.data.importing import Checked
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


def refuse_copies(checked: Sequence[Checked]) -> None:
    """Refuses a picture in two splits: what it is evaluated on would have been learnt."""
    first: dict[bytes, Checked] = {}
    for item in checked:
        other = first.setdefault(item.digest, item)
        if other.picture.split != item.picture.split:
            splits = f"{other.picture.split!r} and {item.picture.split!r}"
            raise UserError(
                f"{other.picture.path} and {item.picture.path} are the same picture, in the splits {splits}; remove one"
            )
