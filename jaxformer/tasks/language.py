"""Language modelling: the next token, or the masked ones."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxformer.config.fields import Input, NonNegativeFloat, left_out
from jaxformer.errors import UserError
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import base
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Row, example_mask, masked_sum
from jaxformer.tasks.losses import token_cross_entropy
from jaxformer.tasks.text import TokenTask, real_tokens, text_of
from jaxformer.tasks.token_loss import summed_losses

POSITIONS_SHOWN = 64  # points of the curve of losses by position, at most


@dataclass(frozen=True)
class LanguageModel(TokenTask):
    """Learns a token at each place that has a target.

    Batches have `tokens`, `targets` (int32 [B, T], negative where there is none) and other arrays that describe the
    tokens. Models give `TextOutputs` with logits [B, T, V]. In training there is no metric but the loss: finding
    the likeliest of many tokens takes time.
    """

    z_loss: Input[NonNegativeFloat] = 0.0
    """The weight of the square of the logits' logarithm of sums, which keeps it near 0 (Chowdhery et al.
    2022, PaLM, section 5: 1e-4); 0 is off."""

    metric_names: ClassVar = ("loss", "perplexity", "accuracy")
    needs = ("tokens", "targets")

    def counts(self, batch: Batch) -> Arrays:
        """The number of targets and, for the router's losses, of examples; float32 []."""
        examples = jnp.sum(example_mask(batch), dtype=jnp.float32)
        targets = super().counts(batch)["cross_entropy"]
        return {"cross_entropy": targets, "z_loss": targets, "balance": examples, "router_z": examples}

    def loss(self, outputs: TextOutputs, batch: Batch) -> Arrays:
        """The cross-entropy, the z-loss and the losses of a mixture of experts, where there is one."""
        total, of_z = summed_losses(outputs, self.targets(batch), self.label_smoothing, self.z_loss)
        losses, mask = {"cross_entropy": total - of_z}, example_mask(batch)
        if not left_out(self.z_loss):
            losses["z_loss"] = of_z
        if outputs.router is not None:
            losses["balance"] = masked_sum(outputs.router.balance, mask)
            losses["router_z"] = masked_sum(outputs.router.z, mask)
        return losses

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> base.Evaluation:
        """Metrics "loss" (nats a token, without label smoothing), "perplexity" and "accuracy".

        The table "loss_by_position" has the mean loss of at most POSITIONS_SHOWN ranges of positions.
        """
        loss, right = base.mean_of(sums), base.mean_of(sums, "accuracy")
        metrics = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": right}
        return base.Evaluation(metrics, {"loss_by_position": by_position(sums["loss"], sums["count"])})

    def predictions(self, outputs: TextOutputs, batch: Batch) -> Arrays:
        """The likeliest token at each place, and each target's loss: [B, T]."""
        losses = token_cross_entropy(outputs.logits, self.targets(batch))
        return {**super().predictions(outputs, batch), "losses": losses}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The text, and its pieces with their targets and losses."""

        def word(token: int) -> str:
            return data.tokenizer.decode([token], skip_special=False)

        columns = (example["tokens"], example["targets"], predicted["likeliest"], predicted["losses"])
        pieces = [
            {
                "token": word(token),
                "target": word(target) if target >= 0 else None,
                "likeliest": word(best),
                "loss": round(float(nats), 4),
            }
            for token, target, best, nats in zip(*(column[real_tokens(example)] for column in columns))
        ]
        loss = float(predicted["losses"].sum() / max((example["targets"] >= 0).sum(), 1))
        return {"correct": None, "text": text_of(example, data), "pieces": pieces, "loss": loss}


@dataclass(frozen=True)
class CausalLM(LanguageModel):
    """Learns the next token of a text (Radford et al. 2019)."""

    reads: ClassVar = None

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if model.kind != "decoder":
            yield f'model: {type(model).__name__} does not go from token to token, as this task needs; choose "gpt"'
        yield from super().fits(model, train, evaluation)
        names = set(train.element_spec)
        if "targets" in names and names & {"token_types", "decoder_tokens"}:
            yield "data.examples: the targets are not the next tokens; choose windows or documents"


@dataclass(frozen=True)
class MaskedLM(LanguageModel):
    """Learns the tokens that the transform "mask_tokens" has hidden (Devlin et al. 2019, section 3.1)."""

    head = "mlm"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Also refuses a batch whose targets are the next tokens."""
        super().check(model, batch)
        tokens, targets = batch["tokens"], batch["targets"]
        if 2 * np.sum((targets[:, :-1] >= 0) & (targets[:, :-1] == tokens[:, 1:])) > tokens.size:
            remedy = "add dict(name='mask_tokens') to data.transforms and to data.eval_transforms"
            raise UserError("data.transforms: no token is masked, the targets are the next tokens", remedy)

    def prepare(self, example: Row, about: DataInfo) -> Row:
        """Adds "places" of the masks, int32 [M]."""
        tokenizer, mask_id = about.tokenizer, about.tokenizer.mask_id
        places = np.flatnonzero(example["tokens"] == (-1 if mask_id is None else mask_id))
        if not len(places):
            mask = "a mask" if mask_id is None else tokenizer.hf.id_to_token(mask_id)
            raise UserError(f"there is no {mask} in it to be filled in")
        return {**example, "places": places.astype(np.int32)}

    def predict(self, model: Any, variables: Any, batch: Batch, top: int = 5) -> Arrays:
        """The `top` likeliest tokens of each mask: `probabilities` float32 and `ids` int32, [B, M, top]."""
        logits = model.apply(variables, **self.inputs(batch), deterministic=True).logits
        at_masks = jnp.take_along_axis(logits, batch["places"][..., None], axis=1)  # [B, M, V]
        found, ids = lax.top_k(jax.nn.softmax(at_masks), min(top, logits.shape[-1]))
        return {"probabilities": found, "ids": ids}

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """ "masks": for each mask the likeliest tokens, each a "token", "index" and "probability"."""

        def one(token: int, probability: float) -> dict[str, Any]:
            text = about.tokenizer.decode([token], skip_special=False)
            return {"token": text, "index": int(token), "probability": round(float(probability), 6)}

        masks = list(zip(predicted["ids"], predicted["probabilities"]))[: len(example["places"])]
        return {"masks": [[one(*best) for best in zip(*mask)] for mask in masks]}


def by_position(losses: np.ndarray, counts: np.ndarray) -> list[dict[str, float]]:
    """The mean losses of ranges of positions, each with its middle: "position", "loss" and "count"."""
    starts = np.arange(0, len(losses), -(-len(losses) // POSITIONS_SHOWN))
    totals, targets = (np.add.reduceat(values, starts) for values in (losses, counts))
    middles = (starts + np.append(starts[1:], len(losses)) - 1) / 2
    return [
        {"position": float(middle), "loss": float(total / count), "count": float(count)}
        for middle, total, count in zip(middles, totals, targets)
        if count
    ]
