"""Explanations of images: which there are of which model, what they show, and what is refused."""

import json
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.inside import CLASSES, MODELS, SIZE, look_inside, picture, random_variables, resnet
from PIL import Image

from jaxformer.drawing import MARGIN, ROW, shorten
from jaxformer.errors import UserError
from jaxformer.inference.explain import PREDICTED, Explainer, class_score, explain_files, explainable
from jaxformer.inference.explain_drawings import of_image, over_image, rollout_of
from jaxformer.inference.grad_cam import find_target, with_activation
from jaxformer.models.attention import Attention
from jaxformer.models.base import ImageModel
from jaxformer.models.outputs import ImageOutputs, SegmentationOutputs
from jaxformer.models.segmentation_decoders import MaskTransformer
from jaxformer.models.segmenter import Segmenter
from jaxformer.models.vit import ViT
from jaxformer.paths import leaves_by_path
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.detection import Detection
from jaxformer.tasks.segmentation import Segmentation

NAMES = ["ant", "bee", "cat", "dog", "emu"]
TASKS = {"detr": Detection(score_threshold=0.0), "segmenter": Segmentation()}
IMAGE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def trained(name, model=None):
    """What `Explainer` needs of a trained model."""
    model = model or MODELS[name]
    replicated = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    experiment = SimpleNamespace(
        bare_model=model,
        eval_data=SimpleNamespace(element_spec={"image": (IMAGE.shape, np.uint8)}),
    )
    return SimpleNamespace(
        experiment=experiment,
        model=model,
        task=TASKS.get(name, Classification()),
        layout=SimpleNamespace(replicated=replicated),
        variables=jax.tree.map(jnp.asarray, random_variables(model, picture())),
        class_names=NAMES,
        run=SimpleNamespace(folder=Path("runs/tiny")),
        example=lambda path: {"image": np.asarray(Image.open(path))},
    )


@cache
def explainer(name):
    return Explainer(trained(name))


