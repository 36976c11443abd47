"""A split's documents as one stream of token ids, made once; and the tokenizer, learnt once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tokenizers as hf_tokenizers

from jaxformer.config.schema import to_dict
from jaxformer.data.records import Records
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.tokenizers import Bytes, FromFile, Tokenizer
from jaxformer.errors import UserError


def build_tokenizer(config: Any, features: Sequence[str], parts: Sequence[Records]) -> Tokenizer:
    """The tokenizer that a config names, learnt from the texts of `parts` if it learns.

    Args:
      config: the tokenizer's settings; its `build(texts)` makes it.
      features: the dataset's features that hold texts, or lists of words.
      parts: the training splits.

    Raises:
      UserError: it cannot be made; a text is not UTF-8.
    """

    def texts() -> Iterator[str]:
        for records in parts:
            for first, group in records.groups():
                for index, record in enumerate(group, first):
                    for feature in features:
                        yield " ".join(records.texts(record, feature, index))

    if isinstance(config, (Bytes, FromFile)):  # they look at no texts
        return config.build(texts)

    def build(writer: Writer) -> None:
        writer.notes["tokenizer"] = config.build(texts).to_json()

    inputs = {
        "kind": "tokenizer",
        "settings": [type(config).__name__, to_dict(config)],
        "features": list(features),
        "data": [records.digest() for records in parts],
    }
    return Tokenizer.from_json(cached(inputs, build).notes["tokenizer"])


class Encoder:
    """Encodes examples, and cuts them at a length."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        length: int,
        pair: bool = False,
        strategy: str = "longest_first",
        stride: int = 0,
        special: bool = True,
    ):
        """Works on a copy of the tokenizer.

        Args:
          tokenizer: what makes the tokens.
          length: tokens at most, special ones included.
          pair: whether the inputs are pairs of texts.
          strategy: which of a pair is cut, as the library names it.
          stride: tokens that the parts of a text that is cut share.
          special: whether the template's special tokens stand around each input.

        Raises:
          UserError: special tokens alone are as long as `length`.
        """
        self.tokenizer, self.special = tokenizer, special
        self.hf = hf_tokenizers.Tokenizer.from_str(tokenizer.hf.to_str())
        added = self.hf.num_special_tokens_to_add(pair) if special else 0
        if added >= length:
            raise UserError(f"data.examples.length={length}: special tokens alone take {added}; enlarge it")
        self.hf.enable_truncation(length, stride=stride, strategy=strategy)

    def __call__(
        self, inputs: Sequence[Any], records: Records, first: int, words: bool = False
    ) -> list[hf_tokenizers.Encoding]:
        """The encodings of examples `first`, `first + 1`, ...

        Args:
          inputs: a text each; or a pair of texts; or, with `words`, a list of words.
          records: the examples' split, for messages.
          first: the number of the first.
          words: whether the inputs are lists of words.

        Raises:
          UserError: one cannot be encoded; names it.
        """
        with naming_culprit(self.tokenizer, inputs, records, first):
            return self.hf.encode_batch(list(inputs), is_pretokenized=words, add_special_tokens=self.special)


@contextmanager
def naming_culprit(
    tokenizer: Tokenizer, inputs: Sequence[Any], records: Records, first: int
) -> Iterator[None]:
    """Where the encoding of examples `first`, `first + 1`, ... fails, raises UserError for the one that cannot be."""
    try:
        yield
    except Exception:  # the library raises this very class
        for index, texts in enumerate(inputs, first):
            try:
                tokenizer.encode_batch([texts] if isinstance(texts, str) else texts, special=False)
            except UserError as error:
                raise UserError(f"{records.where(index)}: {error.lines[0]}", *error.lines[1:]) from error
        raise


def id_dtype(tokenizer: Tokenizer) -> np.dtype:
    """The smallest unsigned type that holds all ids."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def end_of_document(tokenizer: Tokenizer) -> int | None:
    """The token after a document: end of text, else the separator, else none."""
    return tokenizer.sep_id if tokenizer.eos_id is None else tokenizer.eos_id


def stream(records: Records, feature: str, tokenizer: Tokenizer) -> Entry:
    """A split's documents, one after the other, each with the token that ends it, if there is one.

    Returns:
      An entry with `ids` [M] and `offsets` int64 [N + 1]: document n is ids[offsets[n] : offsets[n + 1]].
    """
    end = end_of_document(tokenizer)
    ending = [] if end is None else [end]

    def build(writer: Writer) -> None:
        ids, offsets = writer.column("ids", id_dtype(tokenizer)), writer.column("offsets", np.int64)
        offsets.append([0])
        for first, group in records.groups():
            texts = [records.text(record, feature, index) for index, record in enumerate(group, first)]
            with naming_culprit(tokenizer, texts, records, first):
                documents = [document + ending for document in tokenizer.encode_batch(texts, special=False)]
            offsets.append(ids.count + np.cumsum([len(document) for document in documents]))
            ids.append(np.concatenate([np.asarray(document, ids.dtype) for document in documents]))

    made_of = {"data": records.digest(), "feature": feature, "tokenizer": tokenizer.digest, "end": end}
    return cached({"kind": "stream", **made_of}, build)
