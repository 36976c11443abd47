"""DETR sees no padding; anchors look around their boxes; denoising tells queries nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.tiny_detector import CLASSES, anchored, batch_of, detector, objects, variables_of

from jaxformer.config.schema import load
from jaxformer.models.denoising import noised, seen_by
from jaxformer.models.detr_decoder import BoxPrior, Memory, logit, spread_anchors
from jaxformer.models.positions import box_positions, inside, map_positions, sincos2d
from jaxformer.optim import OPTIMIZERS
from jaxformer.optim.masks import decay_mask
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.rules import param_specs

BATCH = batch_of([2, 3])
IMAGE = BATCH["image"].astype(np.float32) / 255
KINDS = {"learned": detector, "anchors": anchored}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(
    "levels",
    [pytest.param((0,), id="one level"), pytest.param((0, 1), id="two levels", marks=pytest.mark.slow)],
)
def test_padding_changes_nothing(kind, levels):
    model = KINDS[kind](levels=levels)
    variables = variables_of(model, BATCH)
    extent = np.full((2, 2), 32, np.int32)
    padded = np.pad(IMAGE, [(0, 0), (0, 16), (0, 32), (0, 0)], constant_values=3.0)
    apply = jax.jit(model.apply)
    alone, framed = apply(variables, IMAGE), apply(variables, padded, extent)
    assert alone.logits.shape == (2, 2, 5, CLASSES + model.no_object)
    assert np.abs(np.asarray(alone.logits)).max() > 0.1
    for name in ("logits", "boxes"):
        np.testing.assert_allclose(getattr(framed, name), getattr(alone, name), rtol=1e-4, atol=1e-5)
    whole = apply(variables, padded, np.array([padded.shape[1:3]] * 2, np.int32))
    assert np.abs(np.asarray(whole.boxes) - np.asarray(alone.boxes)).max() > 1e-3


def test_rows_and_columns_are_counted_without_padding():
    rows, columns = inside(jnp.array([[40, 33], [25, 56]]), (40, 56), (5, 7))
    assert np.asarray(rows).sum(1).tolist() == [5, 4]  # rows begin at the pixels 0, 8, 16, 24, 32
    assert np.asarray(columns).sum(1).tolist() == [5, 7]
    # Rows are counted from 1, and the last is a full turn (Carion et al. 2020, appendix A.4).
    found = np.asarray(map_positions(rows, columns, 8)).reshape(2, 5, 7, 8)
    for row in range(4):
        turn = 2 * np.pi * (row + 1) / 4
        expected = [np.sin(turn), np.cos(turn), np.sin(turn / 100), np.cos(turn / 100)]
        np.testing.assert_allclose(found[1, row, 3, :4], expected, atol=1e-5)
    np.testing.assert_allclose(found[1, 0, 6, 4:6], [np.sin(2 * np.pi), np.cos(2 * np.pi)], atol=1e-5)


def test_a_box_has_a_quarter_of_the_features_for_each_number():
    first, second = (box_positions(jnp.array([[[0.2, 0.4, 0.6, x]]]), 16)[0, 0] for x in (0.1, 0.9))
    np.testing.assert_array_equal(first[:12], second[:12])
    assert np.abs(np.asarray(first[12:] - second[12:])).max() > 0.1
    assert sincos2d(1, 1, 16).shape[-1] == first.shape[-1]


def test_anchors_are_spread_over_the_picture():
    for count in (7, 60, 100):
        anchors = spread_anchors(count)
        assert ((anchors[:, :2] > 0) & (anchors[:, :2] < 1)).all()
        far = np.linalg.norm(anchors[:, None, :2] - anchors[None, :, :2], axis=-1) + 9 * np.eye(count)
        assert far.min() > 0.4 / np.sqrt(count)
    np.testing.assert_allclose(jax.nn.sigmoid(logit(jnp.asarray(anchors))), anchors, atol=1e-6)


def test_cross_attention_is_drawn_to_the_box():
    height, width = 6, 8
    y, x = np.mgrid[:height, :width]
    places = np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=-1).reshape(1, -1, 2)
    cells = np.broadcast_to(np.array([1 / width, 1 / height]), places.shape)
    nothing = jnp.zeros((1, 48, 4))
    memory = Memory(nothing, nothing, nothing[..., 0] == 0, jnp.asarray(places), jnp.asarray(cells))
    boxes = jnp.array([[[0.69, 0.25, 0.1, 0.1], [0.2, 0.7, 0.3, 0.2]]])
    prior = BoxPrior(num_heads=4)
    bias, _ = prior.init_with_output(jax.random.key(0), jnp.ones((1, 2, 4)), boxes, memory)
    assert bias.shape == (1, 4, 2, 48)
    for query, box in enumerate(np.asarray(boxes)[0]):
        nearest = places[0, np.asarray(bias)[0, :, query].argmax(-1)]  # [heads, 2]
        limits = box[2:] / 4 + cells[0, 0] / 2  # heads look half-way to the edges, at whole tokens
        assert (np.abs(nearest - box[:2]) <= limits + 1e-6).all()
    low, high = (np.asarray(bias)[0, :, query].min(-1) for query in (1, 0))
    assert (high < low).all()  # the smaller box is the sharper


def test_noise_is_small_near_an_object_and_large_far_off():
    boxes, labels = objects(np.random.default_rng(0), [40, 25], 40)
    found = noised(jax.random.key(0), boxes, labels, CLASSES, groups=3, box_noise=0.5, label_noise=0.4)
    shape = (2, 3, 2, 40)
    assert np.asarray(found.group).reshape(shape[1:])[:, 0, 0].tolist() == [0, 1, 2]
    noisy = np.asarray(found.boxes).reshape(*shape, 4)
    corners = [
        np.concatenate([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1) for b in (noisy, boxes)
    ]
    half = np.concatenate([boxes[..., 2:], boxes[..., 2:]], -1) / 2
    there = labels >= 0
    inner = there & ((corners[1] > 0.25) & (corners[1] < 0.75)).all(-1)  # nothing is cut off there
    moved = np.abs(corners[0] - corners[1][:, None, None])
    share = moved / np.maximum(half, 1e-6)[:, None, None]
    near, far = (share[:, :, kind].transpose(0, 2, 1, 3)[inner] for kind in (0, 1))
    assert near.max() <= 0.5 + 1e-4
    assert near.mean() == pytest.approx(0.25, abs=0.05)
    assert far.max() <= 1 + 1e-4
    drawn = np.asarray(found.labels).reshape(shape)
    assert (drawn[:, :, :, ~there[1]][1] == -1).all()
    wrong = (drawn != labels[:, None, None])[:, :, :, :25].mean()
    assert wrong == pytest.approx(0.4 * (1 - 1 / CLASSES), abs=0.08)


def test_noised_objects_see_their_group_and_the_queries_see_none():
    _, labels = objects(np.random.default_rng(0), [2, 1], 2)
    noise = noised(jax.random.key(0), np.zeros((2, 2, 4), np.float32), labels, CLASSES, 2, 1.0, 0.25)
    seen = np.asarray(seen_by(noise, queries=3))[:, 0]
    assert seen.shape == (2, 11, 11)
    assert not seen[:, 8:, :8].any()  # by queries
    assert not seen[:, :4, 4:8].any()  # by the other group
    assert not seen[:, 4:8, :4].any()
    assert seen[0, :4, :4].all()
    assert seen[:, :, 8:].all()
    assert seen[1, 0, :4].tolist() == [True, False, True, False]  # the second picture has one object


def test_denoising_tells_queries_nothing():
    model = anchored(denoising=2)
    variables = variables_of(model, BATCH)

    @jax.jit
    def train(boxes, labels):
        return model.apply(
            variables, IMAGE, None, boxes, labels, deterministic=False, rngs={"dropout": jax.random.key(0)}
        )

    outputs = train(BATCH["boxes"], BATCH["labels"])
    plain = jax.jit(model.apply)(variables, IMAGE)
    assert plain.denoised is None
    assert outputs.denoised.logits.shape == (2, 2, 2, 2, 4, CLASSES)
    assert outputs.denoised.boxes.shape == (2, 2, 2, 2, 4, 4)
    for name in ("logits", "boxes"):
        np.testing.assert_allclose(getattr(outputs, name), getattr(plain, name), rtol=1e-4, atol=1e-5)
    # What is no object changes nothing of the noised ones either.
    other = np.where(BATCH["labels"][..., None] < 0, np.float32(0.5), BATCH["boxes"])
    again = train(other, BATCH["labels"])
    there = BATCH["labels"] >= 0
    for ours, theirs in (
        (outputs.denoised.logits, again.denoised.logits),
        (outputs.denoised.boxes, again.denoised.boxes),
    ):
        seen = [np.moveaxis(np.asarray(x), 4, 2)[:, there] for x in (ours, theirs)]
        np.testing.assert_allclose(*seen, rtol=1e-4, atol=1e-5)


def test_the_decoders_attention_can_be_looked_at():
    model = anchored()
    look = jax.jit(partial(model.apply, mutable=["attention_maps"]))
    _, maps = look(variables_of(model, BATCH), IMAGE)
    shapes = {path[:-1]: leaf.shape for path, leaf in flatten_dict(maps["attention_maps"]).items()}
    assert shapes["decoder", "block_1", "cross_attention"] == (2, 2, 5, 16)
    assert shapes["decoder", "block_0", "attention"] == (2, 2, 5, 5)
    assert shapes["encoder", "block_0", "attention"] == (2, 2, 16, 16)


def test_every_parameter_has_a_rule_and_queries_do_not_decay():
    for model in (detector(levels=(0, 1)), anchored(denoising=1)):
        params = jax.eval_shape(model.init, jax.random.key(0), IMAGE)["params"]
        param_specs(params, make_mesh({"data": 1, "fsdp": 2, "tensor": 2}, jax.devices()[:4]))
        mask = decay_mask(load(OPTIMIZERS["adamw"])(learning_rate=1.0), params)
        decays = {"/".join(path) for path, taken in flatten_dict(mask).items() if taken}
        assert {path.rpartition("/")[2] for path in decays} == {"kernel"}


def test_a_model_without_an_encoder_looks_at_the_maps():
    model = anchored(encoder_depth=0)
    variables = variables_of(model, BATCH)
    assert "encoder" not in variables["params"]
    assert np.isfinite(np.asarray(jax.jit(model.apply)(variables, IMAGE).boxes)).all()
