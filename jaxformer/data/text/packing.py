"""Packing pieces into rows by best fit, the longest first (Ding et al. 2024, "Fewer Truncations Improve ...")."""

from collections import defaultdict

import numpy as np


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
    """Puts pieces into rows: each, the longest first, where it leaves the least room.

    Pieces of one size are placed together: a row with room r takes r // size of them before any roomier row
    gets one, which is what best fit does with them one by one. So the work is in sizes and rooms that there
    are, and a million pieces take a second or two.

    Args:
      sizes: [P], each from 1 to `capacity`.
      capacity: of a row.

    Returns:
      int64 [P], the row of each piece; and the number of rows.
    """
    order = np.argsort(-sizes, kind="stable")
    row_of = np.empty(len(sizes), np.int64)
    room_rows: dict[int, list[int]] = defaultdict(list)  # room -> rows that have it
    rows = 0
    start = 0
    ordered = sizes[order]
    while start < len(order):
        size = int(ordered[start])
        stop = int(np.searchsorted(-ordered, -size, side="right"))
        pieces = order[start:stop]
        done = 0
        for room in sorted(room for room in room_rows if room >= size):
            if done == len(pieces):
                break
            done = fill(room_rows, room, size, pieces, done, row_of)
        if done < len(pieces):
            new = -(-(len(pieces) - done) // (capacity // size))
            room_rows[capacity] = list(range(rows, rows + new))
            rows += new
            done = fill(room_rows, capacity, size, pieces, done, row_of)
        start = stop
    return row_of, rows


def fill(
    room_rows: dict[int, list[int]], room: int, size: int, pieces: np.ndarray, done: int, row_of: np.ndarray
) -> int:
    """Puts pieces of `size` from number `done` on into rows with `room`; returns how many are placed then."""
    fits = room // size
    rows = room_rows.pop(room)
    used = min(len(rows), -(-(len(pieces) - done) // fits))
    if used < len(rows):
        room_rows[room] = rows[used:]
    stop = min(len(pieces), done + used * fits)
    row_of[pieces[done:stop]] = np.repeat(np.asarray(rows[:used]), fits)[: stop - done]
    partly = (stop - done) - (used - 1) * fits  # pieces in the last of them
    if used > 1:
        room_rows[room - fits * size].extend(rows[: used - 1])
    room_rows[room - partly * size].append(rows[used - 1])
    return stop
