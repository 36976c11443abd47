"""A text about a picture: its caption, or with a question in front, the answer to it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxformer import drawing
from jaxformer.decoding.steps import read_pictures
from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.layouts import unrolled
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import base
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Row
from jaxformer.tasks.caption_metrics import SCORES, caption_scores
from jaxformer.tasks.image import ImageTask, sizes_fit
from jaxformer.tasks.text import check_tokens, spelled, tokens_fit
from jaxformer.tasks.writing import WritingTask


@dataclass(frozen=True)
class Captioning(ImageTask, WritingTask):
    """Learns to write of a picture, after a prompt where the data have one.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `tokens` int32 [B, T] (what starts a text, the prompt,
    the caption and its end), `token_mask` bool [B, T] and `targets` int32 [B, T], negative on the prompt and on
    padding. Models give logits [B, T, V] (`Captioner`).
    """

    modality = "image"
    reads = "image"
    looks = True
    needs: ClassVar[tuple[str, ...]] = ("image", "tokens", "token_mask", "targets", "picture")
    examples = "captions"
    kind = "captioner"
    kind_does = ("write about images", "captioner")

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "accuracy", *(SCORES if self.beams else ()))

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from sizes_fit(model, train, evaluation)
        yield from tokens_fit(model, train)
        if self.beams and self.eos_id is None:
            yield "data.tokenizer: has no end token, which captions need; set template='seq2seq'"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        check_tokens(model, batch)

    def inputs(self, batch: Batch) -> Arrays:
        """Normalised images, and the texts' tokens and their mask."""
        return self.normalised(batch) | {name: jnp.asarray(batch[name]) for name in ("tokens", "token_mask")}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """ "written": the captions, int32 [B, N], padded with -1."""
        return self.predict(model, variables, batch) if self.beams else {}

    def shown(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """As `predict`, and "seen": where the model looked as it wrote each token, float32 [B, N, h, w]."""
        found = self.predict(model, variables, batch)
        image, count = self.normalised(batch)["image"], prompt_lengths(batch)
        tokens = joined(jnp.asarray(batch["tokens"]), count, found["written"])[:, : model.context_length]
        maps, _ = model.apply(variables, image, tokens, method="looking", mutable=[ATTENTION_MAPS])
        wrote = count[:, None] - 1 + jnp.arange(found["written"].shape[1])[None]
        wrote = jnp.minimum(wrote, tokens.shape[1] - 1)
        return found | {"seen": jnp.take_along_axis(maps, wrote[:, :, None, None], axis=1)}

    def predict(self, model: Any, variables: Any, batch: Batch, top: int = 5) -> Arrays:
        """ "written": what the search finds after each prompt, int32 [B, N], with its end token, then -1."""
        model, variables = unrolled(model, variables)
        tokens, mask = prompts_of(batch)
        limit = min(self.max_new_tokens or model.context_length, model.context_length)
        state, logits = read_pictures(model, variables, self.normalised(batch)["image"], tokens, mask, limit)
        room = jnp.minimum(model.context_length + 1 - jnp.sum(mask, axis=1), limit)
        return {"written": self.searched(model, variables, state, logits, limit, room)}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> base.Evaluation:
        """Metrics "loss" (nats a token, without label smoothing), "accuracy" of tokens, and `caption_scores`.

        What is written of a picture after a prompt counts once, however many captions there are to compare it with;
        pictures that cannot be read have nothing written. The baseline is the commonest caption's share.
        """
        found = {name: base.mean_of(sums, name) for name in ("loss", "accuracy")}
        if "written" not in collected:
            return base.Evaluation(found, {})
        source = data.source
        texts = {
            int(index): data.tokenizer.decode(row[row >= 0])
            for index, row in zip(collected["index"], collected["written"])
        }
        texts |= dict.fromkeys(base.unseen(collected, data), "")
        once = {(source.truth(index)["picture"], source.prompt_of(index)): index for index in texts}
        references = [source.captions_of(index) for index in once.values()]
        scores = caption_scores([texts[index] for index in once.values()], references)
        common = Counter(text for true in references for text in set(true))
        baseline = max(common.values(), default=0) / max(1, len(references))
        return base.Evaluation(found | scores, {}, {"exact_match": baseline})

    def prepare(self, example: Row, about: DataInfo) -> Row:
        """Adds the tokens that start a text, and those of the "prompt" if there is one, where the example has none."""
        prompt = example.get("prompt", "")
        ids = [
            *about.tokenizer.frame()[0],
            *(about.tokenizer.encode(prompt, special=False) if prompt else []),
        ]
        given = {name: array for name, array in example.items() if name != "prompt"}
        return {"tokens": np.array(ids, np.int32), "token_mask": np.ones(len(ids), bool), **given}

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        written = predicted["written"]
        return {"caption": about.tokenizer.decode(written[written >= 0])}

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> base.Images:
        return {"": drawing.captioned(image, answer["caption"])}

    def looked(self, predicted: Row, about: DataInfo) -> list[tuple[str, np.ndarray]]:
        written, seen = predicted["written"], predicted["seen"]
        words = spelled(written[written >= 0], about)
        return [(word, seen[places].mean(axis=0)) for word, places in words]

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The caption that is written, the true one, and the prompt if there is one."""
        there = example["targets"] >= 0
        true = data.tokenizer.decode(example["targets"][there])
        prompt = data.tokenizer.decode(example["tokens"][: int(np.argmax(there)) + 1])
        written = self.answers(predicted, example, data)["caption"]
        same = written.split() == true.split()
        said = f"“{written}”" if same else f"“{written}”, not “{true}”"
        return {"correct": same, "caption": f"{prompt} {said}".strip(), "written": written, "true": true}


def prompts_of(batch: Batch) -> tuple[Array, Array]:
    """What stands in front of each caption, the tokens that start a text included.

    Args:
      batch: with `tokens` [B, T], and `targets` where the captions stand behind the prompts; without them all tokens
        of `token_mask` are prompts.

    Returns:
      tokens int32 [B, T], padded in front, and their mask, bool [B, T].
    """
    tokens, count = jnp.asarray(batch["tokens"]), prompt_lengths(batch)
    length = tokens.shape[1]
    places = jnp.arange(length)[None] - (length - count[:, None])
    moved = jnp.take_along_axis(tokens, jnp.maximum(places, 0), axis=1)
    return jnp.where(places >= 0, moved, 0), places >= 0


def prompt_lengths(batch: Batch) -> Array:
    """How many tokens stand in front of each caption, int [B]; arguments as of `prompts_of`."""
    if "targets" in batch:
        return jnp.argmax(jnp.asarray(batch["targets"]) >= 0, axis=1) + 1
    return jnp.sum(jnp.asarray(batch["token_mask"]), axis=1)


def joined(tokens: Array, count: Array, written: Array) -> Array:
    """The first `count` [B] of tokens [B, T], and what is written behind them, [B, N], as int32 [B, T + N]; then 0."""
    places = jnp.arange(tokens.shape[1] + written.shape[1])[None]
    behind = jnp.maximum(places - count[:, None], 0)
    before = jnp.pad(tokens, ((0, 0), (0, written.shape[1])))
    after = jnp.take_along_axis(jnp.pad(written, ((0, 0), (0, tokens.shape[1]))), behind, axis=1)
    return jnp.maximum(jnp.where(places < count[:, None], before, after), 0)
