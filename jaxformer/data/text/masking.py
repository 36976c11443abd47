"""Masked tokens to be predicted (Devlin et al. 2018, section 3.1)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxformer.data.text.rows import IGNORED
from jaxformer.data.text.tokenizer_templates import is_byte_level
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

MASKED, REPLACED = 0.8, 0.1  # of the chosen tokens; the rest stay as they are
Example = dict[str, Any]


@dataclass(frozen=True)
class MaskTokens:
    """Chooses tokens to be predicted: 80% become the mask token, 10% another at random, 10% stay.

    The examples' `tokens` are changed, and `targets` has the original where a token was chosen, -1 elsewhere;
    special tokens and padding never are. (Targets of causal language modelling are replaced. Windows get a
    `token_mask`, as their last one is padded.)

    It may stand in `eval_transforms` too, so it does not count as random: there its choices come from the
    example's index alone, so that every evaluation of every run sees the same masks.
    """

    share: float = 0.15
    """The probability with which each token is chosen, or each word."""
    whole_word: bool = False
    """Whether the pieces of a word are chosen together (Google's "whole word masking"). A word begins at a
    token that is no continuation: for WordPiece those with "##"; for byte-level and sentencepiece tokenizers
    those without a space before them."""
    random: ClassVar[bool] = False

    def bind(self, tokenizer: "Tokenizer") -> "BoundMaskTokens":
        """The transform for a tokenizer.

        Raises:
          UserError: it has no mask token; or `whole_word` is set, and it does not tell where words begin.
        """
        if tokenizer.mask_id is None:
            raise UserError(
                "transform mask_tokens: the tokenizer has no mask token; give it template='bert' or 'roberta'"
            )
        special = special_table(tokenizer)
        begins = word_table(tokenizer) if self.whole_word else None
        return BoundMaskTokens(self.share, tokenizer.mask_id, special, begins)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        if not 0 < self.share <= 1:
            yield f"share={self.share}: must be more than 0, and at most 1; 0.15 is usual"


class BoundMaskTokens:
    """`MaskTokens` of a tokenizer."""

    fills: ClassVar[Mapping[str, int]] = {"targets": IGNORED, "token_mask": 0}
    """What stands on padding in the arrays that it adds."""

    def __init__(self, share: float, mask_id: int, special: np.ndarray, begins: np.ndarray | None):
        """`special` and `begins` are bool [vocab_size]: special tokens, and those that begin a word."""
        self._share, self._mask_id = share, mask_id
        self._special, self._begins = special, begins
        self._ordinary = np.flatnonzero(~special)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Masks the tokens of one row."""
        tokens = example["tokens"]
        changed = dict(example)
        if "token_mask" in example:
            real = example["token_mask"]
        elif "segment_ids" in example:
            real = example["segment_ids"] > 0
        else:
            real = changed["token_mask"] = example["targets"] != IGNORED
        candidates = np.flatnonzero(real & ~self._special[tokens])
        count = len(candidates)
        if self._begins is None:
            chosen = rng.random(count) < self._share
        else:
            words = self._words(candidates, example)
            chosen = (rng.random(count) < self._share)[words]
        places = candidates[chosen]
        fate = rng.random(count)[chosen]
        replaced = places[fate >= 1 - REPLACED]
        masked, targets = tokens.copy(), np.full(tokens.shape, IGNORED, np.int32)
        targets[places] = tokens[places]
        masked[places[fate < MASKED]] = self._mask_id
        masked[replaced] = self._ordinary[rng.integers(len(self._ordinary), size=len(replaced))]
        return changed | {"tokens": masked, "targets": targets}

    def _words(self, candidates: np.ndarray, example: Example) -> np.ndarray:
        """The number of each candidate's word, from 0."""
        if len(candidates) == 0:
            return candidates
        assert self._begins is not None
        begins = self._begins[example["tokens"][candidates]]
        begins[0] = False  # the first word is number 0, whatever it begins with
        begins[1:] |= np.diff(candidates) > 1  # a special token stands between
        if "segment_ids" in example:
            begins[1:] |= np.diff(example["segment_ids"][candidates]) != 0
        return np.cumsum(begins)


def special_table(tokenizer: "Tokenizer") -> np.ndarray:
    """bool [vocab_size]: whether a token is special."""
    table = np.zeros(tokenizer.vocab_size, bool)
    added = tokenizer.hf.get_added_tokens_decoder()
    table[[index for index, token in added.items() if token.special]] = True
    return table


def word_table(tokenizer: "Tokenizer") -> np.ndarray:
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
