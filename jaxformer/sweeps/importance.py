"""Which parameters of a sweep matter: a random forest learns the trials' places from their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxformer.sweeps.axes import Axis

FEWEST = 8  # trials from which something is learnt
FOLDS, TREES, SHUFFLES = 5, 64, 5


@dataclass(frozen=True)
class Importances:
    """What a forest says of parameters."""

    shares: Mapping[str, float]
    """Path -> its share of what all parameters explain, the largest first; they add up to 1, or all are 0."""
    explained: float
    """R2 of the places of trials that a forest has not seen; 0 or less: it has learnt nothing."""
    trials: int
    """How many trials it is of."""


def importances(
    axes: Sequence[Axis], values: Sequence[Mapping[str, Any]], places: Sequence[float]
) -> Importances | None:
    """How much worse a forest tells the places of unseen trials when the values of one parameter are shuffled.

    Permutation importance (Breiman 2001, https://doi.org/10.1023/A:1010933404324) of scikit-learn's forest, on the
    held-out fifth of a cross-validation. Places, and not metrics: a trial that diverged would count for all.

    Args:
      axes: the parameters.
      values: of each trial, by path.
      places: of each trial, from 0 for the best; trials that failed share the last one.

    Returns:
      None of fewer than FEWEST trials, and where all trials are the same.
    """
    columns = np.array([[axis.feature(each.get(axis.path)) for axis in axes] for each in values], float)
    target = np.asarray(places, float)
    if len(target) < FEWEST or not axes or np.ptp(target) == 0:
        return None
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    columns[:, np.isnan(columns).all(axis=0)] = 0.0
    lost, guessed, random = np.zeros(len(axes)), np.zeros(len(target)), np.random.default_rng(0)
    for learnt, unseen in KFold(FOLDS, shuffle=True, random_state=0).split(columns):
        forest = RandomForestRegressor(TREES, random_state=0).fit(columns[learnt], target[learnt])
        shuffled = np.tile(columns[unseen], (len(axes), SHUFFLES, 1, 1))
        for column in range(len(axes)):
            shuffled[column, ..., column] = random.permuted(shuffled[column, ..., column], axis=-1)
        guesses = forest.predict(np.concatenate([columns[unseen], shuffled.reshape(-1, len(axes))]))
        guessed[unseen], others = guesses[: len(unseen)], guesses[len(unseen) :].reshape(len(axes), -1)
        wrong = (guesses[: len(unseen)] - target[unseen]) ** 2
        lost += np.mean((others - np.tile(target[unseen], SHUFFLES)) ** 2, axis=1) - wrong.mean()
    lost = np.maximum(lost, 0.0)
    shares = lost / lost.sum() if lost.sum() else lost
    order = np.argsort(-shares, kind="stable")
    explained = float(r2_score(target, guessed))
    return Importances({axes[i].path: float(shares[i]) for i in order}, explained, len(target))
