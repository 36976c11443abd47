"""The kinds of models that write texts: a decoder continues one, an encoder-decoder writes one for another, and a
captioner one about a picture."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding import steps
from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.inference.writing import BATCH, Generation, Writer, rounded
from jaxformer.models.base import WRITE_OF_IMAGES
from jaxformer.models.masks import Cache

if TYPE_CHECKING:
    from jaxformer.inference.loaded import LoadedRun

Tree = Any
Pair = tuple[list[int], list[int]]


class CausalModel(Writer):
    """A decoder with a tokenizer; it also says how likely texts are, as `evaluation/likelihood.py` asks."""

    goes_on = True
    next_step = staticmethod(steps.next_token)

    def __init__(self, model: nn.Module, variables: Tree, tokenizer: Tokenizer):
        super().__init__(model, variables, tokenizer)
        self._prefill = jax.jit(partial(steps.read_prompts, self.model), donate_argnums=3)
        self._score = jax.jit(partial(score, self.model))

    def encode(self, prompt: str) -> list[int]:
        """The ids of a prompt, with the tokenizer's first token in front where it has one of its own.

        Raises:
          UserError: the prompt is empty and no token begins a text, or it has characters that are no token.
        """
        ids = self.tokenizer.encode(prompt, special=False)
        begin, end = self.tokenizer.bos_id, self.tokenizer.eos_id
        if ids and begin in (None, end):
            return ids
        first = end if begin is None else begin  # GPT-2's end of text also begins one
        if first is None:
            raise UserError("prompt: is empty, and this tokenizer has no token that begins a text")
        return [first, *ids]

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[Cache, jax.Array]:
        tokens, mask = self.padded(prompts, left=True)  # all end at the same place
        length, windows = tokens.shape[1], self.model.windows()
        cache = self.model.start(len(prompts), length + rounded(new_tokens))
        # A cache that is written round and round takes a window's tokens at a time.
        piece = length if None in windows else min(length, *windows)
        for first in range(0, length, piece):
            part = slice(first, first + piece)
            cache, logits = self._prefill(self.variables, tokens[:, part], mask[:, part], cache)
        return cache, logits

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
        """The summed log-probability of each (context, continuation), and whether greedy decoding gives it."""
        return [(float(chances.sum()), bool(greedy.all())) for chances, greedy in self.scores(requests)]

    def scores(self, pairs: Sequence[Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The log-probability of each token of each continuation, and whether it is the likeliest one.

        Each text is padded on the right to its own multiple of LENGTH_STEP, in a batch of BATCH, and so by one program
        to one result, whatever else is asked.
        """
        texts = [[*context, *continuation] for context, continuation in pairs]
        of_length = defaultdict(list)
        for i, ids in enumerate(texts):
            of_length[rounded(len(ids) - 1)].append(i)
        chunks = (each[i : i + BATCH] for each in of_length.values() for i in range(0, len(each), BATCH))
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for chosen in chunks:
            batch = [texts[i] for i in chosen] + [[0]] * (BATCH - len(chosen))
            tokens, mask = self.padded([ids[:-1] for ids in batch])
            targets, _ = self.padded([ids[1:] for ids in batch])
            chances, greedy = map(np.asarray, self._score(self.variables, tokens, mask, targets))
            for row, i in enumerate(chosen):
                part = slice(len(pairs[i][0]) - 1, len(texts[i]) - 1)
                found[i] = chances[row, part], greedy[row, part]
        return [found[i] for i in range(len(pairs))]


def score(
    model: Any, variables: Tree, tokens: jax.Array, mask: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets [B, T], float32, and whether they are the likeliest."""
    logits = model.apply(variables, tokens, mask).logits
    own = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return own - jax.nn.logsumexp(logits, axis=-1), jnp.argmax(logits, axis=-1) == targets


class TextToText(Writer):
    """An encoder-decoder with a tokenizer, the same on both sides.

    Raises:
      UserError: the tokenizer has no token that ends a text.
    """

    goes_on = False
    next_step = staticmethod(steps.next_target)
    reorder = staticmethod(steps.take_targets)

    def __init__(self, model: nn.Module, variables: Tree, tokenizer: Tokenizer):
        super().__init__(model, variables, tokenizer)
        if tokenizer.eos_id is None:
            remedy = "train with template='seq2seq'"
            raise UserError(f"this run's tokenizer has no token that ends a text; {remedy}")
        self.eos_id: int = tokenizer.eos_id
        first = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
        self.first_id = 0 if first is None else first
        self._begin = jax.jit(partial(steps.read_sources, self.model), static_argnums=4)

    def encode(self, prompt: str) -> list[int]:
        """The ids of a source text, as in training: with the token that ends it, whether the template has it or not."""
        ids = self.tokenizer.encode(prompt)
        return ids if ids[-1:] == [self.eos_id] else [*ids, self.eos_id]

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[steps.SourceState, jax.Array]:
        tokens, mask = self.padded(prompts)
        return self._begin(self.variables, tokens, mask, jnp.int32(self.first_id), new_tokens + 1)


class AboutPicture(Writer):
    """A captioner with a tokenizer, which writes about one picture; what a prompt asks stands in front.

    Args:
      image: the picture as the model takes it, float [H, W, C].
    """

    goes_on = False
    next_step = staticmethod(steps.next_target)
    reorder = staticmethod(steps.take_targets)

    def __init__(self, model: nn.Module, variables: Tree, tokenizer: Tokenizer, image: np.ndarray):
        super().__init__(model, variables, tokenizer)
        self.image = image
        self.first_ids = tokenizer.frame()[0]

    def encode(self, prompt: str) -> list[int]:
        """The ids of what is in front of the text: the tokens that start one, and the prompt's, of which there may be
        none."""
        return [*self.first_ids, *(self.tokenizer.encode(prompt, special=False) if prompt else [])]

    def start(self, prompts: Sequence[list[int]], new_tokens: int) -> tuple[steps.SourceState, jax.Array]:
        tokens, mask = self.padded(prompts, left=True)
        images = np.broadcast_to(self.image, (len(prompts), *self.image.shape))
        return begin_about(self.model, self.variables, images, tokens, mask, rounded(new_tokens))

    def room(self, prompts: Sequence[list[int]], wanted: int) -> int:
        return min(wanted, self.context_length + 1 - max(map(len, prompts)))


begin_about = jax.jit(steps.read_pictures, static_argnums=(0, 5))


def writer_of(run: "LoadedRun", image: str | Path | np.ndarray | None = None) -> Writer:
    """What writes texts with a run's model.

    Args:
      run: a trained run.
      image: a file, or uint8 [H, W, C], of which a captioner writes; None for models of texts.

    Raises:
      UserError: the model writes none, or not of images, or wants an image; the image cannot be read.
    """
    name, folder, kind = type(run.model).__name__, run.run.folder, run.model.kind
    writers: dict[str, type[Writer]] = {"decoder": CausalModel, "encoder-decoder": TextToText}
    if (kind in WRITE_OF_IMAGES) != (image is not None):
        does = "writes about images: give it one" if image is None else "does not write about images"
        raise UserError(f"{folder}: holds a model ({name}) that {does}")
    if image is None and kind not in writers:
        remedy = "use predict for its answers to texts or images"
        raise UserError(f"{folder}: holds a model ({name}) that writes no texts", remedy)
    given = run.model, jax.device_put(run.variables, jax.devices()[0]), run.tokenizer
    if image is None:
        return writers[kind](*given)
    pixels = {"image": run.example(image)["image"][None]}
    return AboutPicture(*given, np.asarray(run.task.normalised(pixels)["image"][0]))
