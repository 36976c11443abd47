"""Perplexity and bits per byte of a text that is longer than the model's context, with a sliding window."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot import LanguageModel, start_ids

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

CHUNK = 256  # windows that a model gets at a time


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
        raise UserError(
            f"stride={stride}: expected 1 to {model.context_length}, the tokens that the model sees"
        )
    if isinstance(text, str):
        tokens, text_bytes = encode(model.tokenizer, text), len(text.encode())
    else:
        tokens = [int(token) for token in text]
    sequence = with_start(model, tokens)
    scored = len(sequence) - 1
    if scored < 1:
        raise UserError(
            "there is nothing to score: the text is empty, or one token without anything before it"
        )
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
        pairs = [(sequence[start:begin], sequence[begin:end]) for start, begin, end in chunk]
        answers = model.token_log_likelihoods(pairs)
        if [len(answer) for answer in answers] != [len(continuation) for _, continuation in pairs]:
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
