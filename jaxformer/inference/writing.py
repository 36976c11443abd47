"""What all models that write texts have in common: how they are asked to, and what comes of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np
from jax.tree_util import Partial

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.beam import beam_search, repeat_rows
from jaxformer.decoding.loop import Chunk, StopStrings
from jaxformer.decoding.sampling import Sampling

Tree = Any

LENGTH_STEP = 32  # texts are padded to multiples of it, so that few lengths are compiled
BATCH = 32  # texts that are written, or scored, at a time
TOKENS_AT_A_TIME = 16  # between two looks of the host, in a stream
NO_TOKEN = -1  # is never chosen


@dataclass(frozen=True)
class Generation:
    """How texts are gone on with."""

    max_new_tokens: int = 256
    """Tokens to write, at most."""
    sampling: Sampling = field(default_factory=Sampling)
    """How each is chosen."""
    stops: tuple[str, ...] = ()
    """Strings before which a text ends."""
    seed: int = 0
    """Of what is random."""
    beams: int = 1
    """Hypotheses to follow; 1 samples (or is greedy, with temperature 0)."""
    length_penalty: float = 0.6
    """Of beam search (Wu et al. 2016, equation 14)."""


@dataclass(frozen=True)
class Continuation:
    """What came after a prompt."""

    text: str
    """Without the prompt, up to the stop string or the end of text."""
    tokens: int
    """How many there are."""
    ended: str
    """ "end of text", "stop string" or "length"."""


class Writer(Protocol):
    """What writes texts, a batch of them at a time."""

    tokenizer: Tokenizer

    def check_prompts(self, prompts: Sequence[list[int]]) -> None:
        """Raises UserError for a prompt that is too long."""

    def stream(
        self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings, first_row: int = 0
    ) -> Iterator[Chunk]:
        """Yields what comes after each prompt, as it is made, and gives it to `stops`.

        The prompts have the numbers `first_row`, `first_row + 1`, ... where something is drawn.
        """

    def search(self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings) -> None:
        """Gives `stops` the best continuation of each prompt that a beam finds."""


def continuations(writer: Writer, prompts: Sequence[list[int]], how: Generation) -> Iterator[Continuation]:
    """Yields what comes after each prompt; BATCH prompts are worked on at a time.

    Raises:
      UserError: a prompt is too long (of any batch, before the first), or `how` cannot be.
    """
    writer.check_prompts(prompts)
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        stops = StopStrings(how.stops, writer.tokenizer.decode, len(batch))
        if how.beams > 1:
            writer.search(batch, how, stops)
        else:
            for _ in writer.stream(batch, how, stops, first):
                pass
        for row in range(len(batch)):
            yield finished(stops, row, writer.tokenizer.eos_id)


def finished(stops: StopStrings, row: int, eos_id: int | None) -> Continuation:
    """A row's text as it stands."""
    ids = stops.ids[row]
    ended = "length"
    if stops.found[row] is not None:
        ended = "stop string"
    elif ids and ids[-1] == eos_id:
        ended = "end of text"
    return Continuation(stops.text(row), len(ids), ended)


def rounded(length: int) -> int:
    """The next multiple of LENGTH_STEP."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


beam_search_compiled = jax.jit(
    beam_search, static_argnames=("beams", "max_new_tokens", "eos_id", "pad_id", "length_penalty")
)


def search(
    step: Partial,
    state: Tree,
    first_logits: jax.Array,
    eos_id: int | None,
    new_tokens: int,
    how: Generation,
    stops: StopStrings,
) -> None:
    """Gives `stops` the best hypothesis of each row; see `beam_search`. Without `eos_id` none ends early."""
    written, lengths, _ = beam_search_compiled(
        step,
        repeat_rows(state, len(first_logits), how.beams),
        first_logits,
        beams=how.beams,
        max_new_tokens=new_tokens,
        eos_id=NO_TOKEN if eos_id is None else eos_id,
        pad_id=0,
        length_penalty=how.length_penalty,
    )
    for row, (ids, count) in enumerate(zip(np.asarray(written)[:, 0], np.asarray(lengths)[:, 0])):
        stops.extend(row, ids[:count].tolist())
