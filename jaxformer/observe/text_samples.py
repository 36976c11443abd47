"""Texts as samples: pieces in the colour of their loss, excerpts of long texts, attention from token to token."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxformer.observe import text
from jaxformer.observe.attention_maps import attention_rollout, heads_image

MOST_TOKENS = 64  # of a text whose attention is drawn
MOST_WEIGHTS = 600_000  # in an image of all heads; pages would be too large otherwise
MOST_OF_A_KIND = 2_400_000  # in all images of samples, and of mistakes
CELL = 48  # pixels of a map's longer side, at least
MOST_PIECES = 512  # of a text that are kept
SHOWN_PIECES = 160  # of these, the others are a click away
SHOWN_LETTERS = 400
NATS = 3.0  # a loss that gets 63% of the colour
VISIBLE = {code: chr(0x2400 + code) for code in range(32)} | {0x7F: "␡", ord("\n"): "↵\n", ord("\t"): "⇥\t"}


@dataclass(frozen=True)
class TokenMaps:
    """Attention of one part of a model, for one text."""

    name: str
    """The part: "encoder", "decoder", or "cross" for what a decoder looks at in the source."""
    weights: np.ndarray
    """Float32 [L, heads, T, S], T queries and S keys: the text's first tokens, without padding."""
    queries: Sequence[str]
    """T tokens."""
    keys: Sequence[str]
    """S tokens."""
    whole: bool = True
    """Whether these are all of its tokens."""


def tokens_drawn(layers: int, heads: int) -> int:
    """How many of a text's first tokens are drawn: MOST_TOKENS, or fewer where there are many heads."""
    return max(16, min(MOST_TOKENS, math.isqrt(MOST_WEIGHTS // (layers * heads))))


def drawn_every(texts: Sequence[Sequence[TokenMaps]]) -> int:
    """Attention is drawn for one text in so many: 1, or more for large models, whose maps are large."""
    sizes = [0]
    for parts in texts:
        shapes = [(maps.weights.shape, tokens_drawn(*maps.weights.shape[:2])) for maps in parts]
        sizes.append(sum(n * h * min(t, most) * min(s, most) for (n, h, t, s), most in shapes))
    images = max(1, MOST_OF_A_KIND // max(1, *sizes))
    return max(1, -(-len(texts) // images))


def draw_maps(maps: TokenMaps) -> tuple[np.ndarray, dict[str, Any]]:
    """All heads' maps as one image, and the facts that a page shows beside it.

    Returns:
      uint8 [height, width, 4], RGBA: a layer a row; in a map, queries are rows and keys columns, a whole number of
        pixels each. Brightness is the square root of a weight, between the map's least and its largest.
      "name", "layers", "heads", "queries", "keys", and "given": the share of each key in the result, [S], 0 to 1
        (`given_by`); None where the tokens that are drawn do not determine it.
    """
    layers, heads = maps.weights.shape[:2]
    most = tokens_drawn(layers, heads)
    queries, keys = list(maps.queries[:most]), list(maps.keys[:most])
    weights = maps.weights[:, :, : len(queries), : len(keys)]
    longer = max(len(queries), len(keys))
    image = heads_image(np.sqrt(weights), longer * max(1, -(-CELL // longer)))
    whole = maps.whole and len(queries) == len(maps.queries) and len(keys) == len(maps.keys)
    known = whole or (maps.name != "cross" and is_causal(weights))
    given = [round(float(share), 4) for share in given_by(weights, maps.name == "cross")] if known else None
    found = {"name": maps.name, "layers": layers, "heads": heads}
    return image, found | {"queries": queries, "keys": keys, "given": given}


def is_causal(weights: np.ndarray) -> bool:
    """Whether no query of [..., T, T] looks at a later key."""
    return weights.shape[-1] == weights.shape[-2] and not np.triu(weights, 1).any()


def given_by(weights: np.ndarray, cross: bool) -> np.ndarray:
    """The share of each key, float64 [S], by weights [L, heads, T, S]; the shares sum to 1.

    In self-attention it is the attention rollout: of the last token where attention is causal, because the next one
    is predicted from it, else the mean over all tokens. In cross-attention it is the mean over layers, heads and
    queries.
    """
    if cross:
        return weights.astype(np.float64).mean(axis=(0, 1, 2))
    rollout = attention_rollout(weights)
    return rollout[-1] if is_causal(weights) else rollout.mean(axis=0)


def kept(row: Mapping[str, Any]) -> dict[str, Any]:
    """A task's row for a text, with MOST_PIECES pieces at most; "left_out" counts the others."""
    pieces = row.get("pieces")
    if pieces is None or len(pieces) <= MOST_PIECES:
        return dict(row)
    return {**row, "pieces": pieces[:MOST_PIECES], "left_out": len(pieces) - MOST_PIECES}


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
        right = sample.get("correct")
        rows.append({"label": "model", "correct": right, **excerpt(sample["prediction"])})
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
      marked: (first letter, the one after the last) of what matters in it; it is shown in full.
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
    pairs = [
        (one["target"], after["token"])
        for one, after in itertools.pairwise(pieces)
        if one["target"] is not None
    ]
    return 2 * sum(target == token for target, token in pairs) > len(pairs)


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
    largest = max(given, default=0.0) if given else 0.0
    shares = [share / largest if largest > 0 else 0.0 for share in given or [0.0] * len(keys)]
    return {
        "title": f"{maps['name']}: {maps_in_words(maps['layers'], maps['heads'])}",
        "wide": 9 * maps["heads"],
        "queries": None if maps["queries"] == keys else [chip(token) for token in maps["queries"]],
        "keys": [chip(token) | {"share": round(share, 3)} for token, share in zip(keys, shares)],
        "given": given is not None,
    }


def maps_in_words(layers: int, heads: int) -> str:
    """The number of maps: "1 layer × 4 heads"."""
    return f"{text.counted(layers, 'layer')} × {text.counted(heads, 'head')}"


def chip(token: str) -> dict[str, Any]:
    """A token as it stands in a list."""
    return {"text": seen(token).replace("\n", "").replace(" ", "·")}
