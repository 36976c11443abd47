"""Test-time augmentation: means of probabilities, by hand; the same on any devices; nothing where nothing changes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxformer.errors import UserError
from jaxformer.evaluation.views import VIEWS, ManyViews, many_views, view_places
from jaxformer.models.outputs import ImageOutputs, SegmentationOutputs
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.step import make_eval_step
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.language import CausalLM
from jaxformer.tasks.segmentation import Segmentation
from jaxformer.verbs.measuring import Evaluate
from jaxformer.verbs.options import parse

HEIGHT, WIDTH, CLASSES = 16, 24, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, HEIGHT, WIDTH, 3)).astype(np.float32)
WEIGHTS = RNG.normal(size=(HEIGHT * WIDTH * 3, CLASSES)).astype(np.float32) / 10


class Linear:
    """Logits that are sums of pixels, each with a weight of its own: it sees where everything is."""

    def __init__(self):
        self.calls = 0

    def apply(self, variables, image, deterministic):
        assert deterministic
        self.calls += 1
        logits = image.reshape(len(image), -1) @ variables["weights"]
        return ImageOutputs(logits, features=logits, tokens=image)


class Pixels:
    """Logits of each pixel, of its colours and its place."""

    def apply(self, variables, image, deterministic):
        return SegmentationOutputs(
            image * variables["weights"].reshape(HEIGHT, WIDTH, 3, CLASSES)[..., 0][None]
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(np.asarray(logits, np.float64)), -1).numpy()


def enlarged(part: np.ndarray) -> np.ndarray:
    """[B, h, w, C] -> [B, H, W, C], by torch."""
    x = torch.from_numpy(part.transpose(0, 3, 1, 2).copy())
    x = torch.nn.functional.interpolate(x, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return x.numpy().transpose(0, 2, 3, 1)


def seen(views: str) -> list[np.ndarray]:
    """The views of the images: torchvision's FiveCrop is four corners and the middle."""
    if views == "flip":
        return [IMAGES, IMAGES[:, :, ::-1]]
    h, w = 14, 21  # 7/8
    crops = [
        enlarged(IMAGES[:, top : top + h, left : left + w])
        for top, left in [(0, 0), (0, 3), (2, 0), (2, 3), (1, 1)]
    ]
    return crops if views == "five_crop" else crops + [crop[:, :, ::-1] for crop in crops]


def probabilities(views: str, **fields) -> np.ndarray:
    outputs = ManyViews(Linear(), views, **fields).apply({"weights": WEIGHTS}, IMAGES, deterministic=True)
    return np.asarray(Classification(loss_name="sigmoid" if fields else "softmax").probabilities(outputs))


@pytest.mark.parametrize("views", VIEWS)
def test_probabilities_are_means_over_the_views(views):
    expected = [softmax(view.reshape(8, -1) @ WEIGHTS) for view in seen(views)]
    assert len(expected) == {"flip": 2, "five_crop": 5, "ten_crop": 10}[views]
    assert np.ptp(expected, axis=0).max() > 0.1  # the views differ
    np.testing.assert_allclose(probabilities(views), np.mean(expected, axis=0), rtol=2e-4)


def test_classes_with_probabilities_of_their_own_are_averaged_too():
    expected = np.mean(
        [1 / (1 + np.exp(-view.reshape(8, -1) @ WEIGHTS)) for view in seen("ten_crop")], axis=0
    )
    assert abs(expected.sum(-1) - 1).max() > 0.1
    np.testing.assert_allclose(probabilities("ten_crop", sigmoid=True), expected, rtol=2e-4)


def test_sure_logits_stay_finite():
    outputs = ManyViews(Linear(), "flip").apply({"weights": WEIGHTS * 1e4}, IMAGES)
    assert np.isfinite(outputs.logits).all()


