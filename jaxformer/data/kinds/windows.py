"""A split as one stream of tokens, cut into windows."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformer.data.kinds.text import RunningText
from jaxformer.data.records import Records
from jaxformer.data.text.rows import IGNORED, Batch, TokenRows, end_of_document, stream
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError, counted


@dataclass(frozen=True)
class Windows(RunningText):
    """The split as one stream of tokens, cut into windows: `tokens` and `targets` int32 [B, T].

    Documents are joined with the tokenizer's end-of-text token between them (its separator if it has no
    such token, nothing if it has neither). Every token but the first is a target exactly once; the last
    window is padded, with -1 as targets.
    """

    kind: ClassVar[str] = "windows"
    by_token: ClassVar[tuple[str, ...]] = ("tokens", "targets")

    def rows(self, records: Records, tokenizer: Tokenizer) -> "WindowRows":
        return WindowRows(self, records, tokenizer)


class WindowRows(TokenRows):
    """Row i has tokens i * T to (i + 1) * T as `tokens`, and the tokens one further as `targets`."""

    def __init__(self, settings: Windows, records: Records, tokenizer: Tokenizer):
        """Tokenises the split, or finds it in the cache.

        Raises:
          UserError: fewer than two tokens.
        """
        super().__init__(records, tokenizer, settings.length, targets=IGNORED)
        entry = stream(records, settings.feature, tokenizer)
        documents = len(entry.arrays["offsets"]) - 1
        no_end = end_of_document(tokenizer) is None
        self.ids = entry.arrays["ids"][: None if no_end else -1]  # the end stands between documents
        if len(self.ids) < 2:
            there = counted(len(self.ids), "token")
            raise UserError(f"split {self.split!r} of {self.name} has {there}: a target needs two at least")
        tokens = f"{counted(len(self.ids), 'token')} of {counted(documents, 'document')}"
        self.facts = [f"{self.split}: {tokens}, {len(self):,} windows of {self.length}"]

    def __len__(self) -> int:
        return math.ceil((len(self.ids) - 1) / self.length)

    def gather(self, indices: np.ndarray, length: int) -> Batch:
        """`tokens` and `targets` int32 [B, length]; `length` is always the windows'."""
        places = indices[:, None] * length + np.arange(length + 1)
        last = len(self.ids) - 1
        short = indices.size > 0 and int(indices.max()) * length + length > last
        taken = self.ids[np.minimum(places, last) if short else places].astype(np.int32)
        tokens, targets = taken[:, :-1], taken[:, 1:]
        if short:
            beyond = places[:, 1:] > last
            tokens = np.where(beyond, np.int32(self.pad_id), tokens)
            targets = np.where(beyond, np.int32(IGNORED), targets)
        return {"tokens": tokens, "targets": targets}