EXPECTED = {
    "registers": ["rollout", "heads", "grad-cam"],
    "scanned": ["rollout", "heads", "grad-cam"],
    "cct": ["rollout", "heads-encoder", "heads-pool", "grad-cam"],
    "cvt": ["heads-stage_1", "heads-stage_2", "grad-cam"],
    "swin": ["heads-stage_1", "heads-stage_2", "grad-cam"],
    "botnet": ["heads-stage_1", "heads-stage_2", "grad-cam"],
    "resnet": ["grad-cam"],
    "segmenter": [
        *["rollout-backbone-encoder", "heads-backbone-encoder"],
        *["rollout-decoder-encoder", "heads-decoder-encoder", "grad-cam"],
    ],
    "detr": ["rollout", "heads-encoder", "heads-decoder", *[f"object-{i}" for i in range(1, 8)]],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_drawings_of_all_families(name):
    example = {"image": IMAGE} | ({"extent": np.array([24, 32])} if name == "detr" else {})
    made = list(explainer(name).drawings(example))
    assert [drawn.name for drawn in made] == EXPECTED[name]
    for drawn in made:
        assert drawn.shows
        assert drawn.image.mode == "RGB"
        if "heads" not in drawn.name:  # over the image, without its padding, and a line below
            assert drawn.image.height == (240 if name == "detr" else 320) + ROW
            assert drawn.image.width >= 320
        assert shorten(drawn.shows, drawn.image.width - 2 * MARGIN) == drawn.shows  # nothing is cut
        if drawn.name == "grad-cam":
            assert drawn.shows.removeprefix("Grad-CAM of ") in NAMES


@pytest.mark.parametrize("name", ["vit", "cct", "pooled", "coatnet", "detr"])
def test_what_is_drawn_on_adds_up_to_one(name):
    """Rows of a rollout sum to 1, and so does what the head draws on, but for what class tokens keep."""
    _, run, _, layers = look_inside(MODELS[name], picture())
    weights = leaves_by_path(jax.jit(run)()[1]["attention_maps"])
    weights = {path: np.asarray(leaf) for path, leaf in weights.items()}
    members = [layer for layer in layers if layer.against_rollout is None]
    seen, whose = rollout_of(members, layers, weights)
    assert seen.shape == members[0].grid
    assert seen.min() >= 0
    assert whose == {"vit": "the class token", "coatnet": "all places", "detr": "all places"}.get(
        name, "the pooling"
    )
    if name == "vit":
        assert 0 < seen.sum() < 1
    else:
        np.testing.assert_allclose(seen.sum(), 1, rtol=1e-5)


def test_the_pooling_weighs_the_rollout():
    """A pool that takes one place alone, over layers that look at themselves alone, shows that place."""
    layers = look_inside(MODELS["cct"], picture())[3]
    alone = np.broadcast_to(np.eye(64), (1, 2, 64, 64))
    weights = {layer.path: alone for layer in layers} | {"pool": np.eye(64)[None, None, 10:11]}
    seen, _ = rollout_of(layers[:2], layers, weights)
    np.testing.assert_allclose(seen.reshape(-1), np.eye(64)[10])


def test_grad_cam_of_a_mean_is_the_class_activation_map():
    """Where the head sees the mean of all tokens, gradients are the head's kernel (Selvaraju et al., section 3.1)."""
    model, _, calls, _ = look_inside(MODELS["mixer"], picture())
    params = random_variables(model, picture())["params"]

    def run():
        return model.apply({"params": params}, picture())

    outputs, found = jax.jit(
        lambda: with_activation(find_target(model, calls), run, lambda outputs: outputs.logits[0, 2])
    )()
    expected = np.maximum(outputs.tokens[0] @ params["head"]["kernel"][:, 2] / 16, 0).reshape(4, 4)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def scores(logits, *chosen, extent=(8, 8)):
    outputs = (
        SegmentationOutputs if np.ndim(logits) == 4 else partial(ImageOutputs, features=None, tokens=None)
    )
    outputs, extent = outputs(logits=jnp.asarray(logits)), jnp.asarray(extent)
    return [tuple(map(float, class_score(outputs, jnp.int32(index), extent, (8, 8)))) for index in chosen]


def test_the_class_that_is_chosen():
    assert scores([[1.0, 3.0, 2.0]], PREDICTED, 0, 2) == [(3, 1, True), (1, 0, True), (2, 2, True)]


def test_of_a_segmentation_it_is_where_the_class_is_said():
    logits = [[[[5.0, 1, 0], [4, 2, 0]], [[0, 3, 1], [7, 1, 1]]]]
    assert scores(logits, PREDICTED, 1) == [(5 + 4 + 7, 0, True), (3, 1, True)]
    assert scores(logits, 2) == [(2, 2, False)]  # nowhere said: of all
    assert scores(logits, PREDICTED, 1, extent=(4, 8)) == [(9, 0, True), (3, 1, False)]  # the upper row alone


def test_padding_does_not_ask():
    layers = look_inside(MODELS["detr"], picture())[3]
    asking = of_image(layers[0], (SIZE, SIZE), (SIZE, 20)).reshape(16, 16)  # 10 of 16 columns
    assert (asking[:, :10] > 0).all()
    assert not asking[:, 10:].any()


def test_a_map_over_an_image_lies_where_it_is():
    seen = np.zeros((4, 4))
    seen[1, 2] = 1
    drawn = np.asarray(over_image(np.full((32, 32, 1), 90, np.uint8), seen, "said", (32, 24)))
    assert drawn.shape == (320 + 24, 240, 3)
    bright = drawn[:-24].sum(axis=-1)
    row, column = np.unravel_index(bright.argmax(), bright.shape)
    assert (row // 80, column // 80) == (1, 2)


def test_files_and_their_list(tmp_path):
    paths = []
    for name in ("a/one.png", "b/one.png"):
        paths.append(tmp_path / name)
        paths[-1].parent.mkdir()
        Image.fromarray(IMAGE).save(paths[-1])
    explanations = explain_files(explainer("resnet"), paths, tmp_path / "out")
    assert [e["file"] for e in explanations] == [str(path) for path in paths]
    lines = (tmp_path / "out" / "explanations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == explanations
    listed = {tmp_path / "out" / p["image"] for e in explanations for p in e["images"]}
    assert listed == set((tmp_path / "out").rglob("*.png"))
    assert {p.parent.name for p in listed} == {"one", "one-2"}
    with pytest.raises(UserError, match="would be overwritten"):
        explain_files(explainer("resnet"), [paths[0], tmp_path / "out/one/grad-cam.png"], tmp_path / "out")


def test_models_without_rollout_say_so(tmp_path, caplog):
    Image.fromarray(IMAGE).save(tmp_path / "one.png")
    with caplog.at_level("INFO", logger="jaxformer"):
        explain_files(explainer("swin"), [tmp_path / "one.png"], tmp_path / "out")
    assert "no rollout of stage_1, stage_2: its attention stays in windows" in caplog.messages


@pytest.mark.parametrize(
    ("model", "chosen", "message"),
    [
        (
            "resnet",
            "crab",
            "class_name=crab: there is no such class; expected one of ant, bee, cat, dog, emu$",
        ),
        ("resnet", "ants", "class_name=ants: there is no such class; do you mean ant?"),
        ("resnet", "5", "class_name=5: there is no such class"),
        ("detr", "ant", "class_name: this model has no map of a class's evidence"),
    ],
)
def test_classes_that_cannot_be(model, chosen, message):
    with pytest.raises(UserError, match=message):
        Explainer(trained(model), chosen)


@pytest.mark.parametrize(("chosen", "index"), [("cat", 2), ("\u200bcat ", 2), ("4", 4)])
def test_classes_by_name_and_number(chosen, index):
    assert Explainer(trained("resnet"), chosen).chosen == index < CLASSES


def test_a_backbone_without_classes_shows_its_attention_alone():
    alone = trained("backbone", MODELS["vit"].clone(num_classes=0))
    assert [drawn.name for drawn in Explainer(alone).drawings({"image": IMAGE})] == ["rollout", "heads"]
    with pytest.raises(UserError, match="class_name: this model has no map of a class's evidence"):
        Explainer(alone, "cat")


def test_a_model_without_anything_to_show():
    with pytest.raises(UserError, match=r"there is nothing to show of runs/tiny: its model \(ResNet\)"):
        Explainer(trained("stem", resnet(stage_sizes=())))


class Own(ImageModel):
    """A user's own: what its parts are called, and whether it gives feature maps, decides what is shown."""

    block: str = "block_0"
    norm: str = "norm"
    tokens: bool = False
    attention: bool = False
    gives_maps: bool = True

    @nn.compact
    def __call__(self, image, deterministic=True):
        x = nn.Conv(16, (4, 4), strides=4, name=self.block)(image)
        maps = x
        if self.tokens:
            x = nn.Dense(16, name="block_1")(x.reshape(len(x), -1, 16))
            x = nn.LayerNorm(name=self.norm)(x)
        if self.attention:
            x = Attention(num_heads=2, name="attention")(x.reshape(len(x), -1, 16))[0]
        pooled = x.reshape(len(x), -1, 16).mean(1)
        logits = nn.Dense(self.num_classes)(pooled)
        return ImageOutputs(logits, pooled, x, maps=(maps,) if self.gives_maps else ())


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["grad-cam"]),
        ({"tokens": True}, ["grad-cam"]),
        ({"tokens": True, "norm": "last"}, []),
        ({"tokens": True, "gives_maps": False}, []),
        ({"block": "convolution"}, []),
        ({"block": "convolution", "attention": True}, ["rollout", "heads"]),
    ],
)
def test_a_model_of_a_users_own_is_explained_by_the_names_of_its_parts(fields, names):
    own = trained("own", Own(num_classes=len(NAMES), **fields))
    if names:
        assert [drawn.name for drawn in Explainer(own).drawings({"image": IMAGE})] == names
    else:
        with pytest.raises(UserError, match=r"its model \(Own\) has neither .*\n.*docs/adding\.md, A model"):
            Explainer(own)


