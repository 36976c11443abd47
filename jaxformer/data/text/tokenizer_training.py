"""Trains subword vocabularies. The same texts give the same vocabulary, on any machine and with any threads.

Of the Hugging Face trainers only that of BPE is so: WordPiece's takes the alphabet in the order of a hash
table, and Unigram's adds floats in the order in which threads finish. So WordPiece gets its alphabet from here,
and Unigram is trained by sentencepiece.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jaxformer.data.text.tokenizer_files import wordpiece
from jaxformer.data.text.tokenizer_sentencepiece import convert_sentencepiece
from jaxformer.data.text.tokenizer_templates import (
    UNKNOWN,
    apply_template,
    as_special,
    special_tokens,
)
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Trained

Texts = Callable[[], Iterator[str]]
ALPHABET = 1000  # characters of a WordPiece vocabulary, as in BERT's; rarer ones are unknown
# What sentencepiece calls our special tokens; those that it has no name for are control symbols.
ROLES = {"[PAD]": "pad", "[UNK]": "unk", "[CLS]": "bos", "[SEP]": "eos", "<|endoftext|>": "eos"}
ROLES |= {"<pad>": "pad", "<unk>": "unk", "<s>": "bos", "</s>": "eos"}
LINE = 4096  # characters of a line for sentencepiece at most; longer ones are cut


def train(texts: Texts, config: "Trained") -> Tokenizer:
    """Trains a vocabulary.

    Raises:
      UserError: the texts are empty, or have more characters than the vocabulary may have tokens.
    """
    if not any(text.strip() for text in texts()):
        raise UserError(f"tokenizer trained, {config.kind}: the texts are empty; check the split")
    return {"bpe": train_bpe, "wordpiece": train_wordpiece, "unigram": train_unigram}[config.kind](
        texts, config
    )


def train_bpe(texts: Texts, config: "Trained") -> Tokenizer:
    """Byte-level BPE as of GPT-2 (Radford et al., 2019, section 2.2): every text can be written with it."""
    specials = special_tokens(config.template)
    hf = Tokenizer(models.BPE())
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    if config.lowercase:
        hf.normalizer = normalizers.Lowercase()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=as_special(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    hf.train_from_iterator(texts(), trainer)
    apply_template(hf, config.template)
    return hf


def train_wordpiece(texts: Texts, config: "Trained") -> Tokenizer:
    """WordPiece as of BERT (Devlin et al., 2018): words are cut at spaces and punctuation.

    The trainer adds the pairs that are most frequent, as BPE does, and not those that are likeliest.
    """
    specials = special_tokens(config.template, unknown="[UNK]")
    hf = wordpiece({}, config.lowercase)
    alphabet = wordpiece_alphabet(hf, texts())
    first = [*specials, *alphabet]
    if len(first) > config.vocab_size:
        raise UserError(
            f"tokenizer trained, vocab_size={config.vocab_size}: the texts' characters and the special tokens are "
            f"{len(first)} already; take a larger one"
        )
    characters = [piece for piece in alphabet if len(piece) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(first),  # their ids are then given, and not taken from a hash table
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    hf.train_from_iterator(texts(), trainer)
    unknown = next(token for token in specials if token in UNKNOWN)
    hf = wordpiece(hf.get_vocab(), config.lowercase, unknown)
    apply_template(hf, config.template, specials)
    return hf


def wordpiece_alphabet(hf: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The characters of the texts' words, and with ## before them those that stand inside a word; each sorted."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in hf.pre_tokenizer.pre_tokenize_str(hf.normalizer.normalize_str(text)))
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        inside.update(word[1:])
        for character in word:
            counts[character] += count
    kept = sorted(counts, key=lambda character: (-counts[character], character))[:ALPHABET]
    return [*sorted(kept), *(f"##{character}" for character in sorted(inside.intersection(kept)))]


def train_unigram(texts: Texts, config: "Trained") -> Tokenizer:
    """A unigram language model (Kudo, 2018), trained by sentencepiece with its defaults, NFKC and one thread."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(texts()),
            model_writer=model,
            model_type="unigram",
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            normalization_rule_name="nmt_nfkc_cf" if config.lowercase else "nmt_nfkc",
            max_sentence_length=4 * LINE + 1,
            num_threads=1,
            minloglevel=2,
            **sentencepiece_specials(special_tokens(config.template, unknown="<unk>")),
        )
    except RuntimeError as error:
        raise UserError(
            f"tokenizer trained, unigram, vocab_size={config.vocab_size}: sentencepiece cannot train it on these texts",
            str(error).strip().splitlines()[-1],
        ) from error
    hf = convert_sentencepiece(model.getvalue(), "the trained sentencepiece model")
    apply_template(hf, config.template)
    return hf


def lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of the texts that are not blank, in pieces of at most `LINE` characters."""
    for text in texts:
        for line in text.splitlines():
            if line.strip():
                yield from (line[start : start + LINE] for start in range(0, len(line), LINE))


def sentencepiece_specials(specials: list[str]) -> dict[str, Any]:
    """sentencepiece's options for special tokens at the first ids, in the order given."""
    options: dict[str, Any] = {f"{role}_id": -1 for role in set(ROLES.values())}
    for index, token in enumerate(specials):
        if token in ROLES:
            options |= {f"{ROLES[token]}_id": index, f"{ROLES[token]}_piece": token}
    return options | {"control_symbols": [token for token in specials if token not in ROLES]}
