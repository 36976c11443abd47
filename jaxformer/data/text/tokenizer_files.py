"""Reads the files in which published tokenizers come: tokenizer.json, vocab.txt, vocab.json with merges.txt.

Nothing is ever unpickled, and nothing is fetched.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from jaxformer.data.text.tokenizer_building import byte_alphabet
from jaxformer.data.text.tokenizer_sentencepiece import convert_sentencepiece
from jaxformer.data.text.tokenizer_templates import apply_template, mark_special
from jaxformer.errors import UserError

# What a folder is searched for, in this order.
NAMES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "*.model")
KINDS = "a tokenizer.json, a vocab.txt, a folder with vocab.json and merges.txt, or a sentencepiece .model"
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
    if lowercase is not None and file.suffix != ".txt":
        raise UserError(f"lowercase={lowercase}: {file} says by itself what is lowercased; leave it out")
    if file.suffix == ".model":
        return convert_sentencepiece(read_bytes(file), str(file))
    if file.suffix == ".txt":
        return read_wordpiece(file, lowercase)
    if (file.parent / "merges.txt").is_file() and file.name == "vocab.json":
        return read_byte_level_bpe(file, file.parent / "merges.txt")
    return parse_tokenizer_json(read_bytes(file), str(file))


def find_file(path: Path) -> Path:
    """The file itself, or the one that a folder holds.

    Raises:
      UserError: there is none, or none of a known kind.
    """
    if not path.exists():
        raise UserError(f"tokenizer file {path}: there is no such file or folder; give {KINDS}")
    if path.is_dir():
        found = [file for name in NAMES for file in sorted(path.glob(name))]
        if not found:
            raise UserError(f"tokenizer file {path}: the folder holds none; give {KINDS}")
        path = found[0]
    if path.name == "vocab.json" and not (path.parent / "merges.txt").is_file():
        raise UserError(f"tokenizer file {path}: its merges are missing; put merges.txt beside it")
    if path.name == "merges.txt":
        return find_file(path.parent)
    if path.suffix not in (".json", ".txt", ".model"):
        raise UserError(f"tokenizer file {path}: not a kind that is read; give {KINDS}")
    return path


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
      UserError: it cannot be read, is empty, or is a pickle or archive (of PyTorch's), which may run code.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"tokenizer file {path}: cannot be read ({error.strerror}); give {KINDS}") from error
    if not content.strip():
        raise UserError(f"tokenizer file {path}: is empty; copy it again")
    if (content[0] == 0x80 and content[1:2] <= b"\x05") or content.startswith(b"PK\x03\x04"):
        raise UserError(f"tokenizer file {path}: is a pickle, which is never loaded; give {KINDS}")
    return content


def read_text(path: Path) -> str:
    """A file's text, with "\\n" at the ends of lines.

    Raises:
      UserError: as `read_bytes`, or it is not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"tokenizer file {path}: is not UTF-8 (at byte {error.start}); copy it again"
        ) from error
    return text.replace("\r\n", "\n")


def parse_tokenizer_json(content: bytes, name: str) -> Tokenizer:
    """From a tokenizer.json's content; `name` stands in the error.

    Raises:
      UserError: it is something else.
    """
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises no narrower class
        first = str(error).splitlines()[0]
        raise UserError(f"{name}: not a tokenizer.json of Hugging Face's ({first}); give {KINDS}") from error


def read_wordpiece(path: Path, lowercase: bool | None) -> Tokenizer:
    """BERT's vocab.txt (Devlin et al., 2018): a token a line, its id being the line's number.

    Raises:
      UserError: it lacks [UNK], [CLS] or [SEP].
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    vocabulary = {token: index for index, token in enumerate(lines)}
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
    if missing:
        raise UserError(
            f"tokenizer file {path}: has no {', '.join(missing)}, so it is no vocab.txt of BERT's"
        )
    if lowercase is None:
        lowercase = is_lowercase(path, lines)
    hf = wordpiece(vocabulary, lowercase)
    mark_special(hf, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    apply_template(hf, "bert")
    return hf


def wordpiece(vocabulary: dict[str, int], lowercase: bool, unknown: str = "[UNK]") -> Tokenizer:
    """BERT's tokenizer around a vocabulary; where it lowercases, it strips accents, too."""
    hf = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    hf.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    hf.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.WordPiece(prefix="##")
    return hf


def is_lowercase(path: Path, tokens: list[str]) -> bool:
    """What the tokenizer_config.json beside a vocab.txt says, else whether no token has a capital letter."""
    try:
        said = json.loads((path.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        if isinstance(said.get("do_lower_case"), bool):
            return said["do_lower_case"]
    except (OSError, ValueError, AttributeError):
        pass
    return all(token == token.lower() for token in tokens if not token.startswith("["))


def read_byte_level_bpe(vocab: Path, merges: Path) -> Tokenizer:
    """GPT-2's vocab.json and merges.txt (Radford et al., 2019), or RoBERTa's, which has <s>, </s> and <pad>.

    Raises:
      UserError: either is broken, or the vocabulary is not one of bytes.
    """
    for file in (vocab, merges):
        read_text(file)  # says what is wrong with it more clearly than the library does
    try:
        vocabulary, pairs = models.BPE.read_file(str(vocab), str(merges))
        hf = Tokenizer(models.BPE(vocabulary, pairs))
    except Exception as error:  # the library raises no narrower class
        first = str(error).splitlines()[0]
        raise UserError(
            f"tokenizer files {vocab} and {merges.name}: broken ({first}); copy them again"
        ) from error
    lacking = [
        token
        for byte, token in enumerate(byte_alphabet())
        if byte not in NOT_IN_UTF8 and token not in vocabulary
    ]
    if lacking:
        raise UserError(
            f"tokenizer file {vocab}: lacks {len(lacking)} bytes, so it is not byte-level as GPT-2's; "
            "give this model's tokenizer.json"
        )
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    if all(token in vocabulary for token in ("<s>", "</s>", "<pad>")):
        mark_special(hf, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"))
        apply_template(hf, "roberta")
    else:
        mark_special(hf, ("<|endoftext|>",))
        apply_template(hf, "none")
    return hf
