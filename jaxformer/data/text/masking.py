"""Masked tokens to be predicted (Devlin et al. 2018, section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from jaxformer.config.fields import Constraint
from jaxformer.data.text.rows import IGNORED
from jaxformer.data.text.text_transforms import Bound, Example, TextTransform
from jaxformer.data.text.tokenizer_templates import is_byte_level
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError

MASKED, REPLACED = 0.8, 0.1  # of the chosen tokens; the rest stay as they are


@dataclass(frozen=True)
class MaskTokens(TextTransform):
    """Chooses tokens to be predicted: 80% become the mask token, 10% another at random, 10% stay.

    The examples' `tokens` are changed, and `targets` has the original where a token was chosen, -1 elsewhere;
    special tokens and padding never are. (Targets of causal language modelling are replaced. Windows get a
    `token_mask`, as their last one is padded.)

    It may stand in `eval_transforms` too, so it does not count as random: there its choices come from the
    example's index alone, so that every evaluation of every run sees the same masks.
    """

    share: Annotated[
        float, Constraint("more than 0, and at most 1; 0.15 is usual", lambda share: 0 < share <= 1)
    ] = 0.15
    """The probability with which each token is chosen, or each word."""
    whole_word: bool = False
    """Whether the pieces of a word are chosen together (Google's "whole word masking"). A word begins at a
    token that is no continuation: for WordPiece those with "##"; for byte-level and sentencepiece tokenizers
    those without a space before them."""
    random: ClassVar[bool] = False
    fills: ClassVar[Mapping[str, int]] = {"targets": IGNORED, "token_mask": 0}

    def load(self, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The special tokens, bool [vocab_size]; the others' ids; those that begin a word, bool [vocab_size], or None.

        Raises:
          UserError: there is no mask token; or `whole_word` is set, and tokens do not tell where words begin.
        """
        if tokenizer.mask_id is None:
            remedy = "give it template='bert' or 'roberta'"
            raise UserError(f"transform mask_tokens: the tokenizer has no mask token; {remedy}")
        special = np.zeros(tokenizer.vocab_size, bool)
        added = tokenizer.hf.get_added_tokens_decoder()
        special[[index for index, token in added.items() if token.special]] = True
        return special, np.flatnonzero(~special), word_table(tokenizer) if self.whole_word else None

    def apply(self, example: Example, rng: np.random.Generator, bound: Bound) -> Example:
        tokens, (special, ordinary, begins) = example["tokens"], bound.loaded
        changed = dict(example)
        if "token_mask" in example:
            real = example["token_mask"]
        elif "segment_ids" in example:
            real = example["segment_ids"] > 0
        else:
            real = changed["token_mask"] = example["targets"] != IGNORED
        candidates = np.flatnonzero(real & ~special[tokens])
        chosen = rng.random(len(candidates)) < self.share
        if begins is not None:
            chosen = chosen[words_of(candidates, example, begins)]
        places = candidates[chosen]
        fate = rng.random(len(candidates))[chosen]
        replaced = places[fate >= 1 - REPLACED]
        masked, targets = tokens.copy(), np.full(tokens.shape, IGNORED, np.int32)
        targets[places] = tokens[places]
        masked[places[fate < MASKED]] = bound.tokenizer.mask_id
        masked[replaced] = ordinary[rng.integers(len(ordinary), size=len(replaced))]
        return changed | {"tokens": masked, "targets": targets}


def words_of(candidates: np.ndarray, example: Example, begins: np.ndarray) -> np.ndarray:
    """The number, from 0, of the word that each of the places `candidates` belongs to."""
    begin = begins[example["tokens"][candidates]]
    begin[:1] = False  # the first word is number 0, whatever it begins with
    begin[1:] |= np.diff(candidates) > 1  # a special token stands between
    if "segment_ids" in example:
        begin[1:] |= np.diff(example["segment_ids"][candidates]) != 0
    return np.cumsum(begin)


def word_table(tokenizer: Tokenizer) -> np.ndarray:
    """bool [vocab_size]: whether a word may begin with a token.

    Raises:
      UserError: tokens do not tell.
    """
    model, vocabulary = tokenizer.hf.model, tokenizer.hf.get_vocab()
    kind, continues = type(model).__name__, False
    if kind == "WordPiece":
        prefix, continues = model.continuing_subword_prefix, True
    elif is_byte_level(tokenizer.hf.pre_tokenizer):
        prefix = "Ġ"  # how byte-level vocabularies write a space
    elif kind != "WordLevel" and any(token.startswith("▁") for token in vocabulary):
        prefix = "▁"  # sentencepiece's
    else:
        raise UserError(
            "transform mask_tokens: whole_word needs a WordPiece, byte-level BPE or sentencepiece tokenizer; "
            f"the tokens of this one ({kind}) do not tell where a word begins; set whole_word=False"
        )
    table = np.ones(tokenizer.vocab_size, bool)
    for token, index in vocabulary.items():
        table[index] = token.startswith(prefix) != continues
    return table
