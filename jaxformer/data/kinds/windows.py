"""A split as one stream of tokens, cut into windows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformer.data.base import Array
from jaxformer.data.kinds.text import RunningText
from jaxformer.data.records import Records
from jaxformer.data.text.rows import IGNORED, Batch, TokenRows
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import end_of_document, stream
from jaxformer.errors import UserError


@dataclass(frozen=True)
class Windows(RunningText):
    """The split as one stream of tokens, cut into windows: `tokens` and `targets` int32 [B, T].

    Documents are joined with the tokenizer's end-of-text token between them (its separator if it has no
    such token, nothing if it has neither). Every token but the first is a target exactly once; the last
    window is padded, with -1 as targets.
    """

    kind: ClassVar[str] = "windows"

    def rows(self, records: Records, tokenizer: Tokenizer) -> TokenRows:
        return WindowRows(self, records, tokenizer)


class WindowRows(TokenRows):
    """Row i has tokens i * T to (i + 1) * T as `tokens`, and the tokens one further as `targets`."""

    def __init__(self, settings: Windows, records: Records, tokenizer: Tokenizer):
        """Tokenises the split, or finds it in the cache.

        Raises:
          UserError: fewer than two tokens.
        """
        entry = stream(records, settings.feature, tokenizer)
        ids, documents = entry.arrays["ids"], len(entry.arrays["offsets"]) - 1
        if end_of_document(tokenizer) is not None:
            ids = ids[:-1]  # it stands between documents
        if len(ids) < 2:
            raise UserError(
                f"split {records.split!r} of {records.name} has {len(ids)} tokens: a target needs two at least"
            )
        super().__init__(records, tokenizer, settings.length)
        self.ids = ids
        self.count = -(-(len(ids) - 1) // settings.length)
        fills = {"tokens": self.pad_id, "targets": IGNORED}
        self.spec = {name: Array((settings.length,), fill=fill) for name, fill in fills.items()}
        self.facts = [
            f"{records.split}: {len(ids):,} tokens of {documents:,} "
            f"document{'s' * (documents != 1)}, {self.count:,} windows of {settings.length}"
        ]

    def __len__(self) -> int:
        return self.count

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
