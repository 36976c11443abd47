"""CoCa: what its vectors see, and that decoding with a cache gives what the whole text gives at once."""

import jax
import numpy as np
import pytest
from helpers.tiny_tasks import COCA, EOS, VOCAB, images

from jaxformer.decoding.steps import next_target, read_pictures
from jaxformer.models.captioner import Captioner
from jaxformer.models.layouts import unrolled

ROWS, TOKENS = 2, 5


@pytest.fixture(scope="module")
def made():
    """Parameters with which tokens change one another a lot, images, and texts."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=images(rng, ROWS)["image"].shape).astype(np.float32)
    tokens = rng.integers(3, VOCAB, (ROWS, TOKENS)).astype(np.int32)
    shapes = jax.eval_shape(COCA.init, jax.random.key(0), image, tokens)
    variables = jax.tree.map(lambda s: (0.4 * rng.normal(size=s.shape)).astype(s.dtype), shapes)
    return variables, image, tokens


@pytest.fixture(scope="module")
def outputs(made):
    return jax.jit(COCA.apply)(*made)


def test_vectors_have_length_1_and_stand_in_rows(outputs):
    for vectors in (outputs.image, outputs.text):
        assert vectors.shape == (ROWS, COCA.embedding)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert outputs.logits.shape == (ROWS, TOKENS, VOCAB)
    assert all(len(array) == ROWS for array in jax.tree.leaves(outputs))


def test_vectors_are_those_of_each_tower_alone(made, outputs):
    variables, image, tokens = made
    np.testing.assert_allclose(
        COCA.apply(variables, image, method="image_features"), outputs.image, atol=1e-5
    )
    np.testing.assert_allclose(COCA.apply(variables, tokens, method="text_features"), outputs.text, atol=1e-5)
    swapped = jax.jit(COCA.apply)(variables, image[::-1], tokens)
    np.testing.assert_allclose(swapped.image, outputs.image[::-1], atol=1e-5)
    np.testing.assert_allclose(swapped.text, outputs.text, atol=1e-5)
    assert not np.allclose(swapped.logits, outputs.logits, atol=1e-2)


def test_a_text_is_one_vector_whatever_the_padding(made, outputs):
    variables, image, tokens = made
    mask = np.arange(TOKENS + 2) < np.full((ROWS, 1), TOKENS)
    padded = np.where(mask, np.pad(tokens, ((0, 0), (0, 2))), EOS)
    found = jax.jit(COCA.apply)(variables, image, padded, mask)
    np.testing.assert_allclose(found.text, outputs.text, atol=1e-5)
    np.testing.assert_allclose(found.logits[:, :TOKENS], outputs.logits, atol=1e-4)


def test_each_word_reaches_the_vector_and_no_word_sees_what_comes_behind_it(made, outputs):
    variables, image, tokens = made
    for place in range(TOKENS):
        changed = tokens.copy()
        changed[:, place] = np.where(tokens[:, place] == 3, 4, 3)
        found = jax.jit(COCA.apply)(variables, image, changed)
        assert (np.abs(found.text - outputs.text).max(1) > 1e-4).all()
        before = np.abs(found.logits - outputs.logits)[:, :place].max(initial=0)
        assert before < 1e-4 < np.abs(found.logits - outputs.logits)[:, place].max()


def test_it_is_a_captioner_with_pooled_pictures_and_blocks_before(made, outputs):
    """The parameters of a captioner, joined by hand: the same blocks in one stack, on the pooled picture."""
    variables, image, tokens = made
    params = variables["params"]
    blind = jax.tree.map(np.zeros_like, params["decoder"]["block_0"])
    merged = {"block_0": blind | params["unimodal"]["block_0"], "block_1": params["decoder"]["block_0"]}
    known = Captioner(
        **{name: getattr(COCA, name) for name in ("vocab_size", "width", "num_heads", "mlp_dim", "backbone")},
        context_length=COCA.context_length,
        depth=2,
        dropout=0.0,
    )
    context = COCA.apply(variables, image, method="encode")
    assert context.shape == (ROWS, COCA.queries, COCA.width)
    names = jax.eval_shape(known.init, jax.random.key(0), image, tokens)["params"]
    theirs = {"params": {name: params[name] for name in names} | {"decoder": merged}}
    expected = known.apply(theirs, tokens, context, method="decode").logits
    np.testing.assert_allclose(outputs.logits, expected, atol=1e-4)


def test_cached_decoding_is_teacher_forcing(made, outputs):
    """With prompts of 1 and 3 tokens, padded in front."""
    variables, image, tokens = made
    prompts, mask = np.zeros((ROWS, 3), np.int32), np.ones((ROWS, 3), bool)
    prompts[0], prompts[1, 2], mask[1, :2] = tokens[0, :3], tokens[1, 0], False
    model, variables = unrolled(COCA, variables)
    read = jax.jit(read_pictures, static_argnums=(0, 5))
    state, logits = read(model, variables, image, prompts, mask, 2)
    step = jax.jit(next_target, static_argnums=0)
    first = np.array([3, 1])
    for number in range(3):
        expected = outputs.logits[np.arange(ROWS), first - 1 + number]
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        if number < 2:
            logits, state = step(model, variables, state, tokens[np.arange(ROWS), first + number])
