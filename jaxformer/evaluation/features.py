"""What a model makes of whole inputs below its head, kept on disk; and classifiers on it: the encoder stays as it is.

What decides them is hashed: the bytes of the weights, the fields of the model, and the arrays of every batch. So other
weights, other examples and other transforms are noticed, at the cost of reading the split each time; the model does
not run again.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.schema import to_dict
from jaxformer.data.text.cache import Writer, cached
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.models.outputs import ImageOutputs, TextOutputs, mean_of_tokens
from jaxformer.paths import leaves_by_path

if TYPE_CHECKING:
    from jaxformer.data.batches import Batches

Tree = Any
Head: TypeAlias = Literal["logistic", "knn"]


@partial(jax.jit, static_argnums=(0, 1))
def features(task: Any, model: Any, variables: Tree, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Float32 [B, D]: what the head of a model sees; where it has none over whole texts, the mean of the tokens.

    Raises:
      UserError: the model sees no input as a whole.
    """
    inputs = task.inputs(batch)
    outputs = model.apply(variables, **inputs, deterministic=True)
    if not isinstance(outputs, (ImageOutputs, TextOutputs)) or model.kind == "encoder-decoder":
        raise UserError(
            f"model: {type(model).__name__} has no features of whole inputs; use a classifier or an encoder"
        )
    seen = outputs.features
    if seen is None:
        assert isinstance(outputs, TextOutputs)
        seen = mean_of_tokens(outputs.tokens, inputs.get("token_mask"))
    return seen.astype(jnp.float32)


def cached_features(experiment: Experiment, variables: Tree, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The features float32 [N, D] and the labels [N] of a split, from the cache where they are in it.

    Args:
      experiment: names the model and the data; the transforms are those of evaluations.
      variables: of the model, on the devices.
      split: a split of the dataset.

    Raises:
      UserError: the split is not there, has no labels, or the model has no features.
    """
    batches = experiment.batches(split, train=False)
    if "labels" not in batches.element_spec or batches.element_spec["labels"][0]:
        raise UserError(
            f"data.examples: {batches.source.name} has not one label an example; there is nothing to learn"
        )

    def found(batch: Mapping[str, jax.Array]) -> jax.Array:
        return features(experiment.task, experiment.model, variables, batch)

    model = to_dict(experiment.config.model)
    rows, known = kept(experiment, batches, found, {"weights": weights_digest(variables), "model": model})
    return rows[known["example_mask"]], known["labels"][known["example_mask"]]


def kept(
    experiment: Experiment,
    batches: "Batches",
    function: Callable[[Mapping[str, jax.Array]], jax.Array],
    made_from: Mapping[str, Any],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What a function gives of all rows of an evaluation's batches, from the cache where it is in it.

    Args:
      experiment: knows where batches go.
      batches: of an evaluation.
      function: a batch on the devices -> float32 [B, D].
      made_from: JSON values that decide what it gives, besides the batches.

    Returns:
      Float32 [N, D], padding and skipped examples included; and the batches' "example_mask" and "labels" [N].
    """

    def build(writer: Writer) -> None:
        writer.notes["features"] = True
        column = None
        for batch in read(batches):
            del batch["example_mask"]
            found = function(experiment.layout.shard_batch(batch))
            column = column or writer.column("features", np.float32, found.shape[1:])
            column.append(np.asarray(found))

    digest, known = looked_at(batches)
    entry = cached({"kind": "features of all rows", **made_from, "batches": digest}, build)
    return np.asarray(entry.arrays["features"]), known


def read(batches: "Batches") -> Iterator[dict[str, np.ndarray]]:
    """The batches of an evaluation, in order."""
    with batches.read(0, stop=len(batches)) as reader:
        yield from map(dict, reader)


def weights_digest(variables: Tree) -> str:
    """A sha256 of all arrays and their paths."""
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves_by_path(variables).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path}{array.dtype}{array.shape}".encode())
        digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


def looked_at(batches: "Batches") -> tuple[str, dict[str, np.ndarray]]:
    """A sha256 of all that a model is shown of a split; and which rows are examples, and their labels if any, [N]."""
    digest = hashlib.sha256()
    known: dict[str, list[np.ndarray]] = {"example_mask": [], "labels": []}
    for batch in read(batches):
        for name in known.keys() & batch.keys():
            known[name].append(batch[name])
        for name, array in sorted(batch.items()):
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest(), {name: np.concatenate(parts) for name, parts in known.items() if parts}


def probe(experiment: Experiment, head: Head, neighbors: int, strength: float) -> dict[str, Any]:
    """Trains a classifier on the features of the training split, and evaluates it on the evaluation split.

    Args:
      experiment: the model stays as `experiment.init_state()` makes it.
      head: "logistic" (scikit-learn's logistic regression on standardised features) or "knn" (by cosine, weighted by
        nearness).
      neighbors: how many neighbours vote ("knn").
      strength: of the L2 penalty, as a multiple of scikit-learn's default ("logistic").

    Returns:
      "accuracy" on the evaluation split and on the training split, and facts.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    begun = time.monotonic()
    config = experiment.config
    state = experiment.init_state()
    variables = experiment.merged(state.variables())
    splits = {
        split: cached_features(experiment, variables, split)
        for split in (config.data.train_split, config.eval.split)
    }
    read_in = time.monotonic() - begun
    (x, y), (x_test, y_test) = splits.values()
    if head == "knn":
        classifier: Any = KNeighborsClassifier(min(neighbors, len(x)), metric="cosine", weights="distance")
    else:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1 / strength, max_iter=2000))
    classifier.fit(x, y)
    found = {"head": head, "split": config.eval.split, "accuracy": float(classifier.score(x_test, y_test))}
    found |= {
        "accuracy_in_training": float(classifier.score(x, y)),
        "features": x.shape[1],
        "examples": len(x),
    }
    seconds = {"seconds_for_features": round(read_in, 1), "seconds": round(time.monotonic() - begun, 1)}
    return {**found, **seconds}
