"""A text from a text: translation, and whatever else an encoder-decoder learns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxformer.decoding.steps import read_sources
from jaxformer.errors import UserError
from jaxformer.models.layouts import unrolled
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import base
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Row
from jaxformer.tasks.text import text_of
from jaxformer.tasks.writing import WritingTask


@dataclass(frozen=True)
class Translation(WritingTask):
    """Learns to write a text for another one.

    Batches have `tokens`, `token_mask` (the source's, [B, S]), `decoder_tokens` and `targets` (int32 [B, T], the latter
    negative on padding). Models give logits [B, T, V] (`Seq2Seq`).
    """

    needs = ("tokens", "token_mask", "decoder_tokens", "targets")

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "accuracy", *(("bleu", "chrf") if self.beams else ()))

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if model.kind != "encoder-decoder":
            yield f'model: {type(model).__name__} does not read one text and write another; choose "seq2seq"'
        yield from super().fits(model, train, evaluation)
        if self.beams and self.eos_id is None:
            yield "data.tokenizer: has no end token, which translations need; set template='seq2seq'"

    def inputs(self, batch: Batch) -> Arrays:
        """The source's tokens and those that the decoder has seen."""
        return {name: jnp.asarray(batch[name]) for name in ("tokens", "token_mask", "decoder_tokens")}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """Translations, int32 [B, N], padded with -1, and each pair's number in the split."""
        return {"index": batch["index"], **self.predict(model, variables, batch)} if self.beams else {}

    def predict(self, model: Any, variables: Any, batch: Batch, top: int = 5) -> Arrays:
        """ "written": the best translation of each source, int32 [B, N], with its end token, then -1."""
        model, variables = unrolled(model, variables)
        tokens, mask = jnp.asarray(batch["tokens"]), jnp.asarray(batch["token_mask"])
        first = jnp.asarray(batch["decoder_tokens"])[:, 0]
        limit = min(self.max_new_tokens or model.context_length, model.context_length - 1)
        state, logits = read_sources(model, variables, tokens, mask, first, limit + 1)
        return {"written": self.searched(model, variables, state, logits, limit)}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> base.Evaluation:
        """Metrics "loss" (nats a token, without label smoothing), "accuracy" of tokens, "bleu" and "chrf", 0 to 100."""
        found = {name: base.mean_of(sums, name) for name in ("loss", "accuracy")}
        if not collected:
            return base.Evaluation(found, {})
        written = [data.tokenizer.decode(row[row >= 0]) for row in collected["written"]]
        references = [data.source.target_text(int(index)) for index in collected["index"]]
        scores, notes = translation_scores(written, references)
        return base.Evaluation(found | scores, {"notes": notes})

    def prepare(self, example: Row, about: DataInfo) -> Row:
        """Adds the token that ends the source, where the template has none, and the one that begins a translation."""
        tokenizer, tokens = about.tokenizer, example["tokens"]
        if tokenizer.eos_id is None:
            raise UserError("the tokenizer has no token that ends a text; train with template='seq2seq'")
        if tokens[-1:].tolist() != [tokenizer.eos_id]:
            tokens = np.append(tokens, np.int32(tokenizer.eos_id))
        first = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
        source = {"tokens": tokens, "token_mask": np.ones(len(tokens), bool)}
        return {**example, **source, "decoder_tokens": np.array([first or 0], np.int32)}

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        written = predicted["written"]
        return {"translation": about.tokenizer.decode(written[written >= 0])}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The source, the target and, token by token, the model's continuation of the target before it."""
        there = example["targets"] >= 0
        return {
            "correct": None,
            "called": "source",
            "text": text_of(example, data),
            "target": data.tokenizer.decode(example["targets"][there]),
            "prediction": data.tokenizer.decode(predicted["likeliest"][there]),
        }


def translation_scores(hypotheses: list[str], references: list[str]) -> tuple[dict[str, float], list[str]]:
    """Corpus BLEU and chrF by sacreBLEU (Post 2018), both 0 to 100, as they are usually reported.

    Texts are plain ones, cased and not tokenised: sacreBLEU does that by itself (13a, as mteval-v13a).

    Args:
      hypotheses: the translations.
      references: the true translation of each.

    Returns:
      Scores "bleu" and "chrf", and the signature of each, which belongs beside the figure wherever it is shown.
    """
    from sacrebleu.metrics import BLEU, CHRF

    metrics = {"bleu": BLEU(), "chrf": CHRF()}
    texts = (hypotheses, [references]) if hypotheses else ([""], [[""]])  # without any, the scores are 0
    scores = {name: float(metric.corpus_score(*texts).score) for name, metric in metrics.items()}
    return scores, [f"{name}: {metric.get_signature()}" for name, metric in metrics.items()]
