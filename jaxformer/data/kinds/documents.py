"""Documents packed into rows by best fit, the longest first (Ding et al. 2024, "Fewer Truncations Improve ...")."""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformer.data.kinds.text import RunningText
from jaxformer.data.records import Records
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.rows import IGNORED, Batch, TokenRows, share, stream
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError, counted


@dataclass(frozen=True)
class Documents(RunningText):
    """Documents packed into rows: `tokens`, `targets`, `segment_ids` and `positions` int32 [B, T].

    A document longer than a row is cut into pieces, and a piece's last target is the next piece's first token:
    every token but a document's first is a target exactly once. Each piece is a segment of its own, with
    positions from 0. Which pieces share a row is decided by best fit, the longest first.
    """

    kind: ClassVar[str] = "documents"
    by_token: ClassVar[tuple[str, ...]] = ("tokens", "targets", "segment_ids", "positions")

    def rows(self, records: Records, tokenizer: Tokenizer) -> "DocumentRows":
        return DocumentRows(self, records, tokenizer)


class DocumentRows(TokenRows):
    """Row i holds the pieces that packing put there, one after the other."""

    def __init__(self, settings: Documents, records: Records, tokenizer: Tokenizer):
        """Tokenises and packs the split, or finds it in the cache.

        Raises:
          UserError: no document has two tokens.
        """
        super().__init__(records, tokenizer, settings.length, targets=IGNORED, segment_ids=0, positions=0)
        entry = stream(records, settings.feature, tokenizer)
        self.ids, offsets = entry.arrays["ids"], entry.arrays["offsets"]
        sizes = np.diff(offsets)
        if not (sizes > 1).any():
            raise UserError(
                f"split {self.split!r} of {self.name}: no document has two tokens, which a target needs"
            )
        packed = pack(offsets, self.length, entry.digest).arrays
        self.rows, self.starts, self.counts = packed["rows"], packed["starts"], packed["sizes"]
        places = len(self) * self.length
        self.facts = [
            f"{self.split}: {counted(len(self.ids), 'token')} of {counted(len(sizes), 'document')}, packed into "
            f"{counted(len(self), 'row')} of {self.length}",
            f"{self.split}: {share(places - int(self.counts.sum()), places)} of the places in its batches are padding",
        ]
        if alone := int((sizes < 2).sum()):
            self.facts.append(
                f"{self.split}: {alone:,} documents have less than two tokens, and are left out"
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


def cut(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts documents into pieces of `length`, and one that is left over.

    Args:
      sizes: int64 [N], places that each document needs; 0 has no piece.
      length: the longest piece.

    Returns:
      For each piece, int64 [P]: its document, where in the document it begins, its size.
    """
    counts = -(-sizes // length)
    document = np.repeat(np.arange(len(sizes)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    begin = (np.arange(len(document)) - first) * length
    return document, begin, np.minimum(sizes[document] - begin, length)


def best_fit(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Puts pieces into rows: each, the longest first, where it leaves the least room; a million take seconds.

    Args:
      sizes: [P], each from 1 to `capacity`.
      capacity: of a row.

    Returns:
      int64 [P], the row of each piece; and the number of rows.
    """
    row_of, rows = np.empty(len(sizes), np.int64), 0
    rows_with: list[deque[int]] = [deque() for _ in range(capacity + 1)]  # by the room that they have
    rooms: list[int] = []  # that some row has, rising
    order = np.argsort(-sizes, kind="stable")
    for piece, size in zip(order.tolist(), sizes[order].tolist()):
        place = bisect_left(rooms, size)
        if place == len(rooms):
            room, row, rows = capacity, rows, rows + 1
        else:
            room = rooms[place]
            row = rows_with[room].popleft()
            if not rows_with[room]:
                del rooms[place]
        row_of[piece] = row
        left = room - size
        if left and not rows_with[left]:
            insort(rooms, left)
        rows_with[left].append(row)
    return row_of, rows
