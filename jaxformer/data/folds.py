"""The parts that a training split falls into for cross-validation: of each class every part has the same share."""

import re
from typing import Annotated, TypeAlias

import numpy as np

from jaxformer.config.fields import Constraint

FOLD = "fold"  # the name of the split that is held out


def numbers_of(fold: str) -> tuple[int, int]:
    """The number of a fold, from 1, and how many there are: of "2/5" these two; (0, 0) of anything else."""
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", fold)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def is_fold(fold: str) -> bool:
    """Whether this is one of two folds or more."""
    number, count = numbers_of(fold)
    return 1 <= number <= count and count >= 2


Fold: TypeAlias = Annotated[
    str, Constraint("one of 2 or more folds, as in '1/5', the first of five", is_fold)
]


def held_out(labels: np.ndarray, fold: str) -> np.ndarray:
    """Which examples are held out, bool [N]: examples are sorted by label, at random within one, and dealt out.

    So folds differ by at most one example, and by at most one of each class; numbers are spread as evenly. Every seed
    of a training sees the same folds.

    Args:
      labels: [N], the class or the number of each example.
      fold: "2/5".
    """
    number, count = numbers_of(fold)
    dealt = np.empty(len(labels), np.int64)
    dealt[np.lexsort((np.random.default_rng(count).permutation(len(labels)), labels))] = np.arange(
        len(labels)
    )
    return dealt % count == number - 1
