"""Chooses the examples that a report shows: some of all, and the worst mistakes, with where the model looked."""

import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxformer.data import Batches
from jaxformer.parallel.compile import Layout
from jaxformer.paths import leaves_by_path
from jaxformer.tasks.base import Task

Tree = Any
LOOKED_AT_MOST = 10_000


@dataclass(frozen=True)
class Shown:
    """Examples with what the model made of them.

    Attributes:
      images: uint8 [N, H, W, C].
      labels: int [N].
      probabilities: float32 [N, K].
      attention: float32 [N, L, heads, T, T], or None for a model without attention.
    """

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    attention: np.ndarray | None


def predictions(
    model: Any, task: Task, variables: Tree, batches: Batches, layout: Layout
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and probabilities [N, K] of a split's first examples, LOOKED_AT_MOST of them."""

    def predict(variables: Tree, batch: Tree) -> tuple[jax.Array, jax.Array, jax.Array]:
        outputs = model.apply(variables, **task.inputs(batch), deterministic=True)
        return batch["example_mask"], batch["labels"], task.probabilities(outputs)

    predict_step = jax.jit(predict, out_shardings=layout.replicated)
    count = min(len(batches), -(-LOOKED_AT_MOST // batches.batch_size))
    reader = batches.read(0, jax.process_index(), jax.process_count(), stop=count)
    found = [predict_step(variables, layout.put(batch)) for batch in reader]
    mask, labels, probabilities = (np.concatenate(parts) for parts in zip(*jax.device_get(found)))
    return labels[mask], probabilities[mask]


def show(
    model: Any, task: Task, variables: Tree, batches: Batches, rows: np.ndarray, probabilities: np.ndarray
) -> Shown:
    """The examples `rows` of a split, with attention.

    Args:
      rows: int [M], positions in the split.
      probabilities: float32 [N, K] of the whole split.
    """
    where = [divmod(int(row), batches.batch_size) for row in rows]
    needed = {number: batches[number] for number in sorted({number for number, _ in where})}
    batch = {
        name: np.stack([needed[number][name][row] for number, row in where]) for name in ("image", "labels")
    }
    attention = attention_maps(model, task, variables, batch)
    return Shown(batch["image"], batch["labels"], probabilities[rows], attention)


def attention_maps(model: Any, task: Task, variables: Tree, batch: Tree) -> np.ndarray | None:
    """Every layer's attention weights [B, L, heads, T, T]; None if the model has none, or of several sizes."""

    def weights(variables: Tree, batch: Tree) -> Tree:
        mutable = ["attention_maps"]
        return model.apply(variables, **task.inputs(batch), deterministic=True, mutable=mutable)[1]

    maps = jax.device_get(jax.jit(weights)(variables, batch))
    layers: list[np.ndarray] = []
    for _, leaf in sorted(leaves_by_path(maps).items(), key=lambda item: natural(item[0])):
        layers.extend(leaf if leaf.ndim == 5 else [leaf])  # scanned layers come stacked: [L, B, heads, T, T]
    square = [layer for layer in layers if layer.ndim == 4 and layer.shape[-1] == layer.shape[-2]]
    if not square or len({layer.shape for layer in square}) > 1:
        return None
    return np.stack(square, axis=1).astype(np.float32)


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts block_2 before block_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
