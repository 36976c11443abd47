"""A trained language model from a run's folder: it goes on with texts, and says how likely they are.

Nothing but the folder is needed: the tokenizer is saved in it, and no dataset is read.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.loop import Chunk, StopStrings, stream
from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.inference.restore import TrainedText
from jaxformer.inference.writing import (
    BATCH,
    TOKENS_AT_A_TIME,
    Continuation,
    Generation,
    continuations,
    rounded,
    search,
)
from jaxformer.models.cache import Cache
from jaxformer.weights.layouts import unrolled

Tree = Any
Pair = tuple[list[int], list[int]]


class CausalModel:
    """A decoder with a tokenizer; see `evaluation/fewshot.py` for the protocol that it keeps.

    Args:
      model: a GPT.
      variables: its variables.
      tokenizer: what its tokens mean.

    Attributes:
      context_length: how many tokens the model sees at once.
    """

    def __init__(self, model: Any, variables: Tree, tokenizer: Tokenizer):
        self.model, self.variables = unrolled(model, variables)
        self.tokenizer = tokenizer
        self.context_length: int = self.model.context_length
        self._prefill = jax.jit(partial(prefill, self.model), donate_argnums=3)
        self._score = jax.jit(partial(score, self.model))
        self._step = Partial(partial(decode, self.model), self.variables)

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
                raise UserError("--prompt: is empty, and this tokenizer has no token that begins a text")
            ids = [self.first_id, *ids]
        return ids

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[Cache, jax.Array]:
        """A cache that has seen the prompts, with room for `new_tokens` more, and logits [B, V] of what comes next."""
        length = self.padded(max(map(len, prompts)))
        tokens = np.zeros((len(prompts), length), np.int32)
        mask = np.zeros((len(prompts), length), bool)
        for row, ids in enumerate(prompts):  # padded on the left: all end at the same place
            tokens[row, length - len(ids) :], mask[row, length - len(ids) :] = ids, True
        cache = self.model.start(len(prompts), length + rounded(new_tokens))
        pieces = range(0, length, self.piece(length))
        for first in pieces:
            part = slice(first, first + self.piece(length))
            cache, logits = self._prefill(self.variables, tokens[:, part], mask[:, part], cache)
        return cache, logits

    def padded(self, longest: int) -> int:
        """The length that texts are padded to."""
        return min(rounded(longest), self.context_length)

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
        """Yields what comes after prompts of at most `context_length` tokens, as it is made; see `Writer`.

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
                self._step,
                cache,
                logits,
                key=key,
                sampling=how.sampling,
                max_new_tokens=room,
                eos_ids=() if self.tokenizer.eos_id is None else (self.tokenizer.eos_id,),
                pad_id=0,
                seen=None if how.sampling.repetition_penalty == 1 else seen_in(views, logits.shape[1]),
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
                yield Chunk(chunk.tokens, counts, done, chunk.logprobs)
                if done.all():
                    return
            written += room

    def generate(self, prompts: Sequence[list[int]], how: Generation) -> Iterator[Continuation]:
        """Yields what comes after each prompt; see `continuations`."""
        return continuations(self, prompts, how)

    def search(self, prompts: Sequence[list[int]], how: Generation, stops: StopStrings) -> None:
        """Beam search, see `Writer`; continuations end where the longest prompt's fills the context."""
        new = min(how.max_new_tokens, self.context_length - max(map(len, prompts)) + 1)
        cache, logits = self.start(prompts, new)
        search(self._step, cache, logits, self.tokenizer.eos_id, new, how, stops)

    def check_prompts(self, prompts: Sequence[list[int]]) -> None:
        """Raises UserError for a prompt that is longer than the context."""
        longest = max(map(len, prompts), default=0)
        if longest > self.context_length:
            raise UserError(
                f"--prompt: has {longest} tokens, the model's context is {self.context_length}; shorten it"
            )

    def generate_until(
        self, prompts: Sequence[list[int]], stops: Sequence[str], max_new_tokens: int
    ) -> list[str]:
        """Greedy continuations up to the first of `stops`; see `evaluation/fewshot.py`."""
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
            longest = max(len(pairs[i][0]) + len(pairs[i][1]) for i in chosen) - 1
            shape = BATCH, self.padded(longest)
            tokens, targets, mask = (
                np.zeros(shape, np.int32),
                np.zeros(shape, np.int32),
                np.zeros(shape, bool),
            )
            for row, i in enumerate(chosen):
                ids = [*pairs[i][0], *pairs[i][1]]
                seen = slice(0, len(ids) - 1)
                tokens[row, seen], targets[row, seen], mask[row, seen] = ids[:-1], ids[1:], True
            chances, greedy = map(np.asarray, self._score(self.variables, tokens, mask, targets))
            for row, i in enumerate(chosen):
                part = slice(len(pairs[i][0]) - 1, len(pairs[i][0]) + len(pairs[i][1]) - 1)
                found[i] = chances[row, part], greedy[row, part]
        return [found[i] for i in range(len(pairs))]


def seen_in(texts: Sequence[list[int]], vocab_size: int) -> jax.Array:
    """Which tokens are in each text, bool [B, V]."""
    seen = np.zeros((len(texts), vocab_size), bool)
    for row, ids in enumerate(texts):
        seen[row, ids] = True
    return jnp.asarray(seen)


def load(folder: Path, checkpoint: str = "best") -> tuple[Any, Tree, Tokenizer]:
    """The model of a run that writes texts (a linen module), its variables and its tokenizer.

    Raises:
      UserError: not a run's folder, or not of a model that writes texts, or it has no such checkpoint.
    """
    trained = TrainedText(folder, checkpoint)
    if trained.model.kind == "encoder":
        raise UserError(
            f"{folder}: holds a model ({type(trained.model).__name__}) that reads texts and writes none",
            "`jaxformer predict` says what it makes of a text",
        )
    return trained.model, trained.variables, trained.tokenizer


def prefill(
    model: Any, variables: Tree, tokens: jax.Array, mask: jax.Array, cache: Cache
) -> tuple[Cache, jax.Array]:
    """The cache after tokens [B, T] more, and logits [B, V] of what comes next."""
    outputs = model.apply(variables, tokens, mask, cache=cache, last_only=True)
    return outputs.cache, outputs.logits[:, -1]


def decode(model: Any, variables: Tree, cache: Cache, tokens: jax.Array) -> tuple[jax.Array, Cache]:
    """A decode step: logits [B, V] of what comes after tokens [B], and the cache with them."""
    outputs = model.apply(variables, tokens[:, None], cache=cache, last_only=True)
    return outputs.logits[:, -1], outputs.cache


def score(
    model: Any, variables: Tree, tokens: jax.Array, mask: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets [B, T], float32, and whether they are the likeliest."""
    logits = model.apply(variables, tokens, mask).logits
    own = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return own - jax.nn.logsumexp(logits, axis=-1), jnp.argmax(logits, axis=-1) == targets
