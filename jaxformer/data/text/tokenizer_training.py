"""Tokenizers that are made from texts. The same texts give the same vocabulary, on any machine and with any threads.

Of the Hugging Face trainers only that of BPE is so: WordPiece's takes the alphabet in the order of a hash
table, and Unigram's adds floats in the order in which threads finish. So WordPiece gets its alphabet from here,
and Unigram is trained by sentencepiece.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer as HuggingFace
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jaxformer.config.fields import PositiveInt
from jaxformer.data.text import tokenizer_templates as templates
from jaxformer.data.text.tokenizer_files import byte_level, wordpiece
from jaxformer.data.text.tokenizer_sentencepiece import convert_sentencepiece
from jaxformer.data.text.tokenizers import Texts, Tokenizer
from jaxformer.errors import UserError

ALPHABET = 1000  # characters of a WordPiece vocabulary, as in BERT's; rarer ones are unknown
LINE = 4096  # characters of a line for sentencepiece at most; longer ones are cut


@dataclass(frozen=True)
class Characters:
    """One token for each character of the training texts, in code point order; every text of them round-trips.

    Without an unknown token (templates "none" and "gpt") a character that is in none of the texts is an error
    that names it; with one ("bert", "roberta", "t5", "seq2seq") it is that token.
    """

    template: templates.Template = "none"
    """The special tokens, at the first ids, and where they stand; see LAYOUTS in tokenizer_templates.py."""

    def build(self, texts: Texts) -> Tokenizer:
        """The tokenizer of the texts' characters; raises UserError where they have none."""
        characters = set[str]().union(*texts())
        if not characters:
            raise UserError("tokenizer characters: the texts are empty; check the split")
        specials = templates.special_tokens(self.template)
        vocabulary = {token: index for index, token in enumerate([*specials, *sorted(characters)])}
        # Without a token for them the library refuses unknown characters; its default is "<unk>", so pass "" for none.
        hf = HuggingFace(models.WordLevel(vocabulary, unk_token=templates.unknown_of(specials) or ""))
        hf.pre_tokenizer = pre_tokenizers.FixedLength(1)
        hf.decoder = decoders.Fuse()
        templates.apply_template(hf, self.template, specials)
        return Tokenizer(hf)


@dataclass(frozen=True)
class Bytes:
    """One token for each byte of UTF-8; every text round-trips, and there is nothing to train."""

    template: templates.Template = "none"
    """The special tokens, at the first ids, and where they stand; the bytes come after them (Xue et al.,
    2021). With "none", ids are bytes."""

    def build(self, texts: Texts) -> Tokenizer:
        """The tokenizer; it does not look at the texts."""
        specials = templates.special_tokens(self.template)
        vocabulary = {token: index for index, token in enumerate([*specials, *templates.byte_alphabet()])}
        hf = byte_level(models.BPE(vocabulary, []), use_regex=False)
        templates.apply_template(hf, self.template, specials)
        return Tokenizer(hf)


