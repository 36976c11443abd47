"""Texts in samples and in the report: pieces with their losses, excerpts, attention from token to token."""

import html
import json
import re

import numpy as np
import pytest
from PIL import Image

from jaxformer.observe.attention_maps import (
    MOST_TOKENS,
    TokenMaps,
    attention_rollout,
    draw_maps,
    drawn_every,
    given_by,
    tokens_drawn,
)
from jaxformer.observe.report import write_report
from jaxformer.observe.samples import MOST_PIECES, Shown, read_samples, write_samples
from jaxformer.observe.text_samples import drawn_maps, drawn_piece, excerpt, scored, spaced, text_parts

EVIL = "<script>alert('&')</script>"


def weights_of(layers=2, heads=3, queries=5, keys=5, causal=False, seed=0):
    """Softmax weights [layers, heads, queries, keys] of random scores."""
    scores = np.random.default_rng(seed).normal(size=(layers, heads, queries, keys))
    if causal:
        scores[..., np.triu(np.ones((queries, keys), bool), 1)] = -np.inf
    weights = np.exp(scores)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def words(count, name="t"):
    return [f"{name}{i}" for i in range(count)]


def next_pieces(text, losses):
    """A language model's pieces of a text, letter by letter: each with the next one as its target."""
    return [
        {"token": token, "target": target, "likeliest": "?", "loss": loss}
        for token, target, loss in zip(text[:-1], text[1:], losses, strict=True)
    ]


def shade(loss):
    return drawn_piece("a", {"target": "a", "likeliest": "a", "loss": loss})["shade"]


def test_a_texts_pieces_stand_in_order_and_each_has_the_loss_of_itself():
    pieces = next_pieces("abca", [1.0, 2.0, 3.0])
    shown = [(piece, said and said["loss"]) for piece, said in scored(pieces)]
    assert shown == [("a", None), ("b", 1.0), ("c", 2.0), ("a", 3.0)]


def test_padding_after_the_last_target_is_no_text():
    padding = [{"token": "<pad>", "target": None, "likeliest": "x", "loss": 0.0}] * 3
    assert "".join(piece for piece, _ in scored(next_pieces("abca", [1.0] * 3) + padding)) == "abca"


def test_documents_in_a_row_keep_their_borders():
    rows = next_pieces("ab.", [1.0, 2.0]) + next_pieces("xy.", [3.0, 4.0])
    shown = [(piece, said and said["loss"]) for piece, said in scored(rows)]
    assert shown == [("a", None), ("b", 1.0), (".", 2.0), ("x", None), ("y", 3.0), (".", 4.0)]


def test_a_masked_place_shows_what_was_hidden():
    said = {"likeliest": "dog", "loss": 0.5}
    pieces = [
        {"token": "the", "target": None, **said},
        {"token": "[MASK]", "target": "cat", **said},
        {"token": "sat", "target": None, **said},
    ]
    assert [(piece, said is not None) for piece, said in scored(pieces)] == [
        ("the", False),
        ("cat", True),
        ("sat", False),
    ]


def test_words_are_kept_apart_where_their_tokens_have_no_spaces():
    def read(*pieces):
        return "|".join(piece for piece, _ in spaced([(piece, None) for piece in pieces]))

    assert read("[CLS]", "it", "ha", "##un", "##ts") == "[CLS]| it| ha|un|ts"
    assert read("in", " the", " end") == "in| the| end"
    assert read("a", "b", "\n") == "a|b|\n"
    assert read("a", "b") == "a|b"
    assert read() == ""


def test_the_worse_a_piece_was_predicted_the_darker_it_is():
    shades = [shade(loss) for loss in (0.0, 0.1, 1.0, 3.0, 12.0)]
    assert shades[0] == 0
    assert shades == sorted(shades)
    assert shades[-1] == pytest.approx(1, abs=0.03)
    assert shade("NaN") == 1  # as JSON holds it
    said = {"target": "\n", "likeliest": '"', "loss": 2.5}
    drawn = drawn_piece("\n", said)
    assert drawn["text"] == "↵\n"  # seen, and still an end of line
    assert drawn["title"] == '"\\n": 2.5 nats; likeliest: "\\""'
    assert drawn_piece("\t\x00", None)["text"] == "⇥\t␀"
    assert drawn_piece("", None)["text"] == "∅"


