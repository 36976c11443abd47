"""Words with a tag each."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxformer.data.base import Array
from jaxformer.data.kinds.text import RowLength, TextKind
from jaxformer.data.records import Records, check_class, class_names, inner
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.rows import IGNORED, Batch, Places, RaggedRows, TokenRows, share, tokens_fact
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import Encoder, id_dtype
from jaxformer.errors import UserError


@dataclass(frozen=True)
class Tagged(TextKind):
    """Words with a tag each: `tokens`, `token_mask` and `labels` [B, T].

    Words are cut into pieces; the first piece of a word has its tag, every other token -1.
    """

    kind: ClassVar[str] = "tagged"

    length: RowLength
    """Tokens in a row (T), special tokens included; words beyond are cut off, and counted."""
    words_feature: str = "tokens"
    """The dataset's feature that holds a list of words."""
    tags_feature: str = "ner"
    """The feature that holds a list of as many classes."""

    @property
    def text_features(self) -> tuple[str, ...]:
        return (self.words_feature,)

    def check(self, records: Records) -> None:
        records.check_text(self.words_feature, "data.examples.words_feature", listed=True)
        lists = {name: inner(feature) for name, feature in records.features.items()}
        classes = [name for name, feature in lists.items() if class_names(feature)[1] is not None]
        records.check(self.tags_feature, "data.examples.tags_feature", classes, "a list of classes")

    def rows(self, records: Records, tokenizer: Tokenizer) -> TokenRows:
        return TaggedRows(self, records, tokenizer)


class TaggedRows(RaggedRows):
    """Row i is example i."""

    def __init__(self, settings: Tagged, records: Records, tokenizer: Tokenizer):
        """Tokenises the split, or finds it in the cache.

        Raises:
          UserError: an example's words or tags are broken.
        """
        names, classes = class_names(inner(records.features[settings.tags_feature]))
        entry = tokenize(settings, records, tokenizer, classes)
        super().__init__(records, tokenizer, settings.length, entry)
        self.class_names, self.num_classes = names, classes
        self.spec = {**self.spec, "labels": Array((settings.length,), fill=IGNORED)}
        words, cut, empty = (entry.notes[key] for key in ("words", "cut", "empty"))
        self.facts = [tokens_fact(self, "examples")]
        if cut:
            self.facts.append(
                f"{records.split}: {share(cut, words)} of {words:,} words were cut off at {settings.length} tokens"
            )
        if empty:
            self.facts.append(f"{records.split}: {empty:,} words have no tokens, so their tags are left out")

    def more(self, indices: np.ndarray, places: Places) -> Batch:
        """`labels` int32 [B, T]."""
        return {"labels": places.take(self.arrays["labels"], IGNORED)}


def tokenize(settings: Tagged, records: Records, tokenizer: Tokenizer, classes: int | None) -> Entry:
    """An entry with `ids` [M], `labels` int32 [M] and `offsets` int64 [N + 1].

    Noted are "words", how many there are, "cut", those beyond the length, and "empty", those without a token.
    """

    def build(writer: Writer) -> None:
        encoder = Encoder(tokenizer, settings.length)
        ids, labels = writer.column("ids", id_dtype(tokenizer)), writer.column("labels", np.int32)
        offsets = writer.column("offsets", np.int64)
        offsets.append([0])
        counts = dict.fromkeys(("words", "cut", "empty"), 0)
        for first, group in records.groups():
            words = [
                records.texts(record, settings.words_feature, index)
                for index, record in enumerate(group, first)
            ]
            for index, encoding in enumerate(encoder(words, records, first, words=True), first):
                tags = read_tags(group[index - first], settings, records, index, len(words[index - first]))
                for tag in tags:
                    check_class(tag, classes, records.where(index), settings.tags_feature)
                aligned = align(encoding.word_ids, tags)
                seen = sum(label != IGNORED for label in aligned)
                cut = words_cut(encoding)
                counts["words"] += len(tags)
                counts["cut"] += cut
                counts["empty"] += len(tags) - seen - cut
                ids.append(encoding.ids)
                labels.append(aligned)
                offsets.append([ids.count])
        writer.notes.update(counts)

    inputs = {
        "kind": "tagged",
        "data": records.digest(),
        "tokenizer": tokenizer.digest,
        "features": [settings.words_feature, settings.tags_feature],
        "length": settings.length,
    }
    return cached(inputs, build)


def read_tags(record: Any, settings: Tagged, records: Records, index: int, words: int) -> list[int]:
    """An example's tags.

    Raises:
      UserError: there are not as many as words.
    """
    tags = list(record[settings.tags_feature].int64_list.value)
    if len(tags) != words:
        raise UserError(
            f"{records.where(index)}: has {words} {settings.words_feature} and {len(tags)} "
            f"{settings.tags_feature}; each word needs a tag"
        )
    return tags


def align(word_ids: list[int | None], tags: list[int]) -> list[int]:
    """A label for each token: the tag of a word on its first piece, IGNORED on all else.

    Args:
      word_ids: the number of each token's word; None for special tokens.
      tags: a class for each word.
    """
    previous: list[int | None] = [None, *word_ids[:-1]]
    return [
        IGNORED if word is None or word == before else tags[word] for word, before in zip(word_ids, previous)
    ]


def words_cut(encoding: Any) -> int:
    """Words all of whose tokens are beyond the length."""
    kept = {word for word in encoding.word_ids if word is not None}
    beyond = {word for part in encoding.overflowing for word in part.word_ids if word is not None}
    return len(beyond - kept)