@dataclass(frozen=True)
class Trained:
    """Subwords, trained on the training texts. The same texts give the same tokenizer."""

    kind: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    """ "bpe" (byte-level, as in GPT-2: every text round-trips), "wordpiece" (as in BERT: drops accents when
    it lowercases, and all spacing), or "unigram" (sentencepiece's, as in T5: NFKC, a run of spaces or a
    newline is one space)."""
    vocab_size: int = 8192
    """Tokens at most, special ones among them; texts that are too short give fewer."""
    lowercase: bool = False
    """Whether texts are lowercased."""
    template: templates.Template = "none"
    """The special tokens, at the first ids, and where they stand; "wordpiece" and "unigram" get an unknown
    token in any case."""
    min_frequency: PositiveInt = 2
    """How often a pair has to be there to become a token (not for "unigram")."""

    def build(self, texts: Texts) -> Tokenizer:
        """Trains the tokenizer; may go over the texts several times.

        Raises:
          UserError: the texts are empty, or have more characters than `vocab_size`.
        """
        if not any(text.strip() for text in texts()):
            raise UserError(f"tokenizer trained, {self.kind}: the texts are empty; check the split")
        train = {"bpe": self._bpe, "wordpiece": self._wordpiece, "unigram": self._unigram}[self.kind]
        return Tokenizer(train(texts))

    def problems(self) -> Iterator[str]:
        """Yields what cannot work, whatever the texts are."""
        bpe = self.kind == "bpe"
        least = 1 + len(templates.special_tokens(self.template)) + 256 * bpe
        if self.vocab_size < least:
            parts = " (256 bytes, the special tokens, and a merge)" if bpe else ""
            yield f"vocab_size={self.vocab_size}: expected {least} or more{parts}"

    def _bpe(self, texts: Texts) -> HuggingFace:
        """Byte-level BPE as of GPT-2 (Radford et al., 2019, section 2.2): every text can be written with it."""
        hf = byte_level(models.BPE())
        if self.lowercase:
            hf.normalizer = normalizers.Lowercase()
        specials = templates.as_special(templates.special_tokens(self.template))
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        options = self._options(special_tokens=specials, initial_alphabet=alphabet)
        hf.train_from_iterator(texts(), trainers.BpeTrainer(**options))
        templates.apply_template(hf, self.template)
        return hf

    def _wordpiece(self, texts: Texts) -> HuggingFace:
        """WordPiece as of BERT (Devlin et al., 2018): words are cut at spaces and punctuation.

        The trainer adds the pairs that are most frequent, as BPE does, and not those that are likeliest.
        """
        specials = templates.special_tokens(self.template, unknown="[UNK]")
        hf = wordpiece({}, self.lowercase)
        alphabet = wordpiece_alphabet(hf, texts())
        first = [*specials, *alphabet]
        if len(first) > self.vocab_size:
            found = f"the texts' characters and the special tokens are {len(first)} already"
            raise UserError(f"tokenizer trained, vocab_size={self.vocab_size}: {found}; take a larger one")
        characters = [piece for piece in alphabet if len(piece) == 1]
        options = self._options(initial_alphabet=characters, limit_alphabet=len(characters))
        # As special tokens, pieces have the ids that are given, and not those of a hash table.
        hf.train_from_iterator(texts(), trainers.WordPieceTrainer(**options, special_tokens=first))
        hf = wordpiece(hf.get_vocab(), self.lowercase, templates.unknown_of(specials) or "[UNK]")
        templates.apply_template(hf, self.template, specials)
        return hf

    def _unigram(self, texts: Texts) -> HuggingFace:
        """A unigram language model (Kudo, 2018), trained by sentencepiece with its defaults, NFKC and one thread."""
        import sentencepiece

        model = io.BytesIO()
        specials = templates.special_tokens(self.template, unknown="<unk>")
        unknown = templates.unknown_of(specials) or "<unk>"
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines(texts()),
                model_writer=model,
                model_type="unigram",
                vocab_size=self.vocab_size,
                hard_vocab_limit=False,
                normalization_rule_name="nmt_nfkc_cf" if self.lowercase else "nmt_nfkc",
                max_sentence_length=4 * LINE + 1,
                num_threads=1,
                minloglevel=2,
                # Special tokens have the first ids, in their order: sentencepiece numbers control symbols so.
                control_symbols=[token for token in specials if token != unknown],
                unk_piece=unknown,
                unk_id=specials.index(unknown),
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
            )
        except RuntimeError as error:
            what = f"tokenizer trained, unigram, vocab_size={self.vocab_size}"
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{what}: sentencepiece cannot train it on these texts", reason) from error
        hf = convert_sentencepiece(model.getvalue(), "the trained sentencepiece model")
        templates.apply_template(hf, self.template)
        return hf

    def _options(self, **options: Any) -> dict[str, Any]:
        """What both trainers of the library are told, besides `options`."""
        sizes = {"vocab_size": self.vocab_size, "min_frequency": self.min_frequency}
        return {**sizes, "show_progress": False, **options}


def wordpiece_alphabet(hf: HuggingFace, texts: Iterable[str]) -> list[str]:
    """The characters of the texts' words, and with ## before them those that stand inside a word; each sorted."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in hf.pre_tokenizer.pre_tokenize_str(hf.normalizer.normalize_str(text)))
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    inside = {character for word in words for character in word[1:]}
    kept = sorted(counts, key=lambda character: (-counts[character], character))[:ALPHABET]
    return [*sorted(kept), *(f"##{character}" for character in sorted(inside.intersection(kept)))]


def lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of the texts that are not blank, in pieces of at most `LINE` characters."""
    for text in texts:
        for line in text.splitlines():
            if line.strip():
                yield from (line[start : start + LINE] for start in range(0, len(line), LINE))
