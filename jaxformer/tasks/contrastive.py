"""Images and texts that belong together get vectors that are near: CLIP, SigLIP, LiT."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import at_most
from jaxformer.models.outputs import PairOutputs
from jaxformer.tasks import base, comparing, metrics, retrieval
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.image import ImageTask, sizes_fit
from jaxformer.tasks.text import check_tokens, text_of, tokens_fit

WAYS = ("image_to_text", "text_to_image")
RECALLS = tuple(f"{way}_recall@{k}" for way in WAYS for k in retrieval.AT)
OF_PAIRS = ("picture", "caption", "labels")


@dataclass(frozen=True)
class Comparing(base.Task):
    """Learns what belongs together by comparing all of a batch; models give `PairOutputs`."""

    loss_name: Literal["softmax", "sigmoid"] = "softmax"
    """CLIP's "softmax" over the batch, both ways (Radford et al. 2021), or SigLIP's "sigmoid" of each pair (Zhai et
    al. 2023), for which the model has a `bias`."""
    chunks: Annotated[int, at_most(2**16)] = 1
    """Into how many pieces the texts of a batch are cut, each of which is compared with the images of a device by
    itself, and once more backwards: less memory, for some time. What does not divide a device's examples is lowered."""

    compares = True
    reads: ClassVar[base.Reads] = None
    same = cast(Any, "pair")  # without a type, so that a task may have a field of this name
    equal: ClassVar[comparing.Same] = "pair"
    """Which texts are right where it is counted how many are found."""

    def alone(self, train: Batches) -> Iterator[str]:
        """Yields a line for batches of one pair."""
        if train.batch_size < 2:
            lone = "a pair alone has nothing that it could be compared with"
            yield f"data.batch_size={train.batch_size}: {lone}; take at least 2, and better hundreds"

    def counts(self, batch: Batch) -> Arrays:
        """The number of examples, float32 []."""
        return {"contrastive": jnp.sum(example_mask(batch), dtype=jnp.float32)}

    def loss(self, outputs: PairOutputs, batch: Batch) -> Arrays:
        total = comparing.softmax_total if self.loss_name == "softmax" else comparing.sigmoid_total
        return {"contrastive": total(outputs, batch, self.same, self.chunks)}

    def metrics(self, outputs: PairOutputs, batch: Batch) -> base.Metrics:
        """ "accuracy", the share of images whose own text, or an equal one, is the nearest of a batch; "scale"."""
        mask = example_mask(batch)
        count = jnp.sum(mask, dtype=jnp.float32)
        scale = masked_sum(outputs.scale, mask)
        return {"accuracy": (self.right(outputs, batch), count), "scale": (scale, count)}

    def right(self, outputs: PairOutputs, batch: Batch) -> jax.Array:
        """How many images find a text that is right, float32 []."""
        found = comparing.found(outputs, batch, self.chunks, self.equal)
        return masked_sum(found, example_mask(batch))

    def eval_sums(self, outputs: PairOutputs, batch: Batch) -> dict[str, Any]:
        """The "loss" and the "accuracy" within batches, and the "count" of examples, float32 []."""
        (loss,), (count,) = self.loss(outputs, batch).values(), self.counts(batch).values()
        return {"loss": loss, "accuracy": self.right(outputs, batch), "count": count}

    def predictions(self, outputs: PairOutputs, batch: Batch) -> Arrays:
        """ "similarity": the cosine of each image and its text, float32 [B]."""
        return {"similarity": jnp.sum(outputs.image * outputs.text, axis=-1)}

    def errors(self, outputs: PairOutputs, batch: Batch) -> jax.Array:
        """Half of 1 - the cosine of each image and its text, float32 [B]: 0 to 1."""
        return (1 - self.predictions(outputs, batch)["similarity"]).clip(0) / 2

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        similarity = round(float(predicted["similarity"]), 4)
        caption = f"{text_of(example, data)} (similarity {similarity:.2f})"
        return {"correct": None, "similarity": similarity, "caption": caption}