def test_what_is_symmetric_is_seen_as_before():
    model, variables = Linear(), {"weights": WEIGHTS}
    symmetric = (IMAGES + IMAGES[:, :, ::-1]) / 2
    plain = model.apply(variables, symmetric, True).logits
    twice = ManyViews(model, "flip").apply(variables, symmetric).logits
    np.testing.assert_allclose(softmax(twice), softmax(plain), rtol=1e-4)
    table = WEIGHTS.reshape(HEIGHT, WIDTH, 3, CLASSES)
    variables = {"weights": ((table + table[:, ::-1]) / 2).reshape(-1, CLASSES)}  # a symmetric model
    plain = model.apply(variables, IMAGES, True).logits
    np.testing.assert_allclose(
        softmax(ManyViews(model, "flip").apply(variables, IMAGES).logits), softmax(plain), rtol=1e-4
    )


def test_pixels_of_mirror_images_are_mirrored_back():
    variables = {"weights": WEIGHTS * 50}
    plain, mirrored = (
        softmax(Pixels().apply(variables, image, True).logits) for image in (IMAGES, IMAGES[:, :, ::-1])
    )
    outputs = ManyViews(Pixels(), "flip").apply(variables, IMAGES)
    np.testing.assert_allclose(
        softmax(outputs.logits), (plain + mirrored[:, :, ::-1]) / 2, rtol=2e-4, atol=1e-6
    )
    assert outputs.at((2 * HEIGHT, 2 * WIDTH)).shape == (8, 2 * HEIGHT, 2 * WIDTH, 3)


def test_the_views_lie_in_the_picture_and_the_model_is_compiled_once():
    for views in VIEWS:
        h, w, places = view_places(views, 33, 47)
        assert (places[:, 1:] >= 0).all()
        assert places[:, 1].max() + h == 33
        assert places[:, 2].max() + w == 47
        assert len(np.unique(places, axis=0)) == len(places)
    model = Linear()
    jax.make_jaxpr(lambda w: ManyViews(model, "ten_crop").apply({"weights": w}, IMAGES).logits)(WEIGHTS)
    assert model.calls == 2  # in the loop, and for the shapes of its outputs


@pytest.mark.parametrize(
    ("mode", "mesh"),
    [("jit", {"data": 8}), ("jit", {"data": 2, "fsdp": 2, "tensor": 2}), ("pmap", {"data": 8})],
)
def test_any_devices_find_the_same(mode, mesh):
    task = Classification()
    batch = {
        "image": np.random.default_rng(3).integers(0, 256, IMAGES.shape, np.uint8),
        "labels": np.arange(8, dtype=np.int32) % CLASSES,
        "example_mask": np.arange(8) != 2,
    }

    def sums(layout):
        model = many_views(Linear(), task, "ten_crop")
        step = layout.eval_step(make_eval_step(model, task, axis=layout.axis))
        return jax.device_get(step({"weights": jnp.asarray(WEIGHTS)}, layout.shard_batch(batch))[0])

    alone = sums(Layout("jit", make_mesh({"data": 1}, jax.devices()[:1])))
    assert alone["count"] == 7
    jax.tree.map(
        lambda one, all_: np.testing.assert_allclose(one, all_, rtol=1e-4, atol=1e-6),
        alone,
        sums(Layout(mode, make_mesh(mesh, jax.devices()))),
    )


def test_views_are_for_tasks_that_have_a_use_for_them():
    model = SimpleNamespace()
    assert many_views(model, Classification(loss_name="sigmoid"), "ten_crop").sigmoid
    assert not many_views(model, Segmentation(), "flip").sigmoid
    with pytest.raises(
        UserError, match="views='ten_crop': is not for the run's task, Segmentation; choose flip"
    ):
        many_views(model, Segmentation(), "ten_crop")
    with pytest.raises(UserError, match="views='flip': is not for the run's task, CausalLM; leave it out"):
        many_views(model, CausalLM(), "flip")


def test_the_command_line_knows_all_views():
    for views in VIEWS:
        assert parse("evaluate", Evaluate, ["run", "--tta", views]).views == views
    with pytest.raises(UserError, match="--tta: 'spin' is not a choice"):
        parse("evaluate", Evaluate, ["run", "--tta", "spin"])
