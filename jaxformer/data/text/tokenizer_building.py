"""Tokenizers of single characters and of single bytes."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from jaxformer.data.text.tokenizer_templates import UNKNOWN, Template, apply_template, special_tokens
from jaxformer.errors import UserError


def character_tokenizer(texts: Iterable[str], template: Template) -> Tokenizer:
    """One token a character: the template's special tokens, then the texts' characters in code point order.

    Raises:
      UserError: the texts have no characters.
    """
    characters = set[str]().union(*texts)
    if not characters:
        raise UserError(
            "tokenizer characters: the texts are empty, so there is no vocabulary; check the split"
        )
    specials = special_tokens(template)
    vocabulary = {token: index for index, token in enumerate([*specials, *sorted(characters)])}
    unknown = next((token for token in specials if token in UNKNOWN), None)
    # Without a token for them the library refuses unknown characters; its default is "<unk>", so pass "" for none.
    hf = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown or ""))
    hf.pre_tokenizer = pre_tokenizers.FixedLength(1)
    hf.decoder = decoders.Fuse()
    apply_template(hf, template, specials)
    return hf


def byte_tokenizer(template: Template) -> Tokenizer:
    """One token a byte of UTF-8: the template's special tokens, then the 256 bytes in order (as in ByT5).

    Without special tokens, ids are the bytes themselves.
    """
    specials = special_tokens(template)
    tokens = [*specials, *byte_alphabet()]
    hf = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    hf.decoder = decoders.ByteLevel()
    apply_template(hf, template, specials)
    return hf


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies, in the order of the bytes.

    GPT-2's table (Radford et al., 2019, bytes_to_unicode): printable bytes are themselves, the others the
    characters from U+0100 on. (The library's `ByteLevel.alphabet()` has the same characters, but does not say
    which byte each stands for.)
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
