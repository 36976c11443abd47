"""Documents packed into rows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformer.data.base import Array
from jaxformer.data.kinds.text import RunningText
from jaxformer.data.records import Records
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.packing import best_fit, cut
from jaxformer.data.text.rows import IGNORED, Batch, TokenRows, share
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import stream
from jaxformer.errors import UserError


@dataclass(frozen=True)
class Documents(RunningText):
    """Documents packed into rows: `tokens`, `targets`, `segment_ids` and `positions` int32 [B, T].

    A document longer than a row is cut into pieces, and a piece's last target is the next piece's first token:
    every token but a document's first is a target exactly once. Each piece is a segment of its own, with
    positions from 0. Which pieces share a row is decided by best fit, the longest first.
    """

    kind: ClassVar[str] = "documents"

    def rows(self, records: Records, tokenizer: Tokenizer) -> TokenRows:
        return DocumentRows(self, records, tokenizer)


class DocumentRows(TokenRows):
    """Row i holds the pieces that packing put there, one after the other."""

    def __init__(self, settings: Documents, records: Records, tokenizer: Tokenizer):
        """Tokenises and packs the split, or finds it in the cache.

        Raises:
          UserError: no document has two tokens.
        """
        entry = stream(records, settings.feature, tokenizer)
        self.ids = entry.arrays["ids"]
        offsets = entry.arrays["offsets"]
        if not (np.diff(offsets) > 1).any():
            raise UserError(
                f"split {records.split!r} of {records.name}: no document has two tokens, which a target needs"
            )
        packed = pack(offsets, settings.length, entry.digest).arrays
        super().__init__(records, tokenizer, settings.length)
        self.rows, self.starts, self.counts = packed["rows"], packed["starts"], packed["sizes"]
        fills = {"tokens": self.pad_id, "targets": IGNORED, "segment_ids": 0, "positions": 0}
        self.spec = {name: Array((settings.length,), fill=fill) for name, fill in fills.items()}
        documents = len(offsets) - 1
        empty = len(self) * settings.length - int(self.counts.sum())
        alone = int((np.diff(offsets) < 2).sum())
        self.facts = [
            f"{records.split}: {len(self.ids):,} tokens of {documents:,} documents, packed into "
            f"{len(self):,} rows of {settings.length}",
            f"{records.split}: {share(empty, len(self) * settings.length)} of the places in its batches are padding",
        ]
        if alone:
            self.facts.append(
                f"{records.split}: {alone:,} documents have less than two tokens, and are left out"
            )

    def __len__(self) -> int:
        return len(self.rows) - 1

    def gather(self, indices: np.ndarray, length: int) -> Batch:
        """`tokens`, `targets`, `segment_ids` and `positions`, int32 [B, length]."""
        counts = self.rows[indices + 1] - self.rows[indices]
        row = np.repeat(np.arange(len(indices)), counts)
        number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)  # of a piece in its row
        pieces = self.rows[indices][row] + number
        sizes = self.counts[pieces]
        ends = np.cumsum(sizes)
        inside = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        place_row = np.repeat(row, sizes)
        totals = np.bincount(row, weights=sizes, minlength=len(indices)).astype(np.int64)
        column = np.arange(len(place_row)) - np.repeat(np.cumsum(totals) - totals, totals)
        source = np.repeat(self.starts[pieces], sizes) + inside
        flat = place_row * length + column
        batch = {name: np.full((len(indices), length), self.spec[name].fill, np.int32) for name in self.spec}
        batch["tokens"].reshape(-1)[flat] = self.ids[source]
        batch["targets"].reshape(-1)[flat] = self.ids[source + 1]
        batch["segment_ids"].reshape(-1)[flat] = np.repeat(number + 1, sizes)
        batch["positions"].reshape(-1)[flat] = inside
        return batch


def pack(offsets: np.ndarray, length: int, digest: str) -> Entry:
    """Packs documents, each into as many places as it has targets.

    Args:
      offsets: int64 [N + 1], of the documents in the stream.
      length: places in a row.
      digest: the stream's.

    Returns:
      An entry with `rows` int64 [R + 1]: row r has the pieces rows[r] to rows[r + 1]; and of the pieces `starts`
      int64 [P], in the stream, and `sizes` int32 [P].
    """

    def build(writer: Writer) -> None:
        document, begin, sizes = cut(np.maximum(np.diff(offsets) - 1, 0), length)
        row_of, rows = best_fit(sizes, length)
        order = np.argsort(row_of, kind="stable")
        counts = np.bincount(row_of, minlength=rows)
        writer.column("rows", np.int64).append(np.concatenate([[0], np.cumsum(counts)]))
        writer.column("starts", np.int64).append((offsets[document] + begin)[order])
        writer.column("sizes", np.int32).append(sizes[order])

    return cached({"kind": "packing", "stream": digest, "length": length}, build)
