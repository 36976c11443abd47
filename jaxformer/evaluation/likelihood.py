"""How likely a language model finds a text: what it is asked, how texts become tokens, and perplexity."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

CHUNK = 256  # windows, or examples, that a model gets at a time

Pair = tuple[list[int], list[int]]


class LanguageModel(Protocol):
    """What evaluation needs of a causal language model.

    A context is never empty; together with its continuation it has at most `context_length` + 1 tokens, since the last
    one is predicted but not seen. The answers come in the order of the requests; a model batches them as it likes.
    """

    @property
    def context_length(self) -> int:
        """How many tokens the model sees at once."""

    @property
    def tokenizer(self) -> "Tokenizer":
        """Turns text into the model's token ids."""

    def log_likelihoods(self, requests: Sequence[Pair]) -> list[tuple[float, bool]]:
        """For each (context, continuation): log p(continuation | context) in nats, and whether it is the greedy one."""

    def token_log_likelihoods(self, windows: Sequence[Pair]) -> list[np.ndarray]:
        """For each (context, continuation): log p of each of the continuation's tokens, float [len(continuation)]."""

    def generate_until(
        self, prompts: Sequence[list[int]], stops: Sequence[str], max_new_tokens: int
    ) -> list[str]:
        """The text that greedy decoding gives after each prompt, before the first of `stops` or the end of text.

        A prompt and its `max_new_tokens` have at most `context_length` tokens.
        """


def encode_pair(tokenizer: "Tokenizer", context: str, continuation: str) -> Pair:
    """Token ids of a context, never empty, and of what follows it, as one text is tokenised.

    They are encoded together and then parted, so that tokens are those the model would see in running text; white
    space at the context's end goes to the continuation, since tokenizers join it to the next word. (So does
    lm-evaluation-harness.) A token across the border belongs to the continuation.

    Raises:
      UserError: there is nothing to condition on: no context, and no token that begins a text.
    """
    bare = context.rstrip()
    whole = tokenizer.encode(context + continuation, special=False)
    head = tokenizer.encode(bare, special=False) if bare else []
    shared = next((i for i, (a, b) in enumerate(zip(head, whole)) if a != b), min(len(head), len(whole)))
    front = start_ids(tokenizer, alone=shared == 0)
    if not front and shared == 0:
        raise UserError("a first token cannot be scored: the tokenizer has no bos or eos; give a context")
    return front + whole[:shared], whole[shared:]


def start_ids(tokenizer: "Tokenizer", alone: bool) -> list[int]:
    """What stands before a text: bos, if the tokenizer has one apart from eos; else eos, but only if it stands `alone`.

    (GPT-2's <|endoftext|> parts documents, and prompts are given without it; Llama's <s> begins every text.)
    """
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    if bos is not None and (bos != eos or alone):
        return [bos]
    return [eos] if alone and eos is not None else []


def perplexity(
    model: LanguageModel, text: str | Sequence[int], stride: int | None = None, text_bytes: int | None = None
) -> dict[str, float]:
    """How well the model predicts a text: every token is scored once.

    Each window but the first scores its last `stride` tokens, so that these see at least context_length - stride
    tokens before them (as in Baevski & Auli 2019). Smaller strides give lower perplexities and take longer:
    stride = 1 conditions each token on all that the model can see, stride = context_length is what
    lm-evaluation-harness computes.

    Args:
      text: the text, or its token ids. The token that begins texts (bos, else eos) is put in front unless it is
        there; if the tokenizer has none, the first token is not scored.
      stride: tokens from window to window, at most context_length; None takes half of it.
      text_bytes: the length in UTF-8 of what the token ids stand for; None decodes them, without special tokens.

    Returns:
      loss: nats a scored token.  perplexity: e^loss.  tokens: how many were scored.  bytes: of the whole text in UTF-8.
      bits_per_byte: loss / ln 2 * tokens of the text / bytes; comparable between tokenizers. (The text's tokens are
      those that were scored; and the first, for which the loss stands in, if it could not be.)

    Raises:
      UserError: there is nothing to score, `stride` is out of range, a log-likelihood is NaN, or a character is no
        token; that names the line.
    """
    stride = max(1, model.context_length // 2) if stride is None else stride
    if not 1 <= stride <= model.context_length:
        raise UserError(f"stride={stride}: expected 1 to {model.context_length}, what the model sees")
    if isinstance(text, str):
        tokens, text_bytes = encode(model.tokenizer, text), len(text.encode())
    else:
        tokens = [int(token) for token in text]
    sequence = with_start(model, tokens)
    scored = len(sequence) - 1
    if scored < 1:
        raise UserError("there is nothing to score: the text is empty, or one token with nothing before it")
    if text_bytes is None:
        text_bytes = len(model.tokenizer.decode(tokens).encode())
    loss = -log_likelihood(model, sequence, stride) / scored
    if math.isnan(loss):
        raise UserError("the model's log-likelihoods are not numbers (NaN); try another checkpoint")
    text_tokens = scored if sequence[:1] == start_ids(model.tokenizer, alone=True) else scored + 1
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "bits_per_byte": loss / math.log(2) * text_tokens / text_bytes if text_bytes else math.nan,
        "tokens": scored,
        "bytes": text_bytes,
    }


def encode(tokenizer: "Tokenizer", text: str, name: str = "text") -> list[int]:
    """A text's token ids.

    Raises:
      UserError: a character is none; begins with `name` and the line.
    """
    try:
        return tokenizer.encode(text, special=False)
    except UserError:
        for number, line in enumerate(text.split("\n"), 1):
            try:
                tokenizer.encode(line, special=False)
            except UserError as error:
                reason = error.lines[0].removeprefix("text: ")
                raise UserError(f"{name}, line {number}: {reason}", *error.lines[1:]) from error
        raise


def with_start(model: LanguageModel, tokens: list[int]) -> list[int]:
    """The tokens after the one that begins texts, if there is one."""
    start = start_ids(model.tokenizer, alone=True)
    return tokens if tokens[: len(start)] == start else start + tokens


def log_likelihood(model: LanguageModel, sequence: list[int], stride: int) -> float:
    """The sum of log p, in nats, of all tokens of a sequence but the first; 0 if there are none."""
    spans = windows(len(sequence), model.context_length, stride)
    parts: list[float] = []
    while chunk := list(islice(spans, CHUNK)):
        answers = model.token_log_likelihoods([(sequence[a:b], sequence[b:c]) for a, b, c in chunk])
        if [len(answer) for answer in answers] != [end - begin for _, begin, end in chunk]:
            raise ValueError("the model's answers do not have the lengths of the continuations")
        parts += [float(np.sum(answer, dtype=np.float64)) for answer in answers]
    return sum(parts)


def windows(length: int, context_length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Covers positions 1 to length - 1 once: (start, begin, end) scores [begin, end) given [start, begin).

    The model sees [start, end - 1): at most `context_length` tokens, and as many wherever there are.
    """
    begin, end = 1, min(length, context_length + 1)
    while begin < end:
        yield max(0, end - 1 - context_length), begin, end
        begin, end = end, min(length, end + stride)
