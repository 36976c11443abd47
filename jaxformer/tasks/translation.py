"""A text from a text: translation, and whatever else an encoder-decoder learns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.decoding.beam import beam_search, repeat_rows
from jaxformer.models.cache import Cache
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Batch, Batches, Evaluation, Row, example_mask
from jaxformer.tasks.losses import token_cross_entropy
from jaxformer.tasks.text import TextTask, text_fits
from jaxformer.tasks.text_metrics import translation_scores
from jaxformer.weights.layouts import unrolled


@dataclass(frozen=True)
class Translation(TextTask):
    """Learns to write a text for another one.

    Batches have `tokens`, `token_mask` (the source's, [B, S]), `decoder_tokens` and `targets` (int32 [B, T], the latter
    negative on padding). Models give logits [B, T, V] (`Seq2Seq`).
    """

    label_smoothing: float = 0.0
    """The share of a target that is spread over all tokens, in training; 0.1 in Vaswani et al. 2017."""
    beams: int = 1
    """Hypotheses that are followed in an evaluation; 1 is greedy, 0 decodes nothing (no BLEU)."""
    length_penalty: float = 0.6
    """Alpha of Wu et al. 2016, equation 14; 0.6 in Vaswani et al. 2017."""
    max_new_tokens: int | None = None
    """Tokens in a translation, at most; None: as many as the model takes."""
    eos_id: int | None = None
    """The token that ends a translation; None: the tokenizer's."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics; without decoding there are no scores of translations."""
        return ("loss", "accuracy", *(("bleu", "chrf") if self.beams else ()))

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing={self.label_smoothing}: expected at least 0 and less than 1, such as 0.1"
        if self.beams < 0:
            yield f"beams={self.beams}: expected 1 (greedy) or more, or 0 for no translations"
        if self.length_penalty < 0:
            yield f"length_penalty={self.length_penalty}: expected 0 (none) or more, such as 0.6"
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            yield f"max_new_tokens={self.max_new_tokens}: expected at least 1, or None"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for data without pairs of texts, and texts that are too long."""
        if model.kind != "encoder-decoder":
            yield f'model: {type(model).__name__} does not read one text and write another; choose "seq2seq"'
        needs = ("tokens", "token_mask", "decoder_tokens", "targets")
        yield from text_fits(model, train, evaluation, needs)
        if self.beams and self.eos_id is None:
            yield "data.tokenizer: has no end token, which translations need; set template='seq2seq'"

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """The source's tokens and those that the decoder has seen."""
        return {name: jnp.asarray(batch[name]) for name in ("tokens", "token_mask", "decoder_tokens")}

    def targets(self, batch: Batch) -> jax.Array:
        """int32 [B, T]; -1 where there is none."""
        return jnp.where(example_mask(batch)[:, None], batch["targets"], -1)

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of target tokens, float32 []."""
        return {"cross_entropy": jnp.sum(self.targets(batch) >= 0, dtype=jnp.float32)}

    def loss(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The cross-entropy summed over the target tokens, float32 []."""
        losses = token_cross_entropy(outputs.logits, self.targets(batch), self.label_smoothing)
        return {"cross_entropy": jnp.sum(losses)}

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """Losses without label smoothing, right tokens and tokens, float32 []."""
        targets = self.targets(batch)
        right = (jnp.argmax(outputs.logits, axis=-1) == targets) & (targets >= 0)
        return {
            "loss": jnp.sum(token_cross_entropy(outputs.logits, targets)),
            "correct": jnp.sum(right, dtype=jnp.float32),
            "count": jnp.sum(targets >= 0, dtype=jnp.float32),
        }

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """Translations, int32 [B, N], padded with -1, and each pair's number in the split."""
        if self.beams == 0:
            return {}
        return {"index": batch["index"], "written": self.translate(batch, model, variables)}

    def translate(self, batch: Batch, model: Any, variables: Any) -> jax.Array:
        """The best translation of each source, int32 [B, N], with its end token, then -1."""
        model, variables = unrolled(model, variables)
        apply = partial(model.apply, variables)
        tokens, mask = jnp.asarray(batch["tokens"]), jnp.asarray(batch["token_mask"])
        first = jnp.asarray(batch["decoder_tokens"])[:, :1]
        limit = min(self.max_new_tokens or model.context_length, model.context_length - 1)
        rows = len(tokens)
        context = apply(tokens, mask, method="encode")
        start = model.start(rows, limit + 1)
        outputs = apply(first, context, mask, cache=start, last_only=True, method="decode")
        state = repeat_rows((outputs.cache, mask), rows, self.beams)

        def step(state: tuple[Cache, jax.Array], tokens: jax.Array) -> tuple[jax.Array, Any]:
            cache, mask = state
            outputs = apply(tokens[:, None], None, mask, cache=cache, last_only=True, method="decode")
            return outputs.logits[:, -1], (outputs.cache, mask)

        written, lengths, _ = beam_search(
            step,
            state,
            outputs.logits[:, -1],
            beams=self.beams,
            max_new_tokens=limit,
            eos_id=self.eos_id or 0,
            pad_id=-1,
            length_penalty=self.length_penalty,
            reorder=partial(reordered, beams=self.beams),
        )
        inside = jnp.arange(limit)[None, :] < lengths[:, :1]
        return jnp.where(inside, written[:, 0], -1)

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics "loss" (nats a token, without label smoothing), "accuracy" of tokens, "bleu" and "chrf", 0 to 100."""
        count = max(float(sums["count"]), 1.0)
        found = {"loss": float(sums["loss"]) / count, "accuracy": float(sums["correct"]) / count}
        if not collected:
            return Evaluation(found, {})
        written = [data.tokenizer.decode(row[row >= 0]) for row in collected["written"]]
        references = [data.source.target_text(int(index)) for index in collected["index"]]
        scores, signatures = translation_scores(written, references)
        return Evaluation(found | scores, {"notes": [f"{name}: {text}" for name, text in signatures.items()]})

    def predictions(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The likeliest token at each place, given those before it, int32 [B, T]."""
        return {"likeliest": jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)}

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The mean loss of each target's tokens, float32 [B]."""
        targets = self.targets(batch)
        losses = token_cross_entropy(outputs.logits, targets)
        return jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(targets >= 0, axis=1), 1)

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """The source, the target and, word by word, what the model would have gone on with."""
        decode = data.tokenizer.decode
        targets = example["targets"]
        there = targets >= 0
        return {
            "correct": None,
            "text": decode(example["tokens"][example["token_mask"]]),
            "target": decode(targets[there]),
            "prediction": decode(predicted["likeliest"][there]),
        }


def reordered(state: tuple[Cache, jax.Array], rows: jax.Array, beams: int) -> tuple[Cache, jax.Array]:
    """The state with its rows as beams go on; what is of the source is the same for all beams of a row, and stays."""
    cache, mask = state
    own = jax.tree.map(lambda x: jnp.take(x, rows, axis=0), [layer.own for layer in cache.layers])
    layers = tuple(replace(layer, own=kept) for layer, kept in zip(cache.layers, own))
    return replace(cache, layers=layers), mask
