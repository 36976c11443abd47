"""For every task a small model, and batches of unequal padding."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from helpers.tiny_detector import anchored, detector, objects
from jaxformer.models.bert import BERT
from jaxformer.models.captioner import Captioner
from jaxformer.models.coca import CoCa
from jaxformer.models.gpt import GPT
from jaxformer.models.mlp import Experts
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.resnet import ResNet
from jaxformer.models.segmenter import SegmentationOutputs
from jaxformer.models.seq2seq import Seq2Seq
from jaxformer.models.text_pairs import TextPairs as TextPairsModel
from jaxformer.models.two_towers import TwoTowers
from jaxformer.models.vit import ViT
from jaxformer.tasks.captioning import Captioning
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.coca import Coca
from jaxformer.tasks.contrastive import Contrastive
from jaxformer.tasks.detection import Detection
from jaxformer.tasks.language import CausalLM, MaskedLM
from jaxformer.tasks.segmentation import Segmentation
from jaxformer.tasks.spans import SpanQA
from jaxformer.tasks.tagging import TokenClassification
from jaxformer.tasks.text_classification import TextClassification, TextRegression
from jaxformer.tasks.text_pairs import TextPairs
from jaxformer.tasks.translation import Translation

VOCAB, LENGTH, CLASSES, SIDE = 16, 8, 4, 8
BOS, EOS = 1, 2
SIZES = {"vocab_size": VOCAB, "width": 16, "num_heads": 2, "mlp_dim": 32}
DECODER = GPT(**SIZES, context_length=LENGTH, depth=1)
EXPERTS = GPT(**SIZES, context_length=LENGTH, depth=2, experts=Experts(4, top_k=2, balance=0.5, z=0.1))
TRANSLATOR = Seq2Seq(**SIZES, context_length=LENGTH, encoder_depth=1, decoder_depth=2, dropout=0.0)

CNN = ResNet(width=8, stage_sizes=(1,), norm="group", stem="small", num_classes=0)
CAPTIONERS = {
    reads: Captioner(**SIZES, context_length=LENGTH, backbone=CNN, reads=reads, depth=2, dropout=0.0)
    for reads in ("cross", "prefix")
}

COCA = CoCa(
    **SIZES,
    context_length=LENGTH,
    backbone=CNN,
    unimodal_depth=1,
    depth=1,
    queries=3,
    embedding=8,
    dropout=0.0,
)


def encoder(head: str, labels: int | None = CLASSES) -> BERT:
    """A BERT with a head and without dropout."""
    rates = {"dropout": 0.0, "attention_dropout": 0.0}
    return BERT(**SIZES, max_positions=LENGTH, depth=1, head=head, num_classes=labels, **rates)


def padded(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Texts of 2 to all tokens."""
    mask = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (rows, 1))
    tokens = np.where(mask, rng.integers(3, VOCAB, (rows, LENGTH)), 0).astype(np.int32)
    return {"tokens": tokens, "token_mask": mask}


