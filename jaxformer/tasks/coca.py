"""Pictures are compared with texts, and texts are written about them, at once (Yu et al. 2022, CoCa)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from jaxformer.config.fields import Input, NonNegativeFloat, at_most
from jaxformer.tasks import base
from jaxformer.tasks.base import Arrays, Batch, Batches
from jaxformer.tasks.captioning import Captioning
from jaxformer.tasks.contrastive import Contrastive


@dataclass(frozen=True)
class Coca(Captioning):
    """Learns to write of a picture, and which text of a batch belongs to it: captioning and CLIP's loss.

    Batches are those of `Captioning`, with the number of each text. Models give `CaptionedPairOutputs`.
    """

    captioning: Input[NonNegativeFloat] = 2.0
    """Weight of the tokens' cross-entropy; 2 in the paper."""
    contrastive: Input[NonNegativeFloat] = 1.0
    """Weight of the loss that compares the pairs of a batch; 1 in the paper."""
    same: Literal["pair", "text"] = "pair"
    """As in the task contrastive: which texts of a batch are right for a picture."""
    chunks: Annotated[int, at_most(2**16)] = 1
    """As in the task contrastive."""

    compares = True
    needs: ClassVar[tuple[str, ...]] = (*Captioning.needs, "caption")
    kind = "coca"
    kind_does: ClassVar = ("compare images with texts and write about them", "coca")

    @property
    def pairs(self) -> Contrastive:
        """The task that compares."""
        return Contrastive(mean=self.mean, std=self.std, same=self.same, chunks=self.chunks)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return (*super().metric_names, *(renamed(name) for name in self.pairs.metric_names))

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        return self.pairs.absent_metrics(model, data)

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().misfits(model, train, evaluation)
        yield from self.pairs.alone(train)

    def counts(self, batch: Batch) -> Arrays:
        """The number of targets, and that of examples, float32 []."""
        return super().counts(batch) | self.pairs.counts(batch)

    def loss(self, outputs: Any, batch: Batch) -> Arrays:
        weights = {"cross_entropy": self.captioning, "contrastive": self.contrastive}
        losses = super().loss(outputs, batch) | self.pairs.loss(outputs, batch)
        return {name: loss * weights[name] for name, loss in losses.items()}

    def metrics(self, outputs: Any, batch: Batch) -> base.Metrics:
        """Those of the task contrastive, within a batch."""
        return {renamed(name): value for name, value in self.pairs.metrics(outputs, batch).items()}

    def eval_sums(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """The sums of captioning, and under `renamed` names those of the task contrastive."""
        pairs = {renamed(name): value for name, value in self.pairs.eval_sums(outputs, batch).items()}
        return super().eval_sums(outputs, batch) | pairs

    def collect(self, outputs: Any, batch: Batch, model: Any, variables: Any) -> Arrays:
        written = super().collect(outputs, batch, model, variables)
        return written | self.pairs.collect(outputs, batch, model, variables)

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> base.Evaluation:
        """The metrics of captioning, with its "loss" and "accuracy" of tokens, and those of the task contrastive,
        whose "pair_loss" and "pair_accuracy" are among the examples of each batch."""
        written = super().summarize(sums, collected, data)
        own = {name: sums[renamed(name)] for name in ("loss", "accuracy", "count")}
        found = self.pairs.summarize(own, collected, data)
        metrics = {renamed(name): value for name, value in found.metrics.items()}
        baseline = {**written.baseline, **found.baseline}
        return base.Evaluation(written.metrics | metrics, written.tables | found.tables, baseline)


def renamed(name: str) -> str:
    """The name that a number of the task contrastive has beside those of captioning."""
    return f"pair_{name}" if name in ("loss", "accuracy", "count") else name