@dataclass(frozen=True)
class Contrastive(Comparing, ImageTask):
    """Learns which text belongs to which image, by comparing all of a batch.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `tokens` int32 [B, T], `token_mask` bool [B, T],
    `picture` and `caption` int32 [B], equal where the image, or the text, is the same, and where there are classes
    `labels` int32 [B]. Models give `PairOutputs`.
    """

    same: Literal["pair", "text"] = "pair"
    """Which texts of a batch are right for an image: its own alone ("pair"), or all that are equal to it ("text"; Yang
    et al. 2022, UniCL), as captions made of classes often are."""

    equal = "text"
    needs = ("image", "tokens", "token_mask", "picture", "caption")
    examples = "captions"
    kind = "two-towers"
    kind_does = ("compare images with texts", "two_towers")
    metric_names: ClassVar = ("loss", "accuracy", *RECALLS, "zero_shot_accuracy")

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        return {} if "labels" in data.element_spec else {"zero_shot_accuracy": "the captions have no classes"}

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from sizes_fit(model, train, evaluation)
        yield from tokens_fit(model, train)
        yield from self.alone(train)

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        check_tokens(model, batch)

    def inputs(self, batch: Batch) -> Arrays:
        """Normalised images, or what a frozen tower gave of them, and the texts' tokens and their mask."""
        known = "image_features" in batch
        image = {"image": jnp.asarray(batch["image_features"])} if known else super().inputs(batch)
        return image | {name: jnp.asarray(batch[name]) for name in ("tokens", "token_mask")}

    def prepare(self, example: Row, about: DataInfo) -> Row:
        """Adds a text of one token, which an image's vector does not see."""
        return {"tokens": np.zeros(1, np.int32), "token_mask": np.ones(1, bool), **example}

    def collect(self, outputs: PairOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """Vectors float32 [B, E], "image" and "text", and what each is: "picture", "caption", "labels" int32 [B]."""
        about = {name: jnp.asarray(batch[name]) for name in OF_PAIRS if name in batch}
        return {"image": outputs.image, "text": outputs.text, **about}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> Evaluation:
        """Metrics of a split.

        Returns:
          metrics: "loss" and "accuracy" among the examples of each batch; "image_to_text_recall@k", the share of the
            distinct pictures with one of their texts among the k nearest of all distinct texts, and
            "text_to_image_recall@k"; and with classes "zero_shot_accuracy", where a class is the mean of its texts.
            Pictures that cannot be read are missed.
          tables: "notes", and "retrieval", see `retrieval.close_up`.
          baseline: what recall is by chance, and the share of the commonest class.
        """
        seen = retrieval.gallery(collected)
        truths = [data.source.truth(index) for index in base.unseen(collected, data)]
        lost = [
            len({truth[name] for truth in truths} - set(numbers.tolist()))
            for name, numbers in (("picture", seen.picture), ("caption", seen.caption))
        ]
        found = {"loss": base.mean_of(sums), "accuracy": base.mean_of(sums, "accuracy")}
        baseline: dict[str, float] = {}
        towers = (seen.image, seen.text, seen.pairs), (seen.text, seen.image, seen.swapped)
        ranks = {way: retrieval.ranks(*tower) for way, tower in zip(WAYS, towers)}
        for way, missed, (queries, candidates, pairs) in zip(WAYS, lost, towers):
            recalls = retrieval.recalls(ranks[way], missed)
            by_chance = retrieval.chance(pairs, len(queries), len(candidates))
            found |= {f"{way}_recall@{k}": float(share) for k, share in recalls.items()}
            baseline |= {f"{way}_recall@{k}": share for k, share in by_chance.items()}
        if seen.labels is not None:
            known = seen.labels >= 0
            right = int(np.count_nonzero(retrieval.classified(seen)[known] == seen.labels[known]))
            found["zero_shot_accuracy"] = right / max(1, int(np.count_nonzero(known)) + lost[0])
            baseline["zero_shot_accuracy"] = metrics.commonest_share(np.bincount(seen.labels[known]))
        tables: dict[str, Any] = {"notes": list(notes(seen))}
        if "index" in collected:
            index_of, example_of = (
                collected["index"][np.unique(collected[name], return_index=True)[1]]
                for name in ("picture", "caption")
            )
            text_of = lambda row: data.source.text_of(int(example_of[row]))  # noqa: E731
            tables["retrieval"] = retrieval.close_up(seen, ranks[WAYS[0]], index_of, text_of)
        return Evaluation(found, tables, baseline)


def notes(seen: retrieval.Gallery) -> Iterator[str]:
    """Lines about what retrieval is measured on."""
    pictures, texts, pairs = len(seen.image), len(seen.text), len(seen.pairs)
    yield f"retrieval among {pictures:,} pictures and {texts:,} distinct texts, in {pairs:,} pairs"
    several = np.count_nonzero(np.bincount(seen.pairs[:, 1]) > 1)
    if several:
        yield f"{several:,} texts belong to several pictures; each of these is right"
