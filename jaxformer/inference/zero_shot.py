"""A model of two towers on a user's own images and texts: their vectors, and which text tells of an image."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError, counted
from jaxformer.inference.inputs import Input
from jaxformer.inference.predict import Prediction, check_top, computed
from jaxformer.models.base import COMPARE
from jaxformer.tasks.base import Batch

if TYPE_CHECKING:
    from jaxformer.inference.loaded import LoadedRun

BATCH = 64  # texts at a time


def check_towers(run: "LoadedRun") -> None:
    """Raises UserError for a model that does not compare images with texts."""
    if run.model.kind not in COMPARE:
        kind = type(run.model).__name__
        raise UserError(
            f"{run.run.folder}: holds a {kind}, which does not compare images with texts",
            "take a run of two towers, or an imported CLIP or SigLIP",
        )


def checked_texts(texts: Any) -> list[str]:
    """Texts that images are to be compared with.

    Raises:
      UserError: they are no texts, are fewer than two or equal, or one is empty.
    """
    if (
        isinstance(texts, str)
        or not isinstance(texts, Sequence)
        or not all(isinstance(x, str) for x in texts)
    ):
        raise UserError(f"texts={texts!r}: expected a list of texts")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(f"text {number} is empty; say what an image may show, such as 'a cat'")
    if len(texts) < 2:
        raise UserError(
            f"{texts[0] if texts else ''!r}: is the only text; give two or more, to tell them apart"
        )
    if len({*texts}) < len(texts):
        raise UserError(
            f"{next(x for x in texts if texts.count(x) > 1)!r}: is there twice; give each text once"
        )
    return [*texts]


def checked_templates(templates: Sequence[str]) -> list[str]:
    """What texts are filled into; none: the texts themselves.

    Raises:
      UserError: one has no place for a text, or several.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(
                f"template {template!r}: expected one {{}}, where a text is filled in, as 'a photo of a {{}}.'"
            )
    return [*templates] or ["{}"]


def text_vectors(run: "LoadedRun", texts: Sequence[str]) -> np.ndarray:
    """Vectors of texts, float32 [N, E], of length 1.

    Raises:
      UserError: a text is longer than the model takes, or cannot be encoded.
    """
    check_towers(run)
    start, end = run.tokenizer.frame()
    length = run.config.data.examples.length
    rows = []
    for number, (text, ids) in enumerate(zip(texts, run.tokenizer.encode_batch(texts, special=False)), 1):
        row = [*start, *ids, *end]
        if len(row) > length:
            raise UserError(
                f"text {number} ({text[:40]!r}): has {counted(len(row), 'token')}, the model takes {length}"
            )
        if not ids:
            raise UserError(f"text {number} ({text[:40]!r}): has nothing that this model's tokenizer knows")
        rows.append(row)
    found = []
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        tokens = np.full((BATCH, length), run.tokenizer.pad_id or 0, np.int32)
        mask = np.zeros((BATCH, length), bool)
        for i, row in enumerate(part):
            tokens[i, : len(row)], mask[i, : len(row)] = row, True
        mask[len(part) :, 0] = True  # rows that are thrown away
        variables = jax.device_put(run.variables, jax.devices()[0])
        found.append(np.asarray(of_texts(run.model, variables, tokens, mask))[: len(part)])
    vectors = np.concatenate(found) if found else np.zeros((0, run.model.embedding), np.float32)
    if not np.isfinite(vectors).all():
        raise UserError("the vectors of the texts are not finite; try another checkpoint")
    return vectors


@partial(jax.jit, static_argnums=0)
def of_texts(model: Any, variables: Any, tokens: Any, mask: Any) -> jax.Array:
    """`TwoTowers.text_features`, compiled once for a model and a shape."""
    return model.apply(variables, tokens, mask, method="text_features")