def test_excerpts_of_long_texts_and_of_what_is_marked_in_them():
    short = {"before": "", "marked": "", "after": "short", "whole": None}
    assert excerpt("short") == short
    long = "x" * 1000 + "answer" + "y" * 1000
    cut = excerpt(long)
    assert cut["after"].endswith("…")
    assert len(cut["after"]) < 500
    assert cut["whole"] == long
    marked = excerpt(long, (1000, 1006))
    assert marked["marked"] == "answer"
    assert marked["before"].startswith("…x")
    assert marked["after"].startswith("y")
    assert marked["after"].endswith("y…")
    assert len(marked["before"] + marked["after"]) < 500
    whole = excerpt("x" * 2000, (0, 2000))
    assert (whole["marked"], whole["whole"]) == ("x" * 2000, None)


def test_a_causal_map_is_drawn_token_by_token_and_above_its_diagonal_dark():
    layers, heads, tokens = 3, 2, 10
    maps = TokenMaps("decoder", weights_of(layers, heads, tokens, tokens, causal=True), *[words(tokens)] * 2)
    picture, told = draw_maps(maps)
    cell, gap = 50, 3  # whole pixels for each of ten tokens
    assert picture.shape == (layers * (cell + gap) - gap, heads * (cell + gap) - gap, 4)
    one = picture[cell + gap :, cell + gap :][:cell, :cell, :3].astype(int).sum(-1)
    blocks = one.reshape(tokens, 5, tokens, 5)
    assert (blocks == blocks[:, :1, :, :1]).all()
    first = blocks[:, 0, :, 0]
    assert (first[np.triu_indices(tokens, 1)] == first.min()).all()
    assert first[0, 0] == first.max()  # the first token sees itself alone
    assert (told["layers"], told["heads"], told["queries"]) == (3, 2, words(tokens))
    expected = attention_rollout(maps.weights)[-1]
    np.testing.assert_allclose(told["given"], expected, atol=1e-4)


def test_cross_attention_is_not_square_and_gives_the_mean():
    weights = weights_of(2, 4, queries=6, keys=3)
    picture, told = draw_maps(TokenMaps("cross", weights, words(6), words(3, "s")))
    assert picture.shape == (2 * 51 - 3, 4 * 27 - 3, 4)
    assert (told["queries"], told["keys"]) == (words(6), words(3, "s"))
    np.testing.assert_allclose(told["given"], weights.mean((0, 1, 2)), atol=1e-4)
    assert sum(told["given"]) == pytest.approx(1, abs=1e-3)


def test_what_tokens_give_is_not_told_of_a_part_of_a_text_unless_it_is_causal():
    both, causal = weights_of(), weights_of(causal=True)
    assert draw_maps(TokenMaps("encoder", both, words(5), words(5)))[1]["given"] is not None
    assert draw_maps(TokenMaps("encoder", both, words(5), words(5), whole=False))[1]["given"] is None
    assert draw_maps(TokenMaps("decoder", causal, words(5), words(5), whole=False))[1]["given"] is not None
    part = TokenMaps("cross", weights_of(keys=4), words(5), words(4), whole=False)
    assert draw_maps(part)[1]["given"] is None
    np.testing.assert_allclose(given_by(both, cross=False), attention_rollout(both).mean(0))


def test_large_models_have_fewer_tokens_and_fewer_texts_drawn():
    assert tokens_drawn(12, 12) == MOST_TOKENS
    assert tokens_drawn(48, 25) < 32
    assert tokens_drawn(1000, 1000) == 16

    def maps(layers, heads):
        weights = np.broadcast_to(np.float32(0), (layers, heads, 64, 64))
        return [TokenMaps("decoder", weights, words(64), words(64))]

    assert drawn_every([maps(4, 4)] * 16) == 1
    assert drawn_every([maps(12, 12)] * 16) == 4
    assert drawn_every([maps(48, 25)] * 16) == 4
    assert drawn_every([[]] * 16) == 1
    assert drawn_every([]) == 1


def text_run(make_run, kind, *examples):
    """A run whose samples are these texts."""
    folder = make_run("text")
    write_samples(folder, examples, kind=kind)
    return folder


def test_texts_are_written_with_maps_by_part(make_run):
    parts = {"encoder": (4, 4), "decoder": (6, 6), "cross": (6, 4)}
    maps = [TokenMaps(name, weights_of(2, 3, *shape), *map(words, shape)) for name, shape in parts.items()]
    said = {"correct": None, "called": "source", "text": "ein", "target": "a", "prediction": "the"}
    folder = text_run(make_run, "samples", Shown(said, maps=maps))
    sample = next(kind for kind in read_samples(folder) if kind["kind"] == "samples")["samples"][0]
    assert {part["name"]: (len(part["queries"]), len(part["keys"])) for part in sample["maps"]} == parts
    with Image.open(folder / "samples" / "samples" / "000-cross.png") as picture:
        assert picture.size == (3 * 35 - 3, 2 * 51 - 3)  # cells of 6 x 8 by 4 x 8 pixels
    page = write_report(folder).read_text()
    for part in ("encoder: 2 layers × 3 heads", "cross: 2 layers × 3 heads", "source", "target", "model"):
        assert part in page


