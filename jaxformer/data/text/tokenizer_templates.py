"""The special tokens of each family of models, and where they stand around one text and around two."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tokenizers import AddedToken, Tokenizer, processors

from jaxformer.errors import UserError

Template = Literal["none", "gpt", "bert", "roberta", "t5", "seq2seq"]
UNKNOWN = ("[UNK]", "<unk>")
TEMPLATES: tuple[Template, ...] = get_args(Template)


@dataclass(frozen=True)
class Layout:
    """What a template needs and writes."""

    tokens: str
    """The special tokens that a vocabulary made for it begins with, in this order: padding is 0."""
    single: str = ""
    """One text, in the notation of TemplateProcessing: $A is the text; empty if nothing is written."""
    pair: str = ""
    """Two texts; ":1" is the type of tokens, else 0. Of these models only BERT's tell the texts apart by type."""


LAYOUTS: dict[Template, Layout] = {
    "none": Layout(""),
    # GPT-2 (Radford et al., 2019) writes nothing around a text: whoever joins documents puts it between them.
    "gpt": Layout("<|endoftext|>"),
    # Devlin et al., 2018, figure 2.
    "bert": Layout("[PAD] [UNK] [CLS] [SEP] [MASK]", "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    # Liu et al., 2019, as released: two </s> between the texts.
    "roberta": Layout("<pad> <unk> <s> </s> <mask>", "<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    # Raffel et al., 2019; in the order of its vocabulary.
    "t5": Layout("<pad> </s> <unk>", "$A </s>", "$A </s> $B </s>"),
    "seq2seq": Layout("<pad> <unk> <s> </s>", "<s> $A </s>", "<s> $A </s> $B </s>"),
}


def special_tokens(template: Template, unknown: str | None = None) -> list[str]:
    """The special tokens that a new vocabulary begins with.

    Args:
      template: the template that it is made for.
      unknown: a token for what is not in the vocabulary, if it needs one and the template brings none.
    """
    tokens = LAYOUTS[template].tokens.split()
    return tokens if unknown is None or unknown_of(tokens) else [*tokens, unknown]


def unknown_of(tokens: Iterable[str]) -> str | None:
    """The one of some special tokens that stands for what is not in the vocabulary."""
    return next((token for token in tokens if token in UNKNOWN), None)


def as_special(tokens: Iterable[str]) -> list[AddedToken]:
    """Tokens that are found in a text as they are written, and that decoding may leave out.

    As in RoBERTa's release, <mask> takes the spaces before it with it.
    """
    return [AddedToken(t, special=True, normalized=False, lstrip=t == "<mask>") for t in tokens]


def apply_template(hf: Tokenizer, template: Template, specials: Iterable[str] = ()) -> None:
    """Has `hf` write a template's special tokens around what it encodes.

    Those of `specials` that are in the vocabulary are marked as special, too; a token that is so already stays as it
    is. Offsets of byte-level tokens leave out the space that the token begins with.

    Raises:
      UserError: its vocabulary lacks a token of the template.
    """
    layout, needed = LAYOUTS[template], tokens_needed(template)
    if missing := lacking(hf, template):
        fitting = ", ".join(name for name in TEMPLATES if not lacking(hf, name))
        problem = f"the vocabulary has no {', '.join(missing)}; templates that fit it: {fitting}"
        raise UserError(f"template={template!r}: {problem}")
    marked = {token.content for token in hf.get_added_tokens_decoder().values() if token.special}
    new = dict.fromkeys(token for token in (*specials, *needed) if token not in marked)
    hf.add_special_tokens(as_special(token for token in new if hf.token_to_id(token) is not None))
    steps: list[Any] = []
    if is_byte_level(hf.pre_tokenizer):
        prefix = getattr(hf.pre_tokenizer, "add_prefix_space", False)
        steps.append(processors.ByteLevel(add_prefix_space=prefix, trim_offsets=True))
    if layout.pair:
        ids = [(token, hf.token_to_id(token)) for token in needed]
        steps.append(processors.TemplateProcessing(layout.single, layout.pair, ids))
    hf.post_processor = processors.Sequence(steps) if len(steps) > 1 else steps[0] if steps else None


def tokens_needed(template: Template) -> list[str]:
    """The special tokens that a template writes; <|endoftext|> for "gpt", which writes none but ends with it."""
    layout = LAYOUTS[template]
    parts = (part.split(":")[0] for part in (layout.pair or layout.tokens).split())
    return list(dict.fromkeys(part for part in parts if not part.startswith("$")))


def lacking(hf: Tokenizer, template: Template) -> list[str]:
    """The special tokens of a template that the vocabulary of `hf` does not have."""
    return [token for token in tokens_needed(template) if hf.token_to_id(token) is None]


def is_byte_level(pre_tokenizer: Any) -> bool:
    """Whether texts become bytes before they are looked up, as in GPT-2."""
    return "ByteLevel(" in repr(pre_tokenizer)  # it may stand in a Sequence


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies, in the order of the bytes.

    GPT-2's table (Radford et al., 2019, bytes_to_unicode): printable bytes are themselves, the others the
    characters from U+0100 on. (The library's `ByteLevel.alphabet()` has the same characters, but does not say
    which byte each stands for.)
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
