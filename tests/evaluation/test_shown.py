"""The examples of a report: which are chosen, and what they are shown with."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from flax import linen as nn
from helpers.tiny_tasks import CAPTIONERS, IMAGE_CASES, params_of

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.evaluation import samples
from jaxformer.evaluation.samples import (
    attention_weights,
    choose,
    find_errors,
    make_errors,
    make_predictions,
    part_of,
    worst_mistakes,
)
from jaxformer.models.base import ImageModel
from jaxformer.models.bert import BERT
from jaxformer.models.gpt import GPT
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.seq2seq import Seq2Seq
from jaxformer.models.vit import ViT
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.paths import leaves_by_path
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.language import CausalLM
from jaxformer.tasks.spans import place_of
from jaxformer.tasks.tagging import TokenClassification
from jaxformer.tasks.text import real_length
from jaxformer.tasks.text_classification import TextClassification
from jaxformer.tasks.translation import Translation

VOCAB = 13
TINY = {"vocab_size": VOCAB, "width": 16, "num_heads": 4}


class Letters:
    """A tokenizer whose tokens are letters."""

    vocab_size = VOCAB

    def decode(self, ids, skip_special=True):
        return "".join("abcdefghijklm"[int(i)] for i in ids)


class Rows:
    """Evaluation batches of given widths, as `Batches` makes them with buckets.

    Args:
      make: (rows, width, generator) -> a batch.
      widths: of each batch.
    """

    class_names: ClassVar[list[str]] = ["no", "yes"]
    source = SimpleNamespace(file_of=lambda index: None)

    def __init__(self, make, widths, batch_size=8, missing=3):
        rng = np.random.default_rng(0)
        self.batch_size, self.tokenizer = batch_size, Letters()
        self.batches = [make(batch_size, width, rng) for width in widths]
        for number, batch in enumerate(self.batches):
            last = number == len(widths) - 1
            batch["example_mask"] = np.arange(batch_size) < batch_size - missing * last
            batch["index"] = np.arange(batch_size, dtype=np.int32) + number * batch_size
        self.element_spec = {name: (array.shape[1:], array.dtype) for name, array in self.batches[0].items()}

    def __len__(self):
        return len(self.batches)

    def local(self, step, process_index=0, process_count=1):
        rows = self.batch_size // process_count
        part = slice(process_index * rows, (process_index + 1) * rows)
        return {name: array[part] for name, array in self.batches[step].items()}

    def read(self, start, process_index, process_count, stop):
        return nullcontext(iter(self.batches[start:stop]))


def labelled(rows, width, rng):
    """Texts of 2 to `width` tokens with labels."""
    lengths = rng.integers(2, width + 1, rows)
    lengths[0] = width
    mask = np.arange(width) < lengths[:, None]
    tokens = np.where(mask, rng.integers(0, VOCAB, (rows, width)), 0).astype(np.int32)
    return {
        "tokens": tokens,
        "token_mask": mask,
        "token_types": np.zeros_like(tokens),
        "labels": rng.integers(0, 2, rows, dtype=np.int32),
    }


def streamed(rows, width, rng):
    """Windows with the next token as the target, the last one padded."""
    stream = rng.integers(0, VOCAB, (rows, width + 1)).astype(np.int32)
    tokens, targets = stream[:, :-1].copy(), stream[:, 1:].copy()
    tokens[-4, 5:], targets[-4, 5:] = 0, -1
    return {"tokens": tokens, "targets": targets}


def pictures(rows, width, rng):
    """Images with labels."""
    image = rng.integers(0, 256, (rows, 8, 8, 1), dtype=np.uint8)
    return {"image": image, "labels": rng.integers(0, 4, rows, dtype=np.int32)}


@pytest.fixture(scope="module")
def layout():
    return Layout("jit", make_mesh({"data": -1}))


def fresh(model, task, batches):
    """Variables of a model for such batches."""
    batch = {name: array[:1] for name, array in batches.batches[0].items()}
    return jax.jit(model.init)(jax.random.key(0), **task.inputs(batch))


def test_the_largest_errors_come_first_and_ties_in_order():
    errors = np.array([0.0, 0.5, 0.9, 0.5, -1.0, np.nan, 0.9, 0.1])
    np.testing.assert_array_equal(worst_mistakes(errors, 10), [2, 6, 1, 3, 7])
    np.testing.assert_array_equal(worst_mistakes(errors, 3), [2, 6, 1])
    assert worst_mistakes(np.zeros(4), 3).shape == (0,)


def test_texts_of_several_lengths_are_each_looked_at_as_in_their_batch(layout):
    batches = Rows(labelled, widths=(8, 8, 12, 16))
    task, model = (
        TextClassification(),
        BERT(**TINY, depth=2, max_positions=16, head="sequence", num_classes=2),
    )
    variables = fresh(model, task, batches)
    errors, positions = find_errors(jax.jit(make_errors(model, task)), variables, task, batches, layout)
    real = np.r_[0:29]  # the last batch lacks three
    np.testing.assert_array_equal(positions, real)
    apply = jax.jit(model.apply)
    logits = np.concatenate([apply(variables, **task.inputs(batch)).logits for batch in batches.batches])[
        real
    ]
    labels = np.concatenate([batch["labels"] for batch in batches.batches])[real]
    probabilities = np.asarray(jax.nn.softmax(logits))
    wrong = probabilities.argmax(-1) != labels
    np.testing.assert_allclose(errors, np.where(wrong, probabilities.max(-1), 0), atol=1e-6)

    chosen = choose(model, task, variables, batches, layout, count=5)
    assert {kind: len(shown) for kind, shown in chosen.items()} == {"samples": 5, "mistakes": 5}
    tokens = [batches.batches[p // 8]["tokens"][p % 8] for p in (0, 7, 14, 21, 28)]
    masks = [batches.batches[p // 8]["token_mask"][p % 8] for p in (0, 7, 14, 21, 28)]
    for shown, row, mask, position in zip(chosen["samples"], tokens, masks, (0, 7, 14, 21, 28), strict=True):
        assert shown.image is None
        assert shown.said["text"] == Letters().decode(row[mask])
        assert shown.said["label"] == Rows.class_names[labels[position]]
        best = {entry["class"]: entry["probability"] for entry in shown.said["top"]}
        assert best["yes"] == pytest.approx(probabilities[position, 1], abs=1e-5)
        (maps,) = shown.maps
        assert (maps.name, maps.weights.shape) == ("encoder", (2, 4, mask.sum(), mask.sum()))
        np.testing.assert_allclose(maps.weights.sum(-1), 1, atol=1e-5)  # padding had no part in it
    worst = [shown.said["top"][0]["probability"] for shown in chosen["mistakes"]]
    assert worst == sorted(worst, reverse=True)
    assert worst[0] == pytest.approx(errors.max(), abs=1e-5)
    assert not any(shown.said["correct"] for shown in chosen["mistakes"])


@pytest.mark.parametrize(("scan", "prompt"), [(False, 0), (True, 2)])
def test_a_language_models_texts_have_losses_and_causal_maps_without_padding(layout, scan, prompt):
    batches = Rows(streamed, widths=(80,))
    task, model = CausalLM(), GPT(**TINY, depth=3, context_length=82, scan=scan, prompt=prompt)
    variables = fresh(model, task, batches)
    chosen = choose(model, task, variables, batches, layout, count=5)["samples"]
    outputs = jax.jit(model.apply)(variables, **task.inputs(batches.batches[0]))
    for shown, row in zip(chosen, (0, 1, 2, 3, 4), strict=True):
        (maps,) = shown.maps
        length = 5 if row == 4 else 64  # the padded one, and of the others the first tokens
        assert (maps.name, maps.weights.shape, len(maps.keys)) == ("decoder", (3, 4, length, length), length)
        assert not np.triu(maps.weights, 1).any()
        assert maps.whole == (row == 4)
        assert "".join(maps.queries) == Letters().decode(batches.batches[0]["tokens"][row][:length])
        first = shown.said["pieces"][0]
        target = batches.batches[0]["targets"][row, 0]
        assert first["target"] == Letters().decode([target])
        expected = -jax.nn.log_softmax(outputs.logits[row, 0])[target]
        assert first["loss"] == pytest.approx(float(expected), abs=1e-3)


def test_tagged_words_are_shown_whole(layout):
    pieces = ["[CLS]", "[SEP]", "Os", "##lo", "is", "An", "##n", "##ie"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[CLS]"))
    library.decoder = tokenizers.decoders.WordPiece()
    library.add_special_tokens(["[CLS]", "[SEP]"])

    def tagged(rows, width, rng):
        tokens, labels = np.zeros((rows, width), np.int32), np.full((rows, width), -1, np.int32)
        tokens[:, :8], labels[:, :8] = [0, 2, 3, 4, 5, 6, 7, 1], [-1, 1, -1, 0, 2, -1, -1, -1]
        mask = np.broadcast_to(np.arange(width) < 8, (rows, width))
        return {"tokens": tokens, "token_mask": mask, "token_types": np.zeros_like(tokens), "labels": labels}

    batches, task = Rows(tagged, widths=(12,)), TokenClassification()
    batches.tokenizer, batches.class_names = Tokenizer(library), ["O", "B-place", "B-person"]
    model = BERT(**TINY, depth=1, max_positions=16, head="token", num_classes=3)
    variables = fresh(model, task, batches)
    variables["params"]["head"]["bias"] = jnp.array([0.0, 0.0, 99.0])  # all are persons to it
    (shown,) = choose(model, task, variables, batches, layout, count=1)["samples"]
    assert shown.said["target"] == "Oslo/B-place Annie/B-person"
    assert shown.said["prediction"] == "Oslo/B-person is/B-person Annie/B-person"


@pytest.mark.parametrize(("scan", "prompt"), [(False, 0), (True, 2)])
def test_an_encoder_decoders_maps_are_of_three_parts(layout, scan, prompt):
    def translated(rows, width, rng):
        source = labelled(rows, width, rng)
        targets = rng.integers(0, VOCAB, (rows, 6)).astype(np.int32)
        targets[:, 4:] = -1
        decoder_tokens = np.maximum(np.roll(targets, 1, axis=1), 0)
        return {
            **{n: source[n] for n in ("tokens", "token_mask")},
            "decoder_tokens": decoder_tokens,
            "targets": targets,
        }

    batches, task = Rows(translated, widths=(9,)), Translation(beams=0)
    depths = {"encoder_depth": 1, "decoder_depth": 2}
    model = Seq2Seq(**TINY, context_length=16, **depths, scan=scan, prompt=prompt)
    shown = choose(model, task, fresh(model, task, batches), batches, layout, count=1)["samples"][0]
    source = batches.batches[0]["token_mask"][0].sum()
    maps = {part.name: part for part in shown.maps}
    assert list(maps) == ["encoder", "decoder", "cross"]
    assert {name: part.weights.shape for name, part in maps.items()} == {
        "encoder": (1, 4, source, source),
        "decoder": (2, 4, 4, 4),
        "cross": (2, 4, 4, source),
    }
    assert maps["cross"].queries == maps["decoder"].queries
    assert maps["cross"].keys == maps["encoder"].queries
    sums = maps["cross"].weights.sum(-1)
    assert (sums < 0.99).all() if prompt else np.allclose(sums, 1, atol=1e-5)
    assert shown.said["called"] == "source"


def test_images_are_shown_with_every_layers_attention(layout):
    batches = Rows(pictures, widths=(0, 0))
    model = ViT(image_size=8, patch_size=4, width=16, depth=3, num_heads=2, num_classes=4)
    task = Classification()
    chosen = choose(model, task, fresh(model, task, batches), batches, layout, count=4)
    for shown, position in zip(chosen["samples"], (0, 4, 8, 12), strict=True):
        image = batches.batches[position // 8]["image"][position % 8]
        np.testing.assert_array_equal(shown.image, image)
        assert shown.attention.shape[:2] == (3, 2)
        np.testing.assert_allclose(shown.attention.sum(-1), 1, atol=1e-5)
        assert shown.maps == ()
        assert set(shown.said) == {"label", "correct", "top"}


class Linear(ImageModel):
    @nn.compact
    def __call__(self, image, deterministic=True):
        logits = nn.Dense(4)(image.reshape(len(image), -1))
        return ImageOutputs(logits, logits, logits)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pairs", ["image/encoder"]),
        *[(f"captions, {reads}", []) for reads in CAPTIONERS],
        ("pairs and captions", []),
    ],
)
def test_attention_among_words_is_none_over_the_image(name, parts):
    case = IMAGE_CASES[name]
    look = make_predictions(case.model, case.task)
    _, maps = jax.eval_shape(look, {"params": params_of(name)}, case.batch(1))
    assert sorted({part_of(path) for path in leaves_by_path(maps)}) == parts


def test_a_model_without_attention_has_none(layout):
    batches, task = Rows(pictures, widths=(0,)), Classification()
    chosen = choose(Linear(), task, fresh(Linear(), task, batches), batches, layout, count=2)
    assert [shown.attention for shown in chosen["samples"]] == [None, None]


@pytest.mark.parametrize(("make", "read"), [(labelled, [0, 2, 4]), (pictures, [0, 1, 2])])
def test_of_large_splits_a_part_is_looked_at_of_texts_spread_out(monkeypatch, layout, make, read):
    monkeypatch.setattr(samples, "TEXTS_AT_MOST", 20)
    monkeypatch.setattr(samples, "LOOKED_AT_MOST", 20)
    batches = Rows(make, widths=(4,) * 5)
    assert [number for number, _ in samples.some_batches(batches, make is labelled)] == read


def test_layers_of_a_part_stand_in_order_and_those_of_several_sizes_are_left_out():
    def weights(value, tokens=3):
        return {"attention": {"weights": np.full((1, 2, tokens, tokens), value)}}

    encoder = {f"block_{i}": weights(i) for i in (10, 2, 0)}
    odd = {"block_0": weights(0, 3), "block_1": weights(0, 5)}
    found = attention_weights({"attention_maps": {"encoder": encoder, "odd": odd}})
    assert list(found) == ["encoder"]
    np.testing.assert_array_equal(found["encoder"][:, 0, 0, 0], [0, 2, 10])


def test_real_tokens_are_in_front_of_the_padding():
    tokens = {"tokens": np.zeros(6, int)}
    assert real_length(tokens, "tokens") == 6
    assert real_length(tokens | {"targets": np.array([4, 3, -1, -1, -1, -1])}, "tokens") == 2
    assert real_length(tokens | {"segment_ids": np.array([1, 1, 2, 0, 0, 0])}, "tokens") == 3
    masked = {"token_mask": np.arange(6) < 5, "targets": np.array([-1, 3, -1, -1, -1, -1])}
    assert real_length(tokens | masked, "tokens") == 5
    assert real_length(tokens | {"token_mask": np.zeros(6, bool)}, "tokens") == 0


def test_an_answer_is_found_where_it_stands_and_not_where_it_is_named_before():
    assert place_of("ab", "abcdabe", 4) == (4, 6)
    assert place_of("", "abcdabe", 4) is None
    assert place_of("z", "abcdabe", 4) is None