def test_pieces_and_their_losses_are_on_the_page_and_nothing_in_them_is_run(make_run):
    pieces = next_pieces([EVIL, EVIL, '" onload="x', " "], [0.5, 3.0, 9.0])
    said = {"correct": None, "text": EVIL, "pieces": pieces, "loss": 4.1667}
    maps = [TokenMaps("decoder", weights_of(causal=True), [EVIL] * 5, [EVIL] * 5)]
    page = write_report(text_run(make_run, "samples", Shown(said, maps=maps))).read_text()
    assert page.count("<script>") == 1  # the page's own
    assert 'onload="x"' not in page
    spans = re.findall(r'<span style="--shade: ([\d.]+)" title="([^"]*)">([^<]*)</span>', page)
    assert [html.unescape(text) for _, _, text in spans] == [EVIL, '" onload="x', " "]
    assert [float(value) for value, _, _ in spans] == [shade(loss) for loss in (0.5, 3.0, 9.0)]
    assert html.unescape(spans[1][1]) == r'"\" onload=\"x": 3 nats; likeliest: "?"'
    assert "4.167 nats" in page


def test_every_text_is_escaped(make_run):
    said = {
        "correct": False,
        "label": EVIL,
        "top": [{"class": EVIL, "probability": 0.9}],
        "text": EVIL * 40,
        "answer": (25, 50),
        "target": EVIL,
        "prediction": EVIL,
        "called": EVIL,
    }
    page = write_report(text_run(make_run, "mistakes", Shown(said))).read_text()
    assert page.count("<script>") == 1
    assert html.unescape(page).count(EVIL) > 40


def test_a_classified_text_has_its_classes_and_a_mark(make_run):
    top = [{"class": "positive", "probability": 0.75}, {"class": "negative", "probability": 0.25}]
    wrong = {"correct": False, "label": "negative", "top": top, "text": "not bad"}
    page = write_report(text_run(make_run, "mistakes", Shown(wrong))).read_text()
    assert "Worst mistakes" in page
    assert "✗ positive" in page
    assert "not bad" in page
    assert 'style="width: 75.0%"' in page


@pytest.mark.parametrize(("right", "title"), [(False, "Worst mistakes"), (None, "Hardest examples")])
def test_mistakes_are_called_so_where_they_are(make_run, right, title):
    said = {"correct": right, "text": "a", "target": "b", "prediction": ""}
    page = write_report(text_run(make_run, "mistakes", Shown(said))).read_text()
    assert title in page
    assert ("✗" in page.split(title)[1]) == (right is False)


def test_long_texts_keep_their_first_pieces():
    pieces = next_pieces("ab" * 500, [1.0] * 999)
    said = {"correct": None, "text": "ab" * 500, "pieces": pieces, "loss": 1.0}
    assert json.loads(json.dumps(said)) == said
    parts = text_parts(said)
    assert len(parts["pieces"]) < 200
    assert len(parts["pieces"]) + len(parts["more_pieces"]) == 1000


def test_what_is_kept_of_a_long_text_is_limited(tmp_path):
    pieces = next_pieces("ab" * 500, [1.0] * 999)
    said = {"correct": None, "text": "ab" * 500, "pieces": pieces, "loss": float("nan")}
    folder = write_samples(tmp_path, [Shown(said)], kind="samples")
    sample = json.loads((folder / "samples.json").read_text())["samples"][0]
    assert len(sample["pieces"]) == MOST_PIECES
    assert sample["left_out"] == 999 - MOST_PIECES
    assert sample["loss"] == "NaN"
    assert text_parts(sample)["loss"] == "NaN"


def test_how_many_maps_there_are_is_said_in_words():
    weights = weights_of(layers=1, heads=1)
    _, told = draw_maps(TokenMaps("encoder", weights, words(5), words(5)))
    assert drawn_maps(told)["title"] == "encoder: 1 layer × 1 head"
    _, told = draw_maps(TokenMaps("encoder", weights_of(2, 3), words(5), words(5)))
    assert drawn_maps(told)["title"] == "encoder: 2 layers × 3 heads"
