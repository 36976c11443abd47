"""Reads the files in which published tokenizers come: tokenizer.json, vocab.txt, vocab.json with merges.txt.

Nothing is ever unpickled, and nothing is fetched. The models are the library's; its ready-made classes
(tokenizers.implementations) are not used: they hide their Tokenizer, BertWordPieceTokenizer needs [CLS] and [SEP]
in a vocabulary that has yet to be trained, and neither class says what is wrong with a file.
"""

import contextlib
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from jaxformer import reading
from jaxformer.data.text.tokenizer_sentencepiece import convert_sentencepiece
from jaxformer.data.text.tokenizer_templates import Template, apply_template, byte_alphabet, special_tokens
from jaxformer.errors import UserError

# What a folder is searched for, in this order.
NAMES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "*.model")
KINDS = "a tokenizer.json, a vocab.txt, a folder with vocab.json and merges.txt, or a sentencepiece .model"
MOST_IDS = 10  # ids for each token: published vocabularies leave small gaps
# Bytes that UTF-8 never has (RFC 3629, section 1).
NOT_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


def read_tokenizer(path: Path, lowercase: bool | None = None) -> Tokenizer:
    """Reads a tokenizer, as it was published.

    Args:
      path: a file, or a folder that holds one.
      lowercase: for vocab.txt alone, which does not say it; None takes the tokenizer_config.json beside it,
        else whether the vocabulary has no capitals.

    Raises:
      UserError: no such file, an empty, broken or pickled one, or `lowercase` where the file itself says it.
    """
    file = find_file(path)
    content = read_bytes(file)
    if file.suffix == ".txt":
        return read_wordpiece(file, lowercase)
    if lowercase is not None:
        raise UserError(f"lowercase={lowercase}: {file} says by itself what is lowercased; leave it out")
    if file.suffix == ".model":
        return convert_sentencepiece(content, str(file))
    if file.name == "vocab.json":
        return read_byte_level_bpe(file, file.with_name("merges.txt"))
    return parse_tokenizer_json(content, str(file))


