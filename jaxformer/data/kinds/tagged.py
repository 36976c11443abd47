"""Words with a tag each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxformer.data.kinds.text import RaggedRows, Row, RowLength, Stored, TextExamples
from jaxformer.data.records import Record, Records, check_class, class_names, inner
from jaxformer.data.text.rows import IGNORED, Encoder, shares
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError


@dataclass(frozen=True)
class Tagged(TextExamples):
    """Words with a tag each: `tokens`, `token_mask` and `labels` [B, T].

    Words are cut into pieces; the first piece of a word has its tag, every other token -1.
    """

    kind: ClassVar[str] = "tagged"
    by_token: ClassVar[tuple[str, ...]] = ("tokens", "token_mask", "labels")
    text_fields: ClassVar[tuple[str, ...]] = ("words_feature",)

    length: RowLength
    """Tokens in a row (T), special tokens included; words beyond are cut off, and counted."""
    words_feature: str = "tokens"
    """The dataset's feature that holds a list of words."""
    tags_feature: str = "ner"
    """The feature that holds a list of as many classes."""

    def check(self, records: Records) -> None:
        records.check_text(self.words_feature, "data.examples.words_feature", listed=True)
        lists = {name: inner(feature) for name, feature in records.features.items()}
        classes = [name for name, feature in lists.items() if class_names(feature)[1] is not None]
        records.check(self.tags_feature, "data.examples.tags_feature", classes, "a list of classes")

    def classes(self, records: Records) -> tuple[list[str] | None, int | None]:
        return class_names(inner(records.features[self.tags_feature]))

    def rows(self, records: Records, tokenizer: Tokenizer) -> "TaggedRows":
        return TaggedRows(self, records, tokenizer)

    def made_of(self, rows: RaggedRows) -> dict[str, Any]:
        features = [self.words_feature, self.tags_feature, "words"]
        return {"features": features, "length": self.length}

    def columns(self, rows: RaggedRows) -> list[Stored]:
        return [Stored("labels", np.int32, "labels", fill=IGNORED), Stored("words", np.int32)]

    def encode(self, rows: RaggedRows) -> Iterator[Row]:
        records = rows.records
        _, classes = self.classes(records)
        encoder = Encoder(rows.tokenizer, self.length)
        for first, group in records.groups():
            texts = [records.texts(r, self.words_feature, index) for index, r in enumerate(group, first)]
            encodings = encoder(texts, records, first, words=True)
            for index, (record, words, encoding) in enumerate(zip(group, texts, encodings), first):
                tags = self.tags(records, record, index, len(words), classes)
                kept, cut = words_of(encoding), set[int]().union(*map(words_of, encoding.overflowing))
                rows.counts["words"] += len(words)
                rows.counts["cut"] += len(cut - kept)
                rows.counts["empty"] += len(words) - len(cut | kept)
                words_at = align(encoding.word_ids, list(range(len(words))))
                yield {"ids": encoding.ids, "labels": align(encoding.word_ids, tags), "words": words_at}

    def tags(
        self, records: Records, record: Record, index: int, words: int, classes: int | None
    ) -> list[int]:
        """An example's tags.

        Raises:
          UserError: there are not as many as words, or one is none of the classes.
        """
        tags = list(record[self.tags_feature].int64_list.value)
        if len(tags) != words:
            problem = f"has {words} {self.words_feature} and {len(tags)} {self.tags_feature}"
            raise UserError(f"{records.where(index)}: {problem}; each word needs a tag")
        for tag in tags:
            check_class(tag, classes, records.where(index), self.tags_feature)
        return tags

    def facts(self, rows: RaggedRows) -> Iterator[str]:
        yield rows.average("examples")
        yield from shares(
            rows.counts, rows.counts["words"], cut=f"words were cut off at {self.length} tokens"
        )
        if rows.counts["empty"]:
            yield f"{rows.counts['empty']:,} words have no tokens, so their tags are left out"


class TaggedRows(RaggedRows):
    """Row i is example i."""

    settings: Tagged

    def words(self, index: int) -> np.ndarray:
        """The numbers of the words that a row has tokens of, int32 [n], in the order of their first tokens."""
        found = self.arrays["words"][self.offsets[index] : self.offsets[index + 1]]
        return found[found >= 0]

    def truth(self, index: int) -> list[int]:
        """The tags of all of an example's words."""
        return list(self.records.read([index])[0][self.settings.tags_feature].int64_list.value)


def align(word_ids: list[int | None], tags: list[int]) -> list[int]:
    """A label for each token: the tag of a word on its first piece, IGNORED on all else.

    Args:
      word_ids: the number of each token's word; None for special tokens.
      tags: a class for each word.
    """
    previous = [None, *word_ids[:-1]]
    return [
        IGNORED if word is None or word == before else tags[word] for word, before in zip(word_ids, previous)
    ]


def words_of(encoding: Any) -> set[int]:
    """The numbers of the words that an encoding has tokens of."""
    return set(encoding.word_ids) - {None}
