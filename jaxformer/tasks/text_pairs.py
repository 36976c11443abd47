"""Texts that mean the same get vectors that are near: sentence embeddings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from jaxformer.models.outputs import PairOutputs
from jaxformer.tasks import base, retrieval
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Evaluation, Row, lacks
from jaxformer.tasks.contrastive import Comparing
from jaxformer.tasks.text import check_tokens, text_of, tokens_fit
from jaxformer.tasks.text_classification import correlations

LOOKED_AT = 1000  # pairs among whose texts a report shows the nearest
NEEDS = ("tokens", "token_mask", "segment_ids", "positions")


@dataclass(frozen=True)
class TextPairs(Comparing):
    """Learns which texts mean the same: the other second texts of a batch are wrong (Henderson et al. 2017, section 4).

    Batches have `tokens`, `token_mask`, `segment_ids` and `positions` [B, T], as of `examples.name="compared"`, and,
    where there are scores, `labels` [B].
    """

    modality: ClassVar[Literal["image", "text"]] = "text"
    metric_names: ClassVar = ("loss", "accuracy", "pearson", "spearman")

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        absent = ("pearson", "spearman") if "labels" not in data.element_spec else ()
        return dict.fromkeys(absent, "the pairs have no scores")

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if model.kind != "text-pairs":
            yield f'model: {type(model).__name__} does not compare two texts; choose "text_pairs"'
        elif lacking := lacks(NEEDS, train):
            yield f'{lacking}: choose "compared", or another task'
        else:
            yield from tokens_fit(model, train)
            yield from self.alone(train)
        if self.loss_name == "sigmoid":
            yield 'loss_name="sigmoid": needs a model with a bias, which text_pairs has not; set it to "softmax"'

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        check_tokens(model, batch)

    def inputs(self, batch: Batch) -> Arrays:
        return {name: jnp.asarray(batch[name]) for name in NEEDS}

    def collect(self, outputs: PairOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """The cosine of each pair, "similarity", its score, "labels", float32 [B], where there are scores, and the
        vectors of its texts, "first" and "second", float32 [B, E]."""
        scores = {"labels": batch["labels"]} if "labels" in batch else {}
        return {
            **self.predictions(outputs, batch),
            **scores,
            "first": outputs.image,
            "second": outputs.text,
        }

    def kept(self, rows: base.Collected, data: Batches) -> base.Collected:
        """The vectors of the first LOOKED_AT pairs of the split alone, and their numbers, "seen"."""
        few = rows["index"] < LOOKED_AT
        vectors = {name: rows[name][few] for name in ("first", "second")}
        return {**rows, **vectors, "seen": rows["index"][few]}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> Evaluation:
        """Metrics "loss" and "accuracy" among the pairs of each batch; of cosines with scores "pearson" and "spearman"
        (as STS is evaluated: Reimers et al. 2016), -1 to 1. The table "retrieval" is of `retrieval.neighbours`."""
        found = {"loss": base.mean_of(sums), "accuracy": base.mean_of(sums, "accuracy")}
        if "labels" in collected:
            found |= correlations(collected["similarity"], collected["labels"])
        tables = {"retrieval": near} if "seen" in collected and (near := neighbours(collected, data)) else {}
        return Evaluation(found, tables)

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        score = {"target": f"{float(example['labels']):.3g}"} if "labels" in example else {}
        found = {"text": text_of(example, data), "prediction": f"{float(predicted['similarity']):.2f}"}
        return {"correct": None, **found, **score}


def neighbours(collected: base.Collected, data: Batches) -> dict[str, Any]:
    """What a report shows of the distinct texts of the pairs that were "seen"."""
    texts = data.source.texts_of(collected["seen"])
    numbers = {
        text: number for number, text in enumerate(dict.fromkeys(text for pair in texts for text in pair))
    }
    pairs = np.array([[numbers[text] for text in pair] for pair in texts], int).reshape(-1, 2)
    both = np.stack([collected["first"], collected["second"]], axis=1)  # [n, 2, E]
    vectors = both.reshape(-1, both.shape[-1])[np.unique(pairs, return_index=True)[1]]
    return retrieval.neighbours(vectors, list(numbers), pairs)
