"""Captioners: what sees what, and that decoding with a cache gives what the whole text gives at once."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.tiny_models import BESIDE, TINY, tiny_model
from helpers.tiny_tasks import BOS, CAPTIONERS, COCA, EOS, SIDE, VOCAB

from jaxformer.decoding.steps import next_target, read_pictures
from jaxformer.models.layouts import unrolled
from jaxformer.models.positions import sincos2d
from jaxformer.models.vit import ViT
from jaxformer.tasks.captioning import Captioning

READS = ["cross", "prefix"]
ROWS, TOKENS = 2, 5
VIT = ViT(image_size=SIDE, patch_size=4, width=8, depth=1, num_heads=2, mlp_dim=8, num_classes=0)


def made(reads, seed=0, **changes):
    """A captioner with parameters with which tokens change one another a lot, and inputs."""
    model = (CAPTIONERS | {"coca": COCA})[reads].clone(**changes)
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(ROWS, SIDE, SIDE, 3)).astype(np.float32)
    tokens = rng.integers(3, VOCAB, (ROWS, TOKENS)).astype(np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image, tokens)
    variables = jax.tree.map(lambda s: (0.4 * rng.normal(size=s.shape)).astype(s.dtype), shapes)
    return model, variables, image, tokens


def teacher_forced(model, variables, image, tokens):
    return np.asarray(jax.jit(model.apply)(variables, image, tokens).logits)


@pytest.mark.parametrize("reads", READS)
def test_a_word_sees_the_picture_and_what_is_before_it(reads):
    """By gradients: of the embedding of each place, and of the picture."""
    model, variables, image, tokens = made(reads)
    tokens = np.arange(TOKENS, dtype=np.int32)[None] + 3  # a row of the token table for each place

    def logits(params, image):
        return model.apply({"params": params}, image, tokens).logits[0]

    by_params, by_image = jax.jit(jax.jacrev(logits, (0, 1)))(variables["params"], image[:1])
    # The table is the head, too, and gets a gradient of its own word's logit: that of token 0 is looked at.
    table = np.asarray(by_params["token_embedding"]["embedding"])  # [T, V, V, D]
    sees = np.abs(table[:, 0, 3 : 3 + TOKENS]).max(-1) > 0
    np.testing.assert_array_equal(sees, np.tril(np.ones((TOKENS, TOKENS), bool)))
    assert (np.abs(np.asarray(by_image)).max(axis=(1, 2, 3, 4, 5)) > 0).all()


def test_word_dropout_hides_words_in_training_alone():
    """A row whose words are all hidden gives what a row of other words gives; half of the rate hides half of them."""
    model, variables, image, tokens = made("cross", word_dropout=0.999)
    image, rows = np.repeat(image[:1], 64, axis=0), np.tile(tokens, (32, 1))

    def written(model, tokens, deterministic=False):
        keys = {"dropout": jax.random.key(3)}
        return np.asarray(
            model.apply(variables, image, tokens, deterministic=deterministic, rngs=keys).logits
        )

    other = np.where(rows == 3, 4, 3)
    alike = np.isclose(written(model, rows), written(model, other), atol=1e-5).all(axis=(1, 2))
    assert alike.mean() > 0.9
    known = written(made("cross")[0], rows, deterministic=True)
    np.testing.assert_array_equal(written(model, rows, deterministic=True), known)
    half = written(model.clone(word_dropout=0.5), rows)[:, 0]  # the first place sees itself alone
    assert 16 < np.isclose(half, known[:, 0], atol=1e-5).all(axis=-1).sum() < 48


def test_in_front_of_the_text_places_of_the_picture_see_each_other():
    """The hidden state of each place of the picture depends on all of them, and on no word."""
    model, variables, image, tokens = made("prefix")
    bound = model.bind(variables)
    context = jax.jit(bound.encode)(image[:1])
    count = context.shape[1]

    @jax.jit
    def found(context, tokens):
        _, state = model.apply(
            variables, tokens, context, method="decode", capture_intermediates=True, mutable=["intermediates"]
        )
        return state["intermediates"]["decoder"]["block_0"]["__call__"][0][0][0, :count]

    jacobian = jax.jit(jax.jacrev(found))(context, tokens[:1])  # [S, D, 1, S, D]
    assert (np.abs(np.asarray(jacobian)).max(axis=(1, 2, 4)) > 0).all()
    np.testing.assert_array_equal(found(context, tokens[:1]), found(context, tokens[1:]))


@pytest.mark.parametrize(("reads", "backbone"), [*itertools.product(READS, ["cnn"]), ("prefix", "vit")])
def test_cached_decoding_is_teacher_forcing(reads, backbone):
    """With prompts of 1 and 3 tokens, padded in front."""
    model, variables, image, tokens = made(reads, **({"backbone": VIT} if backbone == "vit" else {}))
    expected = teacher_forced(model, variables, image, tokens)
    prompts, mask = np.zeros((ROWS, 3), np.int32), np.ones((ROWS, 3), bool)
    prompts[0], prompts[1, 2], mask[1, :2] = tokens[0, :3], tokens[1, 0], False
    state, logits = jax.jit(read_pictures, static_argnums=(0, 5))(model, variables, image, prompts, mask, 2)
    np.testing.assert_allclose(logits[0], expected[0, 2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[1], expected[1, 0], rtol=1e-4, atol=1e-4)
    step = jax.jit(next_target, static_argnums=0)
    for n in range(2):
        logits, state = step(model, variables, state, np.array([tokens[0, 3 + n], tokens[1, 1 + n]]))
        np.testing.assert_allclose(logits[0], expected[0, 3 + n], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(logits[1], expected[1, 1 + n], rtol=1e-4, atol=1e-4)


LOOKING = [("cross", {}), ("prefix", {}), ("prefix", {"scan": True}), ("coca", {}), ("cross", {"prefix": 2})]


def looking(name, changes, query):
    """Where each word looks if all queries are `query` [D], keys are what is seen itself, and blocks change nothing."""
    model, variables, image, tokens = made(name, num_heads=1, **changes)
    flat = flatten_dict(variables)
    for path, leaf in flat.items():
        if "backbone" in path:
            continue
        if path[-2:] == ("key", "kernel"):
            flat[path] = np.broadcast_to(np.eye(16, dtype=np.float32)[:, None], leaf.shape)
        elif path[-2:] == ("query", "bias"):
            flat[path] = np.broadcast_to(query[None], leaf.shape)
        elif "norm" in path[-2]:
            flat[path] = np.full(leaf.shape, path[-1] == "scale", np.float32)
        elif path[-2] in ("query", "key", "out", "down", "image_projection") or path[-1].startswith(
            "prefix_"
        ):
            flat[path] = np.zeros_like(leaf)
    look = partial(model.apply, method="looking", mutable=["attention_maps"])
    return np.asarray(jax.jit(look)(unflatten_dict(flat), image, tokens)[0])


@pytest.mark.parametrize(("name", "changes"), LOOKING)
def test_where_a_word_looks_is_where_its_query_is_the_key(name, changes):
    row, column = 1, 6
    place = np.asarray(sincos2d(SIDE, SIDE, 16)).reshape(SIDE, SIDE, 16)[row, column]
    found = looking(name, changes, (place - place.mean()) / place.std())
    assert found.shape == (ROWS, TOKENS, SIDE, SIDE)
    assert (found.reshape(ROWS * TOKENS, -1).argmax(axis=1) == row * SIDE + column).all()
    assert (found.sum(axis=(2, 3)) <= 1 + 1e-5).all()


@pytest.mark.parametrize(
    ("name", "changes"), [*LOOKING, ("cross", {"backbone": VIT}), ("prefix", {"backbone": VIT})]
)
def test_a_word_without_a_query_looks_everywhere_alike(name, changes):
    """At all that it sees: places, a class token, words up to itself, learned keys."""
    found = looking(name, changes, np.zeros(16))
    seen = found.shape[2] * found.shape[3] + ("backbone" in changes) + changes.get("prefix", 0)
    counts = seen + (name == "prefix") * np.arange(1, TOKENS + 1)
    np.testing.assert_allclose(
        found, np.broadcast_to(1 / counts[None, :, None, None], found.shape), rtol=1e-4
    )


@pytest.mark.parametrize("reads", [*READS, "coca"])
def test_layers_that_are_scanned_over_compute_the_same(reads):
    model, variables, image, tokens = made(reads, scan=True)
    plain, plain_variables = unrolled(model, variables)
    assert not plain.scan
    assert "block_0" in plain_variables["params"]["decoder"]
    found = teacher_forced(model, variables, image, tokens)
    np.testing.assert_allclose(
        found, teacher_forced(plain, plain_variables, image, tokens), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["vit", "coatnet", "swin", "mlp_mixer"])
def test_any_backbone(name):
    """Of Transformers the tokens, of CNNs the last map, row by row."""
    backbone = {"name": name, **TINY[name], **BESIDE.get(name, {}), "num_classes": 0}
    model = tiny_model("captioner", backbone=backbone)
    side = model.image_size or 32
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    init = lambda image: model.init_with_output(jax.random.key(0), image, jnp.zeros((2, 4), int))  # noqa: E731
    assert jax.eval_shape(init, image)[0].logits.shape == (2, 4, model.vocab_size)


@pytest.mark.slow
@pytest.mark.parametrize("reads", READS)
def test_beam_search_is_the_best_of_all_texts(reads):
    """As many beams as there are texts: what is found is what brute force finds by teacher forcing."""
    words, longest, alpha = 4, 3, 0.6  # tokens 0 to 3, of which EOS ends
    model, variables, _, _ = made(reads, seed=3, vocab_size=words, context_length=longest)
    task = Captioning(beams=64, length_penalty=alpha, eos_id=EOS)
    pixels = np.random.default_rng(1).integers(0, 256, (ROWS, SIDE, SIDE, 3), dtype=np.uint8)
    batch = {
        "image": pixels,
        "tokens": np.full((ROWS, 1), BOS, np.int32),
        "token_mask": np.ones((ROWS, 1), bool),
    }
    found = np.asarray(jax.jit(lambda batch: task.predict(model, variables, batch))(batch)["written"])

    texts = [ids for n in range(1, longest + 1) for ids in itertools.product(range(words), repeat=n)]
    texts = [ids for ids in texts if EOS not in ids[:-1] and (len(ids) == longest or ids[-1] == EOS)]
    rows = np.array([[BOS, *ids, *[0] * (longest - len(ids))][:longest] for ids in texts], np.int32)
    seen = task.normalised(batch)["image"]
    for row in range(ROWS):
        images = np.broadcast_to(seen[row], (len(texts), SIDE, SIDE, 3))
        chances = jax.nn.log_softmax(
            teacher_forced(model, variables, images, rows).astype(np.float64), axis=-1
        )
        scores = [
            sum(chances[i, n, token] for n, token in enumerate(ids)) / ((5 + len(ids)) / 6) ** alpha
            for i, ids in enumerate(texts)
        ]
        best = texts[int(np.argmax(scores))]
        assert found[row][found[row] >= 0].tolist() == list(best)
    greedy = replace(task, beams=1)
    one = np.asarray(greedy.predict(model, variables, batch)["written"])[0]
    assert one[0] == int(teacher_forced(model, variables, seen[:1], rows[:1])[0, 0].argmax())
