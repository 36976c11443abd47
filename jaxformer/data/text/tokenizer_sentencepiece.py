"""Converts sentencepiece models to Hugging Face tokenizers that give the same ids.

The file is a protobuf, ModelProto of sentencepiece_model.proto; only its description is taken from the package
sentencepiece, which is imported when such a file is read. The conversion follows transformers' SpmConverter, but for
spaces, where it follows sentencepiece's normalizer (Kudo and Richardson, 2018; src/normalizer.cc). The library's own
reader, SentencePieceUnigramTokenizer.from_spm, cannot take its place: it knows neither BPE models nor user-defined
symbols, ignores what the file says about spaces, and of the 569 texts in our tests gives other ids than sentencepiece
for 91 to 568, going by the model.

Known to differ: of equally likely unigram segmentations another one may be chosen; of two combining marks on a letter
the library's Precompiled normalizer may drop one; a text that is a user-defined symbol and no more gets no space
before it.
"""

import re
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from jaxformer.data.text.tokenizer_templates import as_special
from jaxformer.errors import UserError

SPACE = "▁"  # U+2581, which stands for a space in pieces
ANY = 2**20  # spaces before a text, at most
# ModelProto.SentencePiece.Type of sentencepiece_model.proto
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
UNIGRAM, BPE = 1, 2  # its TrainerSpec.ModelType


def convert_sentencepiece(content: bytes, name: str) -> Tokenizer:
    """From a .model file's content; `name` stands in errors.

    Raises:
      UserError: it is no sentencepiece model, or one of words or characters, or one with spaces as suffixes.
    """
    proto = parse_model(content, f"tokenizer file {name}")
    model = {UNIGRAM: unigram, BPE: bpe}[proto.trainer_spec.model_type]
    hf = Tokenizer(model(proto, next(piece.piece for piece in proto.pieces if piece.type == UNKNOWN)))
    symbols = [piece.piece for piece in proto.pieces if piece.type == USER_DEFINED]
    hf.normalizer = charsmap_and_spaces(proto.normalizer_spec, symbols, f"tokenizer file {name}")
    hf.pre_tokenizer = pre_tokenizer(proto.pieces)
    hf.decoder = decoder(proto.normalizer_spec)
    # User-defined symbols are pieces of text: they are looked for after it was normalized as a whole, and
    # decoding never leaves them out.
    hf.add_special_tokens(as_special(p.piece for p in proto.pieces if p.type in (UNKNOWN, CONTROL)))
    hf.add_tokens([AddedToken(symbol, special=False, normalized=True) for symbol in symbols])
    return hf


def parse_model(content: bytes, name: str) -> Any:
    """The ModelProto of a file's content.

    Raises:
      UserError: it is none, or one that cannot be converted.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    cut_off = UserError(f"{name}: not a sentencepiece model, or cut off; copy it again")
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise cut_off from error
    if not all(isinstance(piece.piece, str) for piece in proto.pieces):  # bytes where it is no UTF-8
        raise UserError(f"{name}: a piece is not UTF-8, so the file is damaged; copy it again")
    if not any(piece.type == UNKNOWN for piece in proto.pieces):
        raise UserError(f"{name}: no sentencepiece model (it has no unknown piece); copy it again")
    if not proto.HasField("normalizer_spec"):  # it stands after the pieces
        raise cut_off
    if proto.trainer_spec.model_type not in (UNIGRAM, BPE):
        raise UserError(f"{name}: neither a unigram nor a BPE model; train one of these")
    if proto.trainer_spec.treat_whitespace_as_suffix:
        raise UserError(f"{name}: treat_whitespace_as_suffix is not supported; train without it")
    return proto


def unigram(proto: Any, unknown: str) -> models.Unigram:
    """The pieces with their log probabilities."""
    scores = [(piece.piece, piece.score) for piece in proto.pieces]
    place = [piece.piece for piece in proto.pieces].index(unknown)
    return models.Unigram(scores, unk_id=place, byte_fallback=proto.trainer_spec.byte_fallback)


def bpe(proto: Any, unknown: str) -> models.BPE:
    """The pieces, and the merges that make them: the pair whose piece scores highest is merged first.

    Of the pairs that make one piece, the order is that of transformers' generate_merges.
    """
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    normal = sorted((p for p in proto.pieces if p.type == NORMAL), key=lambda p: -p.score)
    parts = {piece.piece for piece in normal}
    merges = []
    for text in (piece.piece for piece in normal):
        splits = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        made = [pair for pair in splits if parts.issuperset(pair)]
        merges += sorted(made, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    fallback = proto.trainer_spec.byte_fallback
    return models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback)


def charsmap_and_spaces(spec: Any, symbols: list[str], name: str) -> normalizers.Sequence:
    """sentencepiece's normalizer: its table of characters first, then what it does to spaces.

    Args:
      spec: the NormalizerSpec.
      symbols: the user-defined ones. The library normalizes them, too, before it looks for them in normalized
        texts, so that one that stands alone must not get a space before it.
      name: of the file, for the error.

    Raises:
      UserError: the table of characters is damaged.
    """
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        try:
            steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
        except Exception as error:  # the library raises no narrower class
            raise UserError(f"{name}: its table of characters is damaged ({error}); copy it again") from error
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", SPACE))
    if spec.add_dummy_prefix and symbols:
        alone = "|".join(re.escape(symbol.replace(" ", SPACE)) for symbol in symbols)
        steps.append(normalizers.Replace(Regex(rf"\A(?!(?:{alone})\z)"), SPACE))
    elif spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence(steps)


def pre_tokenizer(pieces: Any) -> pre_tokenizers.PreTokenizer | None:
    """Cuts before spaces, which is quicker, where no piece reaches over one; else nothing."""
    inner = any(SPACE in piece.piece[1:] for piece in pieces if piece.type == NORMAL)
    alone = any(piece.piece == SPACE for piece in pieces)
    return pre_tokenizers.Split(SPACE, "merged_with_next") if alone and not inner else None


def decoder(spec: Any) -> decoders.Sequence:
    """Spaces are spaces again, bytes characters, and what the normalizer does not leave before a text is gone."""
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    spaces = ANY if spec.remove_extra_whitespaces else int(spec.add_dummy_prefix)
    return decoders.Sequence([*steps, decoders.Strip(" ", left=spaces, right=0)])
