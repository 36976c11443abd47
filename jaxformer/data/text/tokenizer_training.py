"""Trains subword vocabularies. The same texts give the same vocabulary, on any machine and with any threads.

Of the Hugging Face trainers only that of BPE is so: WordPiece's takes the alphabet in the order of a hash
table, and Unigram's adds floats in the order in which threads finish. So WordPiece gets its alphabet from here,
and Unigram is trained by sentencepiece.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jaxformer.data.text.tokenizer_building import with_template
from jaxformer.data.text.tokenizer_files import wordpiece
from jaxformer.data.text.tokenizer_sentencepiece import convert_sentencepiece
from jaxformer.data.text.tokenizer_templates import UNKNOWN, Template, apply_template, special_tokens
from jaxformer.errors import UserError

Texts = Callable[[], Iterator[str]]
Kind = Literal["bpe", "wordpiece", "unigram"]
ALPHABET = 1000  # characters of a WordPiece vocabulary, as in BERT's; rarer ones are unknown
LINE = 4096  # characters of a line for sentencepiece at most; longer ones are cut


def train(
    texts: Texts, kind: Kind, vocab_size: int, lowercase: bool, template: Template, min_frequency: int
) -> Tokenizer:
    """Trains a vocabulary; the fields of `Trained` say what the arguments mean.

    Raises:
      UserError: the texts are empty, or have more characters than the vocabulary may have tokens.
    """
    if not any(text.strip() for text in texts()):
        raise UserError(f"tokenizer trained, {kind}: the texts are empty; check the split")
    if kind == "bpe":
        return train_bpe(texts, vocab_size, lowercase, template, min_frequency)
    if kind == "wordpiece":
        return train_wordpiece(texts, vocab_size, lowercase, template, min_frequency)
    return train_unigram(texts, vocab_size, lowercase, template)


def train_bpe(
    texts: Texts, vocab_size: int, lowercase: bool, template: Template, min_frequency: int
) -> Tokenizer:
    """Byte-level BPE as of GPT-2 (Radford et al., 2019, section 2.2): every text can be written with it."""
    specials = special_tokens(template)
    hf = Tokenizer(models.BPE())
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    if lowercase:
        hf.normalizer = normalizers.Lowercase()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    hf.train_from_iterator(texts(), trainer)
    return with_template(hf, specials, template)


def train_wordpiece(
    texts: Texts, vocab_size: int, lowercase: bool, template: Template, min_frequency: int
) -> Tokenizer:
    """WordPiece as of BERT (Devlin et al., 2018): words are cut at spaces and punctuation.

    The trainer adds the pairs that are most frequent, as BPE does, and not those that are likeliest.
    """
    specials = special_tokens(template, unknown="[UNK]")
    hf = wordpiece({}, lowercase)
    alphabet = wordpiece_alphabet(hf, texts())
    first = [*specials, *alphabet]
    if len(first) > vocab_size:
        raise too_small(vocab_size, len(first))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(first),  # their ids are then given, and not taken from a hash table
        initial_alphabet=[piece for piece in alphabet if len(piece) == 1],
        limit_alphabet=sum(len(piece) == 1 for piece in alphabet),
        show_progress=False,
    )
    hf.train_from_iterator(texts(), trainer)
    unknown = next(token for token in specials if token in UNKNOWN)
    return with_template(wordpiece(hf.get_vocab(), lowercase, unknown), specials, template)


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


def train_unigram(texts: Texts, vocab_size: int, lowercase: bool, template: Template) -> Tokenizer:
    """A unigram language model (Kudo, 2018), trained by sentencepiece with its defaults, NFKC and one thread."""
    import sentencepiece

    specials = special_tokens(template, unknown="<unk>")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(texts()),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            max_sentence_length=4 * LINE + 1,
            num_threads=1,
            minloglevel=2,
            **sentencepiece_specials(specials),
        )
    except RuntimeError as error:
        raise UserError(
            f"tokenizer trained, unigram, vocab_size={vocab_size}: sentencepiece cannot train it on these texts",
            str(error).strip().splitlines()[-1],
        ) from error
    hf = convert_sentencepiece(model.getvalue(), "the trained sentencepiece model")
    apply_template(hf, template)
    return hf


def lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of the texts that are not blank, in pieces of at most `LINE` characters."""
    for text in texts:
        for line in text.splitlines():
            if line.strip():
                yield from (line[start : start + LINE] for start in range(0, len(line), LINE))


def sentencepiece_specials(specials: list[str]) -> dict[str, Any]:
    """sentencepiece's options for special tokens at the first ids, in the order given."""
    roles = {
        "pad": ("[PAD]", "<pad>"),
        "unk": ("[UNK]", "<unk>"),
        "bos": ("[CLS]", "<s>"),
        "eos": ("[SEP]", "</s>", "<|endoftext|>"),
    }
    options: dict[str, Any] = {}
    for role, names in roles.items():
        token = next((token for token in specials if token in names), None)
        options[f"{role}_id"] = -1 if token is None else specials.index(token)
        if token is not None:
            options[f"{role}_piece"] = token
    known = {name for names in roles.values() for name in names}
    return options | {"control_symbols": [token for token in specials if token not in known]}


def too_small(vocab_size: int, needed: int) -> UserError:
    """The error for a vocabulary that cannot hold its own alphabet."""
    return UserError(
        f"tokenizer trained, vocab_size={vocab_size}: the texts' characters and the special tokens are "
        f"{needed} already; take a larger one"
    )
