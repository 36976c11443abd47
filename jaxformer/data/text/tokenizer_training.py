"""Makes vocabularies from texts. The same texts give the same vocabulary, on any machine and with any threads.

Of the Hugging Face trainers only that of BPE is so: WordPiece's takes the alphabet in the order of a hash
table, and Unigram's adds floats in the order in which threads finish. So WordPiece gets its alphabet from here,
and Unigram is trained by sentencepiece.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jaxformer.data.text import tokenizer_templates as templates
from jaxformer.data.text.tokenizer_files import byte_level, wordpiece
from jaxformer.data.text.tokenizer_sentencepiece import convert_sentencepiece
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Trained

Texts = Callable[[], Iterator[str]]
ALPHABET = 1000  # characters of a WordPiece vocabulary, as in BERT's; rarer ones are unknown
LINE = 4096  # characters of a line for sentencepiece at most; longer ones are cut


def character_tokenizer(texts: Iterable[str], template: templates.Template) -> Tokenizer:
    """One token a character: the template's special tokens, then the texts' characters in code point order.

    Raises:
      UserError: the texts have no characters.
    """
    characters = set[str]().union(*texts)
    if not characters:
        raise UserError("tokenizer characters: the texts are empty; check the split")
    specials = templates.special_tokens(template)
    vocabulary = {token: index for index, token in enumerate([*specials, *sorted(characters)])}
    # Without a token for them the library refuses unknown characters; its default is "<unk>", so pass "" for none.
    hf = Tokenizer(models.WordLevel(vocabulary, unk_token=templates.unknown_of(specials) or ""))
    hf.pre_tokenizer = pre_tokenizers.FixedLength(1)
    hf.decoder = decoders.Fuse()
    templates.apply_template(hf, template, specials)
    return hf


def byte_tokenizer(template: templates.Template) -> Tokenizer:
    """One token a byte of UTF-8: the template's special tokens, then the 256 bytes in order (as in ByT5).

    Without special tokens, ids are the bytes themselves.
    """
    specials = templates.special_tokens(template)
    vocabulary = {token: index for index, token in enumerate([*specials, *templates.byte_alphabet()])}
    hf = byte_level(models.BPE(vocabulary, []), use_regex=False)
    templates.apply_template(hf, template, specials)
    return hf


def train(texts: Texts, config: "Trained") -> Tokenizer:
    """Trains a vocabulary.

    Raises:
      UserError: the texts are empty, or have more characters than the vocabulary may have tokens.
    """
    if not any(text.strip() for text in texts()):
        raise UserError(f"tokenizer trained, {config.kind}: the texts are empty; check the split")
    of_kind = {"bpe": train_bpe, "wordpiece": train_wordpiece, "unigram": train_unigram}
    return of_kind[config.kind](texts, config)


def train_bpe(texts: Texts, config: "Trained") -> Tokenizer:
    """Byte-level BPE as of GPT-2 (Radford et al., 2019, section 2.2): every text can be written with it."""
    hf = byte_level(models.BPE())
    if config.lowercase:
        hf.normalizer = normalizers.Lowercase()
    specials = templates.as_special(templates.special_tokens(config.template))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = trainer_options(config, special_tokens=specials, initial_alphabet=alphabet)
    hf.train_from_iterator(texts(), trainers.BpeTrainer(**options))
    templates.apply_template(hf, config.template)
    return hf


def trainer_options(config: "Trained", **options: Any) -> dict[str, Any]:
    """What both trainers of the library are told, besides `options`."""
    sizes = {"vocab_size": config.vocab_size, "min_frequency": config.min_frequency}
    return {**sizes, "show_progress": False, **options}


def train_wordpiece(texts: Texts, config: "Trained") -> Tokenizer:
    """WordPiece as of BERT (Devlin et al., 2018): words are cut at spaces and punctuation.

    The trainer adds the pairs that are most frequent, as BPE does, and not those that are likeliest.
    """
    specials = templates.special_tokens(config.template, unknown="[UNK]")
    hf = wordpiece({}, config.lowercase)
    alphabet = wordpiece_alphabet(hf, texts())
    first = [*specials, *alphabet]
    if len(first) > config.vocab_size:
        problem = f"the texts' characters and the special tokens are {len(first)} already; take a larger one"
        raise UserError(f"tokenizer trained, vocab_size={config.vocab_size}: {problem}")
    characters = [piece for piece in alphabet if len(piece) == 1]
    options = trainer_options(config, initial_alphabet=characters, limit_alphabet=len(characters))
    # As special tokens, pieces have the ids that are given, and not those of a hash table.
    hf.train_from_iterator(texts(), trainers.WordPieceTrainer(**options, special_tokens=first))
    hf = wordpiece(hf.get_vocab(), config.lowercase, templates.unknown_of(specials) or "[UNK]")
    templates.apply_template(hf, config.template, specials)
    return hf


def wordpiece_alphabet(hf: Tokenizer, texts: Iterable[str]) -> list[str]:
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


def train_unigram(texts: Texts, config: "Trained") -> Tokenizer:
    """A unigram language model (Kudo, 2018), trained by sentencepiece with its defaults, NFKC and one thread."""
    import sentencepiece

    model = io.BytesIO()
    specials = templates.special_tokens(config.template, unknown="<unk>")
    unknown = templates.unknown_of(specials) or "<unk>"
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
            # Special tokens have the first ids, in their order: sentencepiece numbers control symbols so.
            control_symbols=[token for token in specials if token != unknown],
            unk_piece=unknown,
            unk_id=specials.index(unknown),
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
        )
    except RuntimeError as error:
        what = f"tokenizer trained, unigram, vocab_size={config.vocab_size}"
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{what}: sentencepiece cannot train it on these texts", reason) from error
    hf = convert_sentencepiece(model.getvalue(), "the trained sentencepiece model")
    templates.apply_template(hf, config.template)
    return hf


def lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of the texts that are not blank, in pieces of at most `LINE` characters."""
    for text in texts:
        for line in text.splitlines():
            if line.strip():
                yield from (line[start : start + LINE] for start in range(0, len(line), LINE))