def find_file(path: Path) -> Path:
    """The file itself, or the one that a folder holds; vocab.json for its merges.txt.

    Raises:
      UserError: there is none, or none of a known kind.
    """
    found = [file for name in NAMES for file in sorted(path.glob(name))] if path.is_dir() else [path]
    if not found:
        raise broken(path, f"the folder holds none; give {KINDS}")
    file = found[0].with_name("vocab.json") if found[0].name == "merges.txt" else found[0]
    if not file.exists():
        raise broken(file, f"there is no such file or folder; give {KINDS}")
    if file.name == "vocab.json" and not file.with_name("merges.txt").is_file():
        raise broken(file, "its merges are missing; put merges.txt beside it")
    if file.suffix not in (".json", ".txt", ".model"):
        raise broken(file, f"not a kind that is read; give {KINDS}")
    return file


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
      UserError: it cannot be read, is empty, or is a pickle or archive (of PyTorch's), which may run code.
    """
    try:
        content = reading.regular(path).read_bytes()
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror}); give {KINDS}") from error
    if not content.strip():
        raise broken(path, "is empty; copy it again")
    if (content[0] == 0x80 and content[1:2] <= b"\x05") or content.startswith(b"PK\x03\x04"):
        raise broken(path, f"is a pickle, which is never loaded; give {KINDS}")
    return content


def parse_tokenizer_json(content: bytes, name: str) -> Tokenizer:
    """From a tokenizer.json's content; `name` stands in the error.

    Raises:
      UserError: it is something else.
    """
    try:
        hf = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises no narrower class
        first = str(error).splitlines()[0]
        raise UserError(f"{name}: not a tokenizer.json of Hugging Face's ({first}); give {KINDS}") from error
    check_usable(hf, name)
    return hf


def check_usable(hf: Tokenizer, name: str) -> None:
    """Refuses what the library takes, and then dies or hangs of when it encodes or saves.

    Raises:
      UserError: ids leave gaps that are far wider than there are tokens, or a template names tokens that it lacks.
    """
    vocabulary = hf.get_vocab()
    if (largest := max(vocabulary.values(), default=0)) > MOST_IDS * len(vocabulary) + 1000:
        raise UserError(f"{name}: has {len(vocabulary):,} tokens and the id {largest:,}; give {KINDS}")
    post = json.loads(hf.post_processor.__getstate__()) if hf.post_processor else {}
    for template in [post, *post.get("processors", ())]:
        pieces = [piece for part in ("single", "pair") for piece in template.get(part, ())]
        named = {piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece}
        if missing := named - template.get("special_tokens", {}).keys():
            raise UserError(f"{name}: its template names {min(missing)!r}, and no id of it; give {KINDS}")


def read_wordpiece(path: Path, lowercase: bool | None) -> Tokenizer:
    """BERT's vocab.txt (Devlin et al., 2018): a token a line, its id being the line's number.

    Raises:
      UserError: it lacks [UNK], [CLS] or [SEP].
    """
    lines = reading.lines_of(reading.read_text(path))
    vocabulary = {token: index for index, token in enumerate(lines)}
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
    if missing:
        raise broken(path, f"has no {', '.join(missing)}, so it is no vocab.txt of BERT's")
    if lowercase is None:
        lowercase = is_lowercase(path, vocabulary)
    hf = wordpiece(vocabulary, lowercase)
    apply_template(hf, "bert", special_tokens("bert"))
    return hf


def wordpiece(vocabulary: dict[str, int], lowercase: bool, unknown: str = "[UNK]") -> Tokenizer:
    """BERT's tokenizer around a vocabulary; where it lowercases, it strips accents, too."""
    hf = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    hf.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    hf.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.WordPiece(prefix="##")
    return hf


def byte_level(model: models.BPE, use_regex: bool = True) -> Tokenizer:
    """GPT-2's tokenizer around a model; without `use_regex`, texts are not cut into words first."""
    hf = Tokenizer(model)
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    hf.decoder = decoders.ByteLevel()
    return hf


def is_lowercase(path: Path, vocabulary: dict[str, int]) -> bool:
    """What the tokenizer_config.json beside a vocab.txt says, else whether no token has a capital letter."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        said = reading.load_json(path.with_name("tokenizer_config.json"))
        if isinstance(said["do_lower_case"], bool):
            return said["do_lower_case"]
    return all(token == token.lower() for token in vocabulary if not token.startswith("["))


def read_byte_level_bpe(vocab: Path, merges: Path) -> Tokenizer:
    """GPT-2's vocab.json and merges.txt (Radford et al., 2019), or RoBERTa's, which has <s>, </s> and <pad>.

    Raises:
      UserError: either is broken, or the vocabulary is not one of bytes.
    """
    for file in (vocab, merges):
        reading.read_text(file)  # says what is wrong with it more clearly than the library does
    try:
        vocabulary, pairs = models.BPE.read_file(str(vocab), str(merges))
        hf = byte_level(models.BPE(vocabulary, pairs))
    except Exception as error:  # the library raises no narrower class
        first = str(error).splitlines()[0]
        remedy = "copy them anew"
        raise UserError(f"tokenizer files {vocab} and {merges.name}: broken ({first}); {remedy}") from error
    needed = (token for byte, token in enumerate(byte_alphabet()) if byte not in NOT_IN_UTF8)
    if lacking := sum(token not in vocabulary for token in needed):
        what = f"lacks {lacking} bytes, so it is not byte-level as GPT-2's; give this model's tokenizer.json"
        raise broken(vocab, what)
    check_usable(hf, str(vocab))
    template: Template = "roberta" if {"<s>", "</s>", "<pad>"} <= vocabulary.keys() else "none"
    apply_template(hf, template, special_tokens("roberta" if template == "roberta" else "gpt"))
    return hf


def broken(path: Path, what: str) -> UserError:
    """The error for a tokenizer's file."""
    return UserError(f"tokenizer file {path}: {what}")
