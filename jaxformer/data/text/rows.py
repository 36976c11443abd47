"""From a split's texts to rows of tokens: the tokenizer, encoding, and what the sources of rows have in common."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tokenizers as hf_tokenizers

from jaxformer.config.schema import to_dict
from jaxformer.data.base import Array, RowSource
from jaxformer.data.records import Records
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.tokenizer_training import Bytes
from jaxformer.data.text.tokenizers import FromFile, Tokenizer
from jaxformer.errors import UserError

IGNORED = -1  # a target or a tag that counts nowhere
Batch = dict[str, np.ndarray]


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
        self, tokenizer: Tokenizer, length: int, pair: bool = False, special: bool = True, **truncation: Any
    ):
        """Works on a copy of the tokenizer.

        Args:
          tokenizer: what makes the tokens.
          length: tokens at most, special ones included.
          pair: whether the inputs are pairs of texts.
          special: whether the template's special tokens stand around each input.
          **truncation: the `strategy` and the `stride` of the library's truncation, if not its own.

        Raises:
          UserError: special tokens alone are as long as `length`.
        """
        self.tokenizer, self.special = tokenizer, special
        self.hf = hf_tokenizers.Tokenizer.from_str(tokenizer.hf.to_str())
        added = self.hf.num_special_tokens_to_add(pair) if special else 0
        if added >= length:
            raise UserError(f"data.examples.length={length}: special tokens alone take {added}; enlarge it")
        self.hf.enable_truncation(length, **truncation)

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


class TokenRows(RowSource):
    """Rows of tokens of one split; `records` are the examples that they are made of."""

    tokenizer: Tokenizer
    """What made the tokens."""
    num_classes: int | None = None
    """How many classes there are, if there are classes and that is known."""

    def __init__(self, records: Records, tokenizer: Tokenizer, length: int, **fills: int):
        """Says what all rows have.

        Args:
          records: the split's examples.
          tokenizer: what makes the tokens.
          length: places in a row.
          **fills: the arrays int32 [B, length] of a batch besides `tokens`, and what stands on padding.
        """
        self.records, self.tokenizer, self.length = records, tokenizer, length
        self.name, self.split = records.name, records.split
        self.pad_id = tokenizer.pad_id or 0  # without a padding token, any: nothing looks at it
        fills = {"tokens": self.pad_id, **fills}
        self.spec: dict[str, Array] = {name: Array((length,), fill=fill) for name, fill in fills.items()}

    def where(self, index: int) -> str:
        """How messages name a row."""
        return f"dataset {self.name}, split {self.split!r}, row {index}"

    @property
    def sizes(self) -> dict[str, int]:
        """`vocab_size`, and `num_classes` if there are classes."""
        classes = {} if self.num_classes is None else {"num_classes": self.num_classes}
        return {"vocab_size": self.tokenizer.vocab_size, **classes}


class Places:
    """Where the items of rows that differ in length lie, for rows of one length.

    Attributes:
      inside: bool [B, T], where a row has an item.
      index: int64 [B, T], which item; 0 where there is none.
    """

    def __init__(self, starts: np.ndarray, stops: np.ndarray, length: int):
        """Rows of the items from `starts` to `stops`, int64 [B], in `length` places."""
        places = np.arange(length)
        self.inside = places < (stops - starts)[:, None]
        self.index = np.where(self.inside, starts[:, None] + places, 0)

    def take(self, values: np.ndarray, fill: int) -> np.ndarray:
        """int32 [B, T]: the items, and `fill` where there are none."""
        if len(values) == 0:
            return np.full(self.inside.shape, fill, np.int32)
        return np.where(self.inside, values[self.index].astype(np.int32), np.int32(fill))


class MixedRows(TokenRows):
    """The rows of several datasets, numbered one dataset after the other."""

    def __init__(self, sources: Sequence[TokenRows], weights: Sequence[float]):
        """Mixes `sources` in the ratio of `weights`.

        Raises:
          UserError: their classes differ.
        """
        first = sources[0]
        for source in sources[1:]:
            if source.class_names != first.class_names or source.spec.keys() != first.spec.keys():
                remedy = "mix datasets of the same"
                raise UserError(f"data.mixture: {source.name} has other classes than {first.name}; {remedy}")
        super().__init__(first.records, first.tokenizer, first.length)
        self.name, self.spec = " + ".join(source.name for source in sources), first.spec
        self.class_names, self.num_classes = first.class_names, first.num_classes
        self.sources, self.weights = sources, list(weights)
        self.starts = np.cumsum([0, *(len(source) for source in sources)])
        if first.lengths is not None:
            self.lengths = np.concatenate([np.asarray(source.lengths) for source in sources])
            self.filled = np.concatenate([np.asarray(source.filled) for source in sources])
        self.facts = [f"{source.name}, {fact}" for source in sources for fact in source.facts]
        self.facts.append("mixed in the ratio " + " : ".join(f"{weight:g}" for weight in weights))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def parts(self) -> tuple[list[int], list[float]]:
        """Rows and weight of each dataset."""
        return [len(source) for source in self.sources], self.weights

    def gather(self, indices: np.ndarray, length: int) -> Batch:
        """The rows at `indices`, int64 [B], padded to `length`."""
        which = np.searchsorted(self.starts, indices, side="right") - 1
        parts = [
            source.gather(indices[which == number] - self.starts[number], length)
            for number, source in enumerate(self.sources)
        ]
        places = np.argsort(np.argsort(which, kind="stable"), kind="stable")
        return {key: np.concatenate([part[key] for part in parts])[places] for key in parts[0]}

    def where(self, index: int) -> str:
        """How messages name a row."""
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.sources[number].where(index - int(self.starts[number]))


def share(part: float, whole: float) -> str:
    """A share as people read it: "100%", "12%", "0.34%"."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def shares(counts: Mapping[str, int], whole: int, **whats: str) -> list[str]:
    """Lines about counts that are not 0, each as a share of `whole`: "12% of 3,400 questions have no answer"."""
    return [f"{share(counts[key], whole)} of {whole:,} {what}" for key, what in whats.items() if counts[key]]