def test_drawings_of_earlier_explanations_are_removed(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(IMAGE).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    one = trained("resnet")
    one.example = lambda path: {"image": IMAGE}
    explained = Explainer(one)
    explain_files(explained, [tmp_path / "a.png"], out)
    Image.fromarray(IMAGE).save(out / "a" / "mine.png")
    explain_files(explained, [tmp_path / "b.png"], out)
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert there == {"explanations.jsonl", "a/mine.png", "b/grad-cam.png"}
    explain_files(explained, [out / "b" / "grad-cam.png", tmp_path / "a.png"], out)
    assert (out / "b" / "grad-cam.png").is_file()  # it was given


def test_explanations_are_there_together_or_not_at_all(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(IMAGE).save(tmp_path / f"{name}.png")
    out, one = tmp_path / "new" / "out", trained("resnet")
    one.example = lambda path: {"image": IMAGE} if path.stem == "a" else 1 / 0
    explained = Explainer(one)
    with pytest.raises(ZeroDivisionError):
        explain_files(explained, [tmp_path / "a.png", tmp_path / "b.png"], out)
    assert not (tmp_path / "new").exists()
    explain_files(explained, [tmp_path / "a.png"], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ZeroDivisionError):
        explain_files(explained, [tmp_path / "a.png", tmp_path / "b.png"], out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_windows_over_an_image():
    segmenter = partial(Segmenter, decoder=MaskTransformer(width=16, depth=1, num_heads=2), num_classes=3)
    of_any_size = segmenter(resnet(num_classes=0), window=(16, 16), stride=(8, 8))
    assert explainable(of_any_size, 32, 32).window is None
    of_one = segmenter(ViT(image_size=16, patch_size=8, num_classes=0), window=(16, 16))
    assert explainable(of_one, 16, 16).window is None
    with pytest.raises(UserError, match="sees images of 32x32 through windows of 16"):
        explainable(of_one, 32, 32)