def windows(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    text = padded(rng, rows)
    targets = np.where(text["token_mask"], rng.integers(0, VOCAB, (rows, LENGTH)), -1).astype(np.int32)
    return {"tokens": text["tokens"], "targets": targets}


def documents(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Two documents a row; the first has three tokens at most."""
    text = padded(rng, rows)
    mask, first = text["token_mask"], rng.integers(1, 4, (rows, 1))
    places = np.broadcast_to(np.arange(LENGTH), mask.shape)
    return {
        "tokens": text["tokens"],
        "targets": np.where(mask, rng.integers(0, VOCAB, mask.shape), -1).astype(np.int32),
        "segment_ids": np.where(mask, 1 + (places >= first), 0).astype(np.int32),
        "positions": np.where(mask, places - np.where(places >= first, first, 0), 0).astype(np.int32),
    }


def masked(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """A target at a third of the tokens; some rows have none."""
    text = padded(rng, rows)
    chosen = text["token_mask"] & (rng.random((rows, LENGTH)) < 0.3)
    return {**text, "targets": np.where(chosen, rng.integers(0, VOCAB, chosen.shape), -1).astype(np.int32)}


def typed(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    text = padded(rng, rows)
    return {**text, "token_types": (text["token_mask"] & (np.arange(LENGTH) > 2)).astype(np.int32)}


def classes(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {**typed(rng, rows), "labels": rng.integers(0, CLASSES, rows, dtype=np.int32)}


def numbers(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {**typed(rng, rows), "labels": rng.normal(size=rows).astype(np.float32)}


def tags(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    text = padded(rng, rows)
    words = text["token_mask"] & (rng.random((rows, LENGTH)) < 0.6)
    return {**text, "labels": np.where(words, rng.integers(0, CLASSES, words.shape), -1).astype(np.int32)}


def spans(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    text = typed(rng, rows)
    last = text["token_mask"].sum(1)
    end = rng.integers(0, last)
    start = np.minimum(rng.integers(0, last), end)
    index = np.arange(rows, dtype=np.int32)
    return {**text, "start": start.astype(np.int32), "end": end.astype(np.int32), "index": index}


def pairs(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    mask = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (rows, 1))
    targets = np.where(mask, rng.integers(3, VOCAB, mask.shape), -1).astype(np.int32)
    targets[np.arange(rows), mask.sum(1) - 1] = EOS
    before = np.concatenate([np.full((rows, 1), BOS), np.maximum(targets[:, :-1], 0)], axis=1)
    index = np.arange(rows, dtype=np.int32)
    return {
        **padded(rng, rows),
        "decoder_tokens": before.astype(np.int32),
        "targets": targets,
        "index": index,
    }


class Pixels(nn.Module):
    """A linear classifier of every second pixel, or of their mean."""

    each: bool

    @nn.compact
    def __call__(self, image, deterministic=True):
        logits = nn.Dense(CLASSES)(image[:, ::2, ::2])
        if self.each:
            return SegmentationOutputs(logits)
        logits = jnp.mean(logits, axis=(1, 2))
        return ImageOutputs(logits, logits, logits)


def images(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    image = rng.integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8)
    return {"image": image, "labels": rng.integers(0, CLASSES, rows, dtype=np.int32)}


def prompted(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Images with texts behind prompts of 0 to 2 tokens."""
    text = padded(rng, rows)
    text["tokens"][:, 0] = BOS
    count, given = text["token_mask"].sum(1), rng.integers(0, 3, rows)
    text["tokens"][np.arange(rows), count - 1] = EOS
    places = np.arange(LENGTH)[None]
    learnt = (places >= np.minimum(given, count - 2)[:, None]) & (places < count[:, None] - 1)
    targets = np.where(learnt, np.roll(text["tokens"], -1, axis=1), -1).astype(np.int32)
    numbers = {name: rng.integers(0, 3, rows, dtype=np.int32) for name in ("picture", "caption")}
    return {"image": images(rng, rows)["image"], **text, "targets": targets, **numbers}


def masks(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Images with the class of each pixel, of which a third has none."""
    classes = rng.integers(0, CLASSES, (rows, SIDE, SIDE)).astype(np.int32)
    classes[rng.random(classes.shape) < 0.3] = -1
    extent = np.full((rows, 2), SIDE, np.int32)
    return {"image": images(rng, rows)["image"], "segmentation": classes, "extent": extent}


def boxes(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Images with up to three objects."""
    image = rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
    found, labels = objects(rng, rng.integers(0, 4, rows), 3)
    extent = np.stack([np.full(rows, 32), rng.integers(20, 33, rows)], axis=1).astype(np.int32)
    return {"image": image, "extent": extent, "boxes": found, "labels": labels}


@dataclass(frozen=True)
class Case:
    """A task, a model that fits it and a maker of the arrays of so many rows."""

    task: Any
    model: Any
    arrays: Callable[[np.random.Generator, int], dict[str, np.ndarray]]
    axis: int = 0
    """The examples' axis in the model's outputs."""

    def of_rows(self, mask: np.ndarray, array: Any) -> np.ndarray:
        """The mask of the examples in the shape of an output."""
        before, after = (1,) * self.axis, (1,) * (array.ndim - 1 - self.axis)
        return mask.reshape(*before, -1, *after)

    def batch(self, rows: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
        """A batch in which no row is padding."""
        return self.arrays(np.random.default_rng(seed), rows)

    def uneven(self, rows: int = 16, part: int = 4) -> dict[str, np.ndarray]:
        """A batch whose parts are unlike: the first has no example, the second one, and the third no target."""
        batch, mask = self.batch(rows), np.random.default_rng(1).random(rows) < 0.8
        mask[:part], mask[part : 2 * part] = False, np.arange(part) == 1
        mask[2 * part : 3 * part] = True
        without = batch.get("targets", batch.get("labels"))
        if without is not None and without.ndim == 2:
            without[2 * part : 3 * part] = -1
        return {**batch, "example_mask": mask}

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The model's arguments."""
        return self.task.inputs(self.batch(2))


def compared(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Two texts a row, and how alike they are."""
    text = padded(rng, rows)
    first = rng.integers(1, text["token_mask"].sum(1))[:, None]
    numbers = np.where(text["token_mask"], 1 + (np.arange(LENGTH) >= first), 0).astype(np.int32)
    places = (np.arange(LENGTH) - np.where(numbers == 2, first, 0)).astype(np.int32)
    return {
        **text,
        "segment_ids": numbers,
        "positions": places,
        "labels": rng.random(rows).astype(np.float32),
    }


CASES = {
    "windows": Case(CausalLM(), DECODER, windows),
    "documents, experts": Case(CausalLM(label_smoothing=0.1, z_loss=0.01), EXPERTS, documents),
    "masked": Case(MaskedLM(label_smoothing=0.1), encoder("mlm"), masked),
    "classes": Case(TextClassification(label_smoothing=0.1), encoder("sequence"), classes),
    "numbers": Case(TextRegression(), encoder("sequence", 1), numbers),
    "tags": Case(TokenClassification(label_smoothing=0.1), encoder("token"), tags),
    "spans": Case(SpanQA(), encoder("span"), spans),
    "compared": Case(TextPairs(chunks=2), TextPairsModel(encoder("none").clone(pooler="none")), compared),
    "translation": Case(Translation(label_smoothing=0.1, beams=2, eos_id=EOS), TRANSLATOR, pairs),
}


def captions(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Images with texts, some of which are equal, and their classes."""
    text, caption = padded(rng, rows), rng.integers(0, rows, rows).astype(np.int32)
    numbers = {"picture": rng.permutation(rows).astype(np.int32), "caption": caption}
    of_images = images(rng, rows)
    return {**of_images, **{name: array[caption] for name, array in text.items()}, **numbers}


def towers(**fields: Any) -> TwoTowers:
    """A ViT and a BERT without dropout."""
    vit = ViT(
        **{"image_size": SIDE, "patch_size": 4, "width": 8, "depth": 1, "num_heads": 2, "num_classes": 0}
    )
    return TwoTowers(vit, encoder("none").clone(pooler="none"), embedding=8, **fields)


WEIGHTS = (1.0, 2.0, 0.5, 1.5)
IMAGE_CASES = {
    "images": Case(Classification(label_smoothing=0.1), Pixels(each=False), images),
    "images, sigmoid": Case(Classification(loss_name="sigmoid", focal_gamma=2.0), Pixels(each=False), images),
    "pixels": Case(Segmentation(), Pixels(each=True), masks),
    "pixels, weighted": Case(Segmentation(class_weights=WEIGHTS), Pixels(each=True), masks),
    "pixels, all losses": Case(
        Segmentation(dice=0.5, lovasz=2.0, lovasz_step=2, class_weights=WEIGHTS), Pixels(each=True), masks
    ),
    "pairs": Case(Contrastive(), towers(), captions),
    "pairs, sigmoid": Case(
        Contrastive(loss_name="sigmoid", same="text", chunks=4), towers(bias=-1.0), captions
    ),
    **{
        f"captions, {reads}": Case(Captioning(label_smoothing=0.1, beams=2, eos_id=EOS), model, prompted)
        for reads, model in CAPTIONERS.items()
    },
    "pairs and captions": Case(Coca(label_smoothing=0.1, same="text", beams=2, eos_id=EOS), COCA, prompted),
    "objects": Case(Detection(num_queries=5), detector(encoder_depth=0), boxes, axis=1),
    "objects, focal": Case(
        Detection(class_loss="focal"), anchored(encoder_depth=0, decoder_depth=1), boxes, axis=1
    ),
}
EVERY = CASES | IMAGE_CASES


@cache
def params_of(name: str, scale: float = 0.3) -> Any:
    """Random parameters of a case's model: no zero and no one is left to hide a mistake."""
    case = EVERY[name]
    init = lambda key: case.model.init(key, **case.inputs)  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda s: (scale * generator.normal(size=s.shape)).astype(s.dtype), shapes)


def outputs_of(case: Case, params: Any, batch: Any, **kwargs: Any) -> Any:
    """The model's outputs."""
    return case.model.apply({"params": params}, **case.task.inputs(batch), **kwargs)


def rows_of(batch: dict[str, np.ndarray], rows: Any) -> dict[str, np.ndarray]:
    """Some rows of a batch."""
    return {name: array[rows] for name, array in batch.items()}


def as_jax(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """The batch as arrays on the device."""
    return {name: jnp.asarray(array) for name, array in batch.items()}
