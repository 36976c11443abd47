"""What tasks whose models write a text have in common: how an evaluation searches for it."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array

from jaxformer.config.fields import NewTokens, at_least, between
from jaxformer.decoding.beam import beam_search, repeat_rows
from jaxformer.decoding.steps import SourceState, next_target, take_targets
from jaxformer.tasks.text import TokenTask


@dataclass(frozen=True)
class WritingTask(TokenTask):
    """Learns to write a text about something else: another text, or a picture."""

    beams: Annotated[int, between(0, 1024, "1 (greedy) or more, at most 1024, or 0 to write nothing")] = 1
    """Hypotheses that an evaluation follows; 1 is greedy, 0 writes nothing (and has no scores of texts)."""
    length_penalty: Annotated[float, at_least(0, "0 (none) or more, such as 0.6")] = 0.6
    """Alpha of Wu et al. 2016, equation 14; 0.6 in Vaswani et al. 2017."""
    max_new_tokens: NewTokens | None = None
    """Tokens in a text, at most; None: as many as the model takes."""
    eos_id: int | None = None
    """The token that ends a text; None: the tokenizer's."""

    def searched(
        self,
        model: Any,
        variables: Any,
        state: SourceState,
        logits: Array,
        limit: int,
        limits: Array | None = None,
    ) -> Array:
        """The best text of each row that the search finds, int32 [B, limit], with its end token, then -1.

        Args:
          model: a model with unrolled layers, as `next_target` takes it.
          variables: its variables.
          state: its state after what it has read.
          logits: of the first token, [B, V].
          limit: how many tokens a text has at most.
          limits: the same for each row, int32 [B]; None: `limit`.
        """
        beams = max(1, self.beams)
        written, lengths, _ = beam_search(
            partial(next_target, model, variables),
            repeat_rows(state, len(logits), beams),
            logits,
            beams=beams,
            max_new_tokens=limit,
            eos_id=self.eos_id or 0,
            pad_id=-1,
            length_penalty=self.length_penalty,
            limits=limits,
            reorder=take_targets,
        )
        inside = jnp.arange(limit)[None, :] < lengths[:, :1]
        return jnp.where(inside, written[:, 0], -1)