@partial(jax.jit, static_argnums=(0, 1))
def of_images(task: Any, model: Any, variables: Any, batch: Batch) -> dict[str, jax.Array]:
    """`TwoTowers.image_features` of a batch of images, and what products are multiplied by and added to."""
    image = task.normalised(batch)["image"]
    vectors = model.apply(variables, image, method="image_features")
    scale, bias = model.apply(variables, method="numbers")
    rows = vectors.shape[:1]
    return {"vector": vectors, "scale": jnp.broadcast_to(scale, rows), "bias": jnp.broadcast_to(bias, rows)}


def image_rows(run: "LoadedRun", images: Any) -> Iterator[tuple[Input, Mapping[str, Any]]]:
    """Yields each image with its "vector", float32 [E], the "scale" and the "bias".

    Raises:
      UserError: the model has no two towers; an image cannot be read, or its vector is not finite.
    """
    check_towers(run)
    for one, found in computed(run, images, partial(of_images, run.task, run.model)):
        yield one, found[0]


def class_vectors(run: "LoadedRun", texts: Sequence[str], templates: Sequence[str] = ()) -> np.ndarray:
    """A vector for each text, float32 [N, E]: the mean of its templates' vectors, at length 1 (Radford et al. 2021,
    section 3.1.4)."""
    filled = [[template.replace("{}", text) for template in checked_templates(templates)] for text in texts]
    vectors = text_vectors(run, [*chain(*filled)])
    means = vectors.reshape(len(texts), -1, vectors.shape[-1]).mean(1)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def zero_shot(
    run: "LoadedRun",
    images: Any,
    texts: Sequence[str],
    *,
    templates: Sequence[str] = (),
    top: int | None = None,
) -> Iterator[Prediction]:
    """Yields how likely each text tells of each image, among these texts.

    Args:
      run: a run of two towers.
      images: as of `predict`.
      texts: two or more.
      templates: what each is filled into, such as "a photo of a {}."; of several the mean vector counts.
      top: how many texts to list, the likeliest first; None: all.

    Returns:
      {"file": ..., "predictions": [{"label": "a cat", "index": 0, "probability": 0.98, "similarity": 0.31}, ...]}: a
      softmax over the texts; of a model with a bias (SigLIP) also "match", a sigmoid of each text by itself.

    Raises:
      UserError: the model has no two towers, a text or an image cannot be taken.
    """
    check_towers(run)
    texts = checked_texts(texts)
    vectors = class_vectors(run, texts, templates)
    if top is not None:
        check_top(top)
    for one, row in image_rows(run, images):
        similarity = vectors @ row["vector"]
        logits = (row["scale"] * similarity + row["bias"]).astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        matches = 1 / (1 + np.exp(-logits))
        order = np.argsort(-logits, kind="stable")[:top]
        answers = [
            {
                "label": texts[i],
                "index": int(i),
                "probability": round(float(shares[i]), 6),
                "similarity": round(float(similarity[i]), 6),
                **({} if run.model.bias is None else {"match": round(float(matches[i]), 6)}),
            }
            for i in order
        ]
        yield {**one.asked, "predictions": answers}


def embedded(run: "LoadedRun", images: Sequence[Any], texts: Sequence[str]) -> Iterator[Prediction]:
    """Yields what was asked and the "features" of each image and text: its vector, of length 1, a list of numbers.

    Raises:
      UserError: as of `zero_shot`.
    """
    vectors = text_vectors(run, texts) if texts else ()
    found = [({"text": text}, vector) for text, vector in zip(texts, vectors)]
    for asked, vector in chain(((one.asked, row["vector"]) for one, row in image_rows(run, images)), found):
        yield {**asked, "features": [float(f"{value:.6g}") for value in vector.tolist()]}


def image_vectors(run: "LoadedRun", images: Any) -> np.ndarray:
    """Vectors of images, float32 [N, E], of length 1; see `image_rows`."""
    found = [row["vector"] for _, row in image_rows(run, images)]
    return np.stack(found) if found else np.zeros((0, run.model.embedding), np.float32)
