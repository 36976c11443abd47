"""Texts of the report: pieces in the colour of their loss, excerpts of long texts, tokens of attention maps."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxformer.errors import counted
from jaxformer.observe import text

SHOWN_PIECES = 160  # of a text; the others are a click away
SHOWN_LETTERS = 400
NATS = 3.0  # a loss that gets 63% of the colour
VISIBLE = {code: chr(0x2400 + code) for code in range(32)} | {0x7F: "␡", ord("\n"): "↵\n", ord("\t"): "⇥\t"}


def text_parts(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a text that the template shows, by name.

    Args:
      sample: an entry of samples.json: "text" and, where they are known, "pieces", "target", "prediction",
        "correct", "loss" (nats), and "answer", the range of letters of the text that is the answer.
    """
    rows = []
    if not sample.get("pieces"):
        rows.append({"label": sample.get("called", "text"), **excerpt(sample["text"], sample.get("answer"))})
    if "target" in sample:
        rows.append({"label": "target", **excerpt(sample["target"])})
    if "prediction" in sample:
        rows.append({"label": "model", "correct": sample["correct"], **excerpt(sample["prediction"])})
    shown = [drawn_piece(*piece) for piece in spaced(list(scored(sample.get("pieces") or [])))]
    return {
        "rows": [{"correct": None, **row} for row in rows],
        "pieces": shown[:SHOWN_PIECES],
        "more_pieces": shown[SHOWN_PIECES:],
        "left_out": sample.get("left_out", 0),
        "loss": None if sample.get("loss") is None else text.number(float(sample["loss"])),
    }


def excerpt(words: str, marked: Sequence[int] | None = None) -> dict[str, Any]:
    """The part of a text that is shown: "before", "marked" and "after", and the "whole" of it where that is more.

    Args:
      words: the text.
      marked: (first letter, the one after the last) of its most important part, which is shown in full.
    """
    begin, end = marked or (0, 0)
    first = max(0, begin - SHOWN_LETTERS // 2) if end > SHOWN_LETTERS else 0
    last = max(end, min(len(words), first + SHOWN_LETTERS))
    return {
        "before": ("…" if first else "") + words[first:begin],
        "marked": words[begin:end],
        "after": words[end:last] + ("…" if last < len(words) else ""),
        "whole": words if first or last < len(words) else None,
    }


Piece = tuple[str, Mapping[str, Any] | None]


def scored(pieces: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
    """Yields a text's pieces in order, each with its prediction; None where nothing was to be predicted.

    The "target" of a language model's place is the next token; that of a masked language model is the token in the
    place itself, and is shown instead of the mask.
    """
    if not shows_next(pieces):
        for piece in pieces:
            predicted = piece["target"] is not None
            yield (piece["target"], piece) if predicted else (piece["token"], None)
        return
    last, end = None, max(i for i, piece in enumerate(pieces) if piece["target"] is not None)
    for piece in pieces[: end + 1]:  # the rest is padding
        if piece["token"] != last:  # the first of a text
            yield piece["token"], None
        if piece["target"] is not None:
            yield piece["target"], piece
        last = piece["target"]


def spaced(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces with spaces between words, for tokenizers whose pieces have none.

    WordPiece marks a piece that continues a word with "##"; single pieces of sentencepiece mark nothing; byte-level
    tokens and characters have their spaces in them.
    """
    whole = [piece for piece, _ in pieces]
    if any(re.search(r"\s", piece) for piece in whole) or all(len(piece) <= 1 for piece in whole):
        return list(pieces)
    spaces = ["" if i == 0 or piece.startswith("##") else " " for i, piece in enumerate(whole)]
    return [(space + p.removeprefix("##"), row) for space, (p, row) in zip(spaces, pieces, strict=True)]


def shows_next(pieces: Sequence[Mapping[str, Any]]) -> bool:
    """Whether most targets are the token after."""
    pairs = [(one["target"], after["token"]) for one, after in itertools.pairwise(pieces)]
    agree = [target == token for target, token in pairs if target is not None]
    return 2 * sum(agree) > len(agree)


def drawn_piece(shown: str, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """A piece for the template: "text", "shade" (0 ... 1) by its loss, and a "title" with details."""
    if row is None:
        return {"text": seen(shown), "shade": None, "title": None}
    loss = float(row["loss"])
    title = f"{quoted(row['target'])}: {text.number(loss)} nats"
    if row["likeliest"] != row["target"]:
        title += f"; likeliest: {quoted(row['likeliest'])}"
    shade = 1 - math.exp(-max(loss, 0.0) / NATS) if math.isfinite(loss) else 1.0
    return {"text": seen(shown), "shade": round(shade, 2), "title": title}


def seen(piece: str) -> str:
    """A piece with visible signs for ends of lines, tabs and control characters; "∅" for an empty piece."""
    return piece.translate(VISIBLE) or "∅"


def quoted(piece: str) -> str:
    """A piece in quotes, on one line."""
    return json.dumps(piece, ensure_ascii=False)


def drawn_maps(maps: Mapping[str, Any]) -> dict[str, Any]:
    """Attention maps for the template: tokens with the share that they give, scaled to the largest."""
    keys, given = maps["keys"], maps["given"]
    largest = max(given or [], default=0.0) or 1.0
    shares = [round(share / largest, 3) for share in given or [0.0] * len(keys)]
    return {
        "title": f"{maps['name']}: {maps_in_words(maps['layers'], maps['heads'])}",
        "queries": None if maps["queries"] == keys else [{"text": chip(token)} for token in maps["queries"]],
        "keys": [{"text": chip(token), "share": share} for token, share in zip(keys, shares)],
        "given": given is not None,
    }


def maps_in_words(layers: int, heads: int) -> str:
    """The number of maps: "1 layer × 4 heads"."""
    return f"{counted(layers, 'layer')} × {counted(heads, 'head')}"


def chip(token: str) -> str:
    """A token as it stands in a list."""
    return seen(token).replace("\n", "").replace(" ", "·")
