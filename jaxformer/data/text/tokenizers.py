"""Tokenizers: text to integers and back.

Every kind, whether it reads a published file or is made from the texts themselves, is a Hugging Face
`tokenizers.Tokenizer` inside, so that one file, tokenizer.json, saves any of them and other programs read it.
"""

import hashlib
import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import tokenizers

from jaxformer.config.fields import Constraint
from jaxformer.data.text.tokenizer_files import KINDS, parse_tokenizer_json, read_bytes, read_tokenizer
from jaxformer.data.text.tokenizer_templates import Template, apply_template, is_byte_level
from jaxformer.errors import UserError
from jaxformer.files import write_atomically

Texts = Callable[[], Iterator[str]]

# What each role's token is called in published vocabularies; the first that is there has the role.
ROLES: dict[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
    "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>"),
    "cls": ("[CLS]", "<cls>", "<s>"),
    "sep": ("[SEP]", "<sep>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}

MOST_TOKENS = 2**24  # ids that a model can have rows for


class Tokenizer:
    """Text to token ids and back. Threads may share one.

    A special token that a text spells out ("[SEP]", "<|endoftext|>") is read as that token.

    Attributes:
      hf: the wrapped tokenizers.Tokenizer, for offsets, word ids and pairs; neither pads nor truncates.
      vocab_size: rows that an embedding needs: the largest id and one.
      pad_id, bos_id, eos_id, cls_id, sep_id, mask_id, unk_id: the ids of special tokens, found by their names
        in `ROLES` among the tokens that are marked as special; None where there is none. GPT-2's
        <|endoftext|> is bos and eos; it has no padding.
    """

    pad_id: int | None
    bos_id: int | None
    eos_id: int | None
    cls_id: int | None
    sep_id: int | None
    mask_id: int | None
    unk_id: int | None

    def __init__(self, hf: tokenizers.Tokenizer):
        """Wraps `hf`, and turns its padding and truncation off."""
        hf.no_padding()
        hf.no_truncation()
        self.hf = hf
        self.vocab_size = max(hf.get_vocab().values(), default=-1) + 1
        if self.vocab_size > MOST_TOKENS:
            raise UserError(f"tokenizer: has the id {self.vocab_size - 1}; ids below 2**24 can be used")
        marked = {token.content: index for index, token in hf.get_added_tokens_decoder().items()}
        for role, names in ROLES.items():
            setattr(self, f"{role}_id", next((marked[name] for name in names if name in marked), None))

    @cached_property
    def digest(self) -> str:
        """The sha256 of its canonical JSON, which has no layout, no padding and no truncation.

        Scores are taken as float32: the library does not read back every float64 that it wrote.
        """
        content = json.loads(self.hf.to_str(), parse_float=lambda digits: float(np.float32(digits)))
        content = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The ids of one text; see `encode_batch`."""
        return self.encode_batch([text], special)[0]

    def encode_batch(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """The ids of each text.

        Args:
          texts: Unicode texts; an empty one has no ids but those of special tokens.
          special: whether the template's special tokens stand around each.

        Raises:
          UserError: a character that is not in a vocabulary without an unknown token, or half a surrogate pair.
        """
        try:
            encodings = self.hf.encode_batch_fast(list(texts), add_special_tokens=special)
        except Exception as error:  # the library raises this very class, and TypeError
            raise self._cannot_encode(texts, error) from error
        except BaseException as error:  # Rust's PanicException is no Exception, and has no name to import
            if type(error).__name__ != "PanicException":
                raise
            raise UserError(f"the tokenizer's pattern gives up on a text ({error}); use another") from error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of token ids (Python or NumPy integers); `skip_special` leaves special tokens out."""
        return self.hf.decode([int(index) for index in ids], skip_special_tokens=skip_special)

    def frame(self) -> tuple[list[int], list[int]]:
        """The tokens before and after a text: those of the tokenizer's template, else the start and the end of text.

        Raises:
          UserError: the template writes none, and the tokenizer has no end of text.
        """
        marked = self.hf.get_added_tokens_decoder()
        for token in range(self.vocab_size):
            text = "" if token in marked else self.decode([token])
            if text and (inside := self.encode(text, special=False)):
                whole, count = self.encode(text), len(inside)
                first = next(place for place in range(len(whole)) if whole[place : place + count] == inside)
                if len(whole) > count:
                    return whole[:first], whole[first + count :]
                break
        start = next((role for role in (self.bos_id, self.pad_id) if role is not None), None)
        if start is None or self.eos_id is None:
            what = "captions need a token to start from and one to end with, and this tokenizer has none"
            raise UserError(f"data.tokenizer: {what}; give it template='seq2seq', 'bert' or 'gpt'")
        return [start], [self.eos_id]

    def to_json(self) -> str:
        """Its tokenizer.json, as Hugging Face's libraries read it."""
        return self.hf.to_str(pretty=True)

    def save(self, path: str | Path) -> None:
        """Writes its tokenizer.json, atomically."""
        write_atomically(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path, remedy: str | None = None) -> "Tokenizer":
        """Reads a tokenizer.json.

        Args:
          path: the file.
          remedy: what helps where the file is damaged; None names the files that can be given.

        Raises:
          UserError: the file is missing or is no tokenizer.json.
        """
        try:
            return cls(parse_tokenizer_json(read_bytes(Path(path)), str(path)))
        except UserError as error:
            if remedy is None:
                raise
            raise UserError(f"{path}: no tokenizer can be read from it", remedy) from error

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """From what `to_json` returned.

        Raises:
          UserError: it is something else.
        """
        return cls(parse_tokenizer_json(text.encode(), "the tokenizer's JSON"))

    def _cannot_encode(self, texts: Sequence[str], error: Exception) -> Exception:
        """What to raise when the library refuses `texts`: names the character, if one is to blame."""
        closed = isinstance(self.hf.model, tokenizers.models.WordLevel) and self.unk_id is None
        for text in texts:
            for place, character in enumerate(text if isinstance(text, str) else ""):
                where = f"text: {character!r} (U+{ord(character):04X}) in {text[max(0, place - 10) : place + 10]!r}"
                if "\ud800" <= character <= "\udfff":
                    return UserError(f"{where} is half a surrogate pair, not a character; decode it as UTF-8")
                if closed and self.hf.token_to_id(character) is None:
                    return UserError(
                        f"{where} is not in the vocabulary, which has no unknown token; leave it out, or "
                        "train with tokenizer 'bytes', which takes all texts"
                    )
        if type(error) is Exception:  # the library's, about its own files
            return UserError(f"tokenizer: cannot encode ({error}); give another file, or a whole copy")
        return error


@dataclass(frozen=True)
class FromFile:
    """A published tokenizer."""

    path: Annotated[str, Constraint(KINDS, lambda path: bool(path.strip()))]
    """A tokenizer.json; a vocab.txt of BERT's; a vocab.json with merges.txt beside it, of GPT-2's or
    RoBERTa's; a sentencepiece model (.model), unigram or BPE; or a folder that holds one of them."""
    template: Template | None = None
    """Where special tokens stand; None keeps what the file says (a vocab.txt: "bert"; a vocab.json: "roberta"
    if it has <s>, </s> and <pad>, else none; a sentencepiece model: none). No token is added to the
    vocabulary: one that a template needs has to be there."""
    lowercase: bool | None = None
    """Whether texts are lowercased, for a vocab.txt alone, which does not say it; None takes the
    tokenizer_config.json beside it, else whether the vocabulary has no capitals."""
    canonical: bool = False
    """Whether texts are first made lowercase, without ASCII's punctuation and with single spaces, as those of SigLIP
    (big_vision, `canonicalize_text`)."""

    def build(self, texts: Texts) -> Tokenizer:
        """Reads the tokenizer; it does not look at the texts.

        Raises:
          UserError: the file is missing, empty, broken or a pickle, or lacks a token of the template.
        """
        hf = read_tokenizer(Path(self.path).expanduser(), self.lowercase)
        if self.template is not None:
            apply_template(hf, self.template)
        if self.canonical:
            hf.normalizer = tokenizers.normalizers.Sequence([*canonical_steps(), hf.normalizer])
        return Tokenizer(hf)


def canonical_steps() -> list[tokenizers.normalizers.Normalizer]:
    """See `FromFile.canonical`."""
    known, regex = tokenizers.normalizers, tokenizers.Regex
    punctuation = known.Replace(regex(f"[{re.escape(string.punctuation)}]"), "")
    return [known.Lowercase(), punctuation, known.Replace(regex(r"\s+"), " "), known.Strip()]


def describe(tokenizer: Tokenizer) -> str:
    """A line for the start of a run: the kind, the size, and the special tokens with their ids.

    As in "WordPiece, 30522 tokens; special: [PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103".
    """
    kind = type(tokenizer.hf.model).__name__
    if kind == "BPE" and is_byte_level(tokenizer.hf.pre_tokenizer):
        kind = "byte-level BPE" if json.loads(tokenizer.hf.to_str())["model"]["merges"] else "bytes"
    kind = {"WordLevel": "characters"}.get(kind, kind)
    added = sorted(tokenizer.hf.get_added_tokens_decoder().items())
    specials = [f"{token.content} {index}" for index, token in added if token.special]
    shown = specials[:8] + ([f"and {len(specials) - 8} more"] if len(specials) > 8 else [])
    return f"{kind}, {tokenizer.vocab_size} tokens; special: {', '.join(shown) or 'none'}"
