"""Language modelling: the next token, or the masked ones."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Batch, Batches, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.losses import token_cross_entropy
from jaxformer.tasks.text import TextTask, head_fits, text_fits

POSITIONS_SHOWN = 64  # points of the curve of losses by position, at most


@dataclass(frozen=True)
class TokenTask(TextTask):
    """Learns a token at each place that has a target.

    Batches have `tokens`, `targets` (int32 [B, T], negative where there is none) and what else describes tokens.
    Models give `TextOutputs` with logits [B, T, V]. There are no metrics of training besides the loss: the likeliest of
    many tokens takes time to find.
    """

    label_smoothing: float = 0.0
    """The share of a target that is spread over all tokens, in training."""
    z_loss: float = 0.0
    """The weight of the square of the logits' logarithm of sums, which keeps it near 0 (Chowdhery et al.
    2022, PaLM, section 5: 1e-4); 0 is off."""

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy")

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing={self.label_smoothing}: expected at least 0 and less than 1, such as 0.1"
        if self.z_loss < 0:
            yield f"z_loss={self.z_loss}: expected 0 or more, such as 1e-4"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for data without targets, longer texts than the model takes, and too few tokens."""
        yield from text_fits(model, train, evaluation, self.needs)

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that a batch must have."""
        return ("tokens", "targets")

    def mask(self, batch: Batch) -> jax.Array:
        """bool [B, T]: where there is a target."""
        return (jnp.asarray(batch["targets"]) >= 0) & example_mask(batch)[:, None]

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """Targets, and for the router's losses examples; float32 []."""
        examples = jnp.sum(example_mask(batch), dtype=jnp.float32)
        targets = jnp.sum(self.mask(batch), dtype=jnp.float32)
        return {"cross_entropy": targets, "z_loss": targets, "balance": examples, "router_z": examples}

    def loss(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The cross-entropy summed over the targets, float32 [], and what else is minimised."""
        mask = self.mask(batch)
        losses = {"cross_entropy": self.total(outputs, batch, self.label_smoothing)}
        if self.z_loss:
            squares = jnp.square(jax.nn.logsumexp(outputs.logits.astype(jnp.float32), axis=-1))
            losses["z_loss"] = self.z_loss * jnp.sum(jnp.where(mask, squares, 0))
        if outputs.router is not None:
            losses["balance"] = masked_sum(outputs.router.balance, example_mask(batch))
            losses["router_z"] = masked_sum(outputs.router.z, example_mask(batch))
        return losses

    def total(self, outputs: TextOutputs, batch: Batch, label_smoothing: float = 0.0) -> jax.Array:
        """The summed cross-entropy, float32 []."""
        targets = jnp.where(self.mask(batch), batch["targets"], -1)
        return jnp.sum(token_cross_entropy(outputs.logits, targets, label_smoothing))

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """Losses, right tokens and counts by position, float32 [T]; they may come from batches of several T."""
        mask = self.mask(batch)
        targets = jnp.where(mask, batch["targets"], -1)
        right = (jnp.argmax(outputs.logits, axis=-1) == targets) & mask
        return {
            "loss": jnp.sum(token_cross_entropy(outputs.logits, targets), axis=0),
            "correct": jnp.sum(right, axis=0, dtype=jnp.float32),
            "count": jnp.sum(mask, axis=0, dtype=jnp.float32),
        }

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics "loss" (nats a token, without label smoothing), "perplexity" and "accuracy".

        The table "loss_by_position" has the mean loss of at most POSITIONS_SHOWN stretches of places.
        """
        count = max(float(sums["count"].sum()), 1.0)
        loss = float(sums["loss"].sum()) / count
        metrics = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "accuracy": float(sums["correct"].sum()) / count,
        }
        return Evaluation(metrics, {"loss_by_position": by_position(sums["loss"], sums["count"])})

    def predictions(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The likeliest token at each place, and each target's loss: [B, T]."""
        targets = jnp.where(self.mask(batch), batch["targets"], -1)
        return {
            "likeliest": jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32),
            "losses": token_cross_entropy(outputs.logits, targets),
        }

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The mean loss of each example's targets, float32 [B]."""
        mask = self.mask(batch)
        losses = token_cross_entropy(outputs.logits, jnp.where(mask, batch["targets"], -1))
        return jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """The text, and its pieces with their targets and losses."""
        has_target = example["targets"] >= 0
        if "token_mask" in example:
            seen = example["token_mask"]
        else:
            seen = example["segment_ids"] > 0 if "segment_ids" in example else has_target
        loss = float(predicted["losses"].sum() / max(has_target.sum(), 1))
        tokenizer = data.tokenizer
        pieces = [
            {
                "token": tokenizer.decode([token], skip_special=False),
                "target": tokenizer.decode([target], skip_special=False) if target >= 0 else None,
                "likeliest": tokenizer.decode([best], skip_special=False),
                "loss": round(float(nats), 4),
            }
            for token, target, best, nats, there in zip(
                example["tokens"], example["targets"], predicted["likeliest"], predicted["losses"], seen
            )
            if there
        ]
        text = tokenizer.decode(example["tokens"][seen])
        return {"correct": None, "text": text, "pieces": pieces, "loss": loss}


@dataclass(frozen=True)
class CausalLM(TokenTask):
    """Learns the next token of a text (Radford et al. 2019).

    Attributes:
      label_smoothing: see `TokenTask`.
      z_loss: see `TokenTask`.
    """

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields lines as for any text, and for a model or examples in which tokens see those after them."""
        if model.kind != "decoder":
            yield f'model: {type(model).__name__} does not go from token to token, as this task needs; choose "gpt"'
        yield from super().fits(model, train, evaluation)
        names = set(train.element_spec)
        if "targets" in names and names & {"token_types", "decoder_tokens"}:
            yield "data.examples: the targets are not the next tokens; choose windows or documents"


@dataclass(frozen=True)
class MaskedLM(TokenTask):
    """Learns the tokens that the transform "mask_tokens" has hidden (Devlin et al. 2019, section 3.1).

    Attributes:
      label_smoothing: see `TokenTask`.
      z_loss: see `TokenTask`.
    """

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields lines as for any text, and for a model without the head."""
        yield from head_fits(model, "mlm")
        yield from super().fits(model, train, evaluation)

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses tokens that the model has no row for, and a batch whose targets are the next tokens."""
        super().check(model, batch)
        tokens, targets = batch["tokens"], batch["targets"]
        if 2 * np.sum((targets[:, :-1] >= 0) & (targets[:, :-1] == tokens[:, 1:])) > tokens.size:
            raise UserError(
                "data.transforms: no token is masked, the targets are the next tokens",
                "add dict(name='mask_tokens') to data.transforms and to data.eval_transforms",
            )


def by_position(losses: np.ndarray, counts: np.ndarray) -> list[dict[str, float]]:
    """Mean losses of stretches of places: "position" (their middle), "loss" and "count" each."""
    width = -(-len(losses) // POSITIONS_SHOWN)
    rows = []
    for first in range(0, len(losses), width):
        part = slice(first, first + width)
        count = float(counts[part].sum())
        if count:
            middle = first + (min(width, len(losses) - first) - 1) / 2
            rows.append({"position": middle, "loss": float(losses[part].sum()) / count, "count": count})
    return rows
