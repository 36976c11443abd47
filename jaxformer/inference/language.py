"""A language model continues texts, and says how likely they are."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.loop import Chunk, StopStrings, stream
from jaxformer.decoding.sampling import Sampling, seen_tokens
from jaxformer.decoding.steps import next_token, read_prompts
from jaxformer.errors import UserError
from jaxformer.inference.writing import BATCH, TOKENS_AT_A_TIME, Generation, Writer, rounded
from jaxformer.models.cache import Cache

Tree = Any
Pair = tuple[list[int], list[int]]


class CausalModel(Writer):
    """A decoder with a tokenizer; `evaluation/likelihood.py` has the protocol that it keeps."""

    next_step = staticmethod(next_token)

    def __init__(self, model: nn.Module, variables: Tree, tokenizer: Tokenizer):
        super().__init__(model, variables, tokenizer)
        self._prefill = jax.jit(partial(read_prompts, self.model), donate_argnums=3)
        self._score = jax.jit(partial(score, self.model))

    @property
    def first_id(self) -> int | None:
        """What an empty text begins with: the tokenizer's first token, or GPT-2's end of text."""
        return self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    def encode(self, prompt: str) -> list[int]:
        """The ids of a prompt, with the tokenizer's first token in front where it has one of its own.

        Raises:
          UserError: the prompt is empty and no token begins a text, or it has characters that are no token.
        """
        ids = self.tokenizer.encode(prompt, special=False)
        begins = self.tokenizer.bos_id is not None and self.tokenizer.bos_id != self.tokenizer.eos_id
        if begins or not ids:
            if self.first_id is None:
                raise UserError("prompt: is empty, and this tokenizer has no token that begins a text")
            ids = [self.first_id, *ids]
        return ids

    def room(self, prompts: Sequence[list[int]], how: Generation) -> int:
        """Where the longest prompt's continuation fills the context, the others end, too."""
        return min(how.max_new_tokens, self.context_length - max(map(len, prompts)) + 1)

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[Cache, jax.Array]:
        tokens, mask = self.padded(prompts, left=True)  # all end at the same place
        length = tokens.shape[1]
        cache = self.model.start(len(prompts), length + rounded(new_tokens))
        piece = self.piece(length)
        for first in range(0, length, piece):
            part = slice(first, first + piece)
            cache, logits = self._prefill(self.variables, tokens[:, part], mask[:, part], cache)
        return cache, logits

    def piece(self, length: int) -> int:
        """How many tokens a cache takes at a time: where it is written round and round, a window's."""
        windows = self.model.windows()
        return length if None in windows else min(length, *windows)

    def view(self, ids: list[int]) -> list[int]:
        """The tokens of a text that the model sees: all of them, or those from its last half on where it was full.

        That depends on the text alone, and on no other that is in the same batch.
        """
        beyond = len(ids) - self.context_length
        if beyond <= 0:
            return ids
        half = max(1, self.context_length // 2)
        return ids[-(half + (beyond - 1) % (self.context_length + 1 - half)) :]

    def stream(
        self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings, first_row: int = 0
    ) -> Iterator[Chunk]:
        """Yields what comes after prompts of at most `context_length` tokens, as it is made; see `Writer.stream`.

        Where the context is full, a text goes on from the last half of it. What is drawn depends on the seed, the
        text, its number (`first_row + row`) and the token's: on no other text of the batch, but for rounding.
        """
        self.check_prompts(prompts)
        texts = [list(ids) for ids in prompts]
        done = np.zeros(len(texts), bool)
        key, written = jax.random.key(how.seed), 0
        while written < how.max_new_tokens and not done.all():
            views = [self.view(ids) for ids in texts]
            fullest = max(len(ids) for ids, is_done in zip(views, done) if not is_done)
            room = min(how.max_new_tokens - written, self.context_length + 1 - fullest)
            cache, logits = self.start(views, room)
            chunks = stream(
                self.step,
                cache,
                logits,
                key=key,
                sampling=how.sampling,
                max_new_tokens=room,
                eos_ids=() if self.tokenizer.eos_id is None else (self.tokenizer.eos_id,),
                pad_id=0,
                seen=None if how.sampling.repetition_penalty == 1 else seen_tokens(views, logits.shape[1]),
                rows=first_row + jnp.arange(len(texts)),
                chunk=TOKENS_AT_A_TIME,
                first=written,
            )
            for chunk in chunks:
                # A text that is over stays so, whatever else the loop on the device makes of it.
                counts = np.where(done, 0, chunk.counts)
                done = done | chunk.done
                for row in np.flatnonzero(counts).tolist():
                    new = chunk.tokens[row, : counts[row]].tolist()
                    texts[row] += new
                    done[row] |= stops.extend(row, new)
                yield Chunk(chunk.tokens, counts, done)
                if done.all():
                    return
            written += room

    def generate_until(
        self, prompts: Sequence[list[int]], stops: Sequence[str], max_new_tokens: int
    ) -> list[str]:
        """Greedy continuations up to the first of `stops`; see `evaluation/likelihood.py`."""
        how = Generation(max_new_tokens, Sampling(temperature=0), tuple(stops))
        return [continuation.text for continuation in self.generate(prompts, how)]

    def token_log_likelihoods(self, windows: Sequence[Pair]) -> list[np.ndarray]:
        """The log-probability of each token of the continuations, given what is before: float32 [len] each."""
        return [chances for chances, _ in self.scores(windows)]

    def log_likelihoods(self, requests: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Of each (context, continuation) the summed log-probability, and whether greedy decoding gives it."""
        return [(float(chances.sum()), bool(greedy.all())) for chances, greedy in self.scores(requests)]

    def scores(self, pairs: Sequence[Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each continuation's tokens the log-probability, and whether it is the likeliest token.

        Texts of like lengths are scored together, padded on the right to a multiple of LENGTH_STEP.
        """
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            texts = [[*pairs[i][0], *pairs[i][1]] for i in chosen]
            texts += [[0]] * (BATCH - len(texts))
            tokens, mask = self.padded([ids[:-1] for ids in texts])
            targets, _ = self.padded([ids[1:] for ids in texts])
            chances, greedy = map(np.asarray, self._score(self.variables, tokens, mask, targets))
            for row, i in enumerate(chosen):
                part = slice(len(pairs[i][0]) - 1, len(pairs[i][0]) + len(pairs[i][1]) - 1)
                found[i] = chances[row, part], greedy[row, part]
        return [found[i] for i in range(len(pairs))]


def score(
    model: Any, variables: Tree, tokens: jax.Array, mask: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets [B, T], float32, and whether they are the likeliest."""
    logits = model.apply(variables, tokens, mask).logits
    own = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return own - jax.nn.logsumexp(logits, axis=-1), jnp.argmax(logits, axis=-1) == targets
