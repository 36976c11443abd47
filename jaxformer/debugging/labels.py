"""Whether labels belong to the inputs that they stand with, as far as that can be seen without knowing them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

EXAMPLES = 512
NEAR = (-2, -1, 1, 2)  # examples before and behind
DISTANCES = range(-3, 5)  # places between a token and its target
AGREEMENT = 0.9
CERTAIN = 5.0  # standard deviations


def targets_shifted(batch: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong with the targets of a model that predicts the next token; None if they are the next tokens.

    Args:
      batch: `targets` int [B, T], -1 where there is none, and `decoder_tokens` or `tokens` int [B, T].
    """
    targets = np.asarray(batch["targets"])
    tokens = np.asarray(batch["decoder_tokens"] if "decoder_tokens" in batch else batch["tokens"])
    length = targets.shape[1]
    shares = {}
    for distance in DISTANCES:
        first, last = max(0, -distance), min(length, length - distance)
        asked = targets[:, first:last]
        right = asked == tokens[:, first + distance : last + distance]
        shares[distance] = right[asked >= 0].mean() if (asked >= 0).any() else 0.0
    best = max(shares, key=lambda distance: shares[distance])
    if shares[1] >= AGREEMENT or shares[best] < AGREEMENT:
        return None
    seen = {0: "the very token that it is given", -1: "the token before"}.get(
        best, f"the token {best} places on"
    )
    return f"targets are shifted: the target at a place is {seen} ({shares[best]:.0%}), not the next ({shares[1]:.0%})"


def nearest(features: np.ndarray) -> np.ndarray:
    """int [N]: each example's nearest other one."""
    x = features - features.mean(0)
    squares = (x**2).sum(1)
    distances = squares[:, None] + squares[None, :] - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(1)


def labels_shifted(features: np.ndarray, labels: np.ndarray) -> tuple[bool | None, str]:
    """Whether labels stand with their own examples, as nearest neighbours see it, and what they see.

    Args:
      features: float [N, F], in the order of the dataset.
      labels: int [N].

    Returns:
      True if labels follow from their inputs, False if they follow from those of other examples clearly better, None
      if nothing can be said; and a sentence.
    """
    count, neighbour, draw = len(labels), nearest(features), np.random.default_rng(0)

    def accuracy(labels: np.ndarray) -> float:
        return float((labels[neighbour] == labels).mean())

    others = [accuracy(draw.permutation(labels)) for _ in range(24)]
    chance = float(np.mean(others))
    spread = max(float(np.std(others)), (chance * (1 - chance) / count) ** 0.5, 1 / count)
    own, near = accuracy(labels), {shift: accuracy(np.roll(labels, -shift)) for shift in NEAR}
    best = max(near, key=lambda shift: near[shift])
    if near[best] > max(own, chance) + CERTAIN * spread:
        whose = f"{abs(best)} {'before' if best > 0 else 'behind'} theirs"
        return (
            False,
            f"labels are shifted: they fit the example {whose} ({near[best]:.0%} of nearest neighbours agree)",
        )
    seen = f"{own:.0%} of nearest neighbours agree, {chance:.0%} by chance"
    if own > chance + CERTAIN * spread:
        return True, f"labels follow from the inputs: {seen}"
    return None, f"whether labels belong to their inputs cannot be seen in the inputs themselves: {seen}"


def features_of(batch: Mapping[str, Any]) -> np.ndarray:
    """float32 [B, F]: the pixels of a batch, at most 16 a side, or how often each token is in a text."""
    if "image" in batch:
        image = np.asarray(batch["image"], np.float32)
        steps = [max(1, -(-side // 16)) for side in image.shape[1:3]]
        image = image[:, :: steps[0], :: steps[1]]
        return image.reshape(len(image), -1)
    tokens = np.asarray(batch["tokens"])
    kept = np.asarray(batch.get("token_mask", np.ones_like(tokens, bool)))
    counts = np.zeros((len(tokens), 4096), np.float32)
    rows = np.broadcast_to(np.arange(len(tokens))[:, None], tokens.shape)
    np.add.at(counts, (rows[kept], tokens[kept] % 4096), 1)
    return counts
