"""What published models do to an image is done to the pixel, and written back."""

import json

import numpy as np
import pytest
from helpers.timm_reference import timm
from sklearn.datasets import load_sample_images

from jaxformer.config.schema import build
from jaxformer.data.config import TRANSFORM, TRANSFORMS
from jaxformer.errors import UserError
from jaxformer.weights.preprocessing import Preprocessing, from_timm, from_transformers, to_transformers

PICTURES = [image.copy() for image in load_sample_images().images]  # two photographs of 427 x 640
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# Of transformers: a class, its settings, and the kind of model.
PROCESSORS = {
    "vit": ("ViTImageProcessor", {}, "vit"),
    "deit": ("DeiTImageProcessor", {}, "deit"),
    "dinov2": (
        "BitImageProcessor",
        {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, **IMAGENET},
        "dinov2",
    ),
    "resnet": (
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
        "convnext",
    ),
    "convnext, whole": (
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 384}, "crop_pct": 1.0},
        "convnext",
    ),
    "clip": ("CLIPImageProcessor", {}, "clip"),
    "clip, larger": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        "clip",
    ),
    "segformer": ("SegformerImageProcessor", {}, "segformer"),
    "siglip": ("SiglipImageProcessor", {"size": {"height": 96, "width": 96}}, "siglip_vision_model"),
    "small": ("ViTImageProcessor", {"size": {"height": 500, "width": 700}, "resample": 3}, "vit"),
}


def seen(preprocessing, image):
    """What a model of ours sees, float32 [H, W, 3]."""
    example = {"image": image}
    for transform in preprocessing.transforms:
        example = build(TRANSFORMS, transform, "transform", TRANSFORM)(example, np.random.default_rng(0))
    mean, std = (np.asarray(x, np.float32)[None, None] for x in (preprocessing.mean, preprocessing.std))
    return (example["image"].astype(np.float32) / 255 - mean) / std


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_transformers(name, tmp_path):
    timm()  # transformers' image processors need torchvision to import
    transformers = pytest.importorskip("transformers")
    cls, settings, kind = PROCESSORS[name]
    processor = getattr(transformers, f"{cls}Pil")(**settings)
    processor.save_pretrained(tmp_path)
    found = from_transformers(json.loads((tmp_path / "preprocessor_config.json").read_text()), kind)
    step = 1 / 255 / min(found.std)
    for image in PICTURES:
        expected = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        ours = seen(found, image)
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() <= 1.01 * step
        assert np.abs(ours - expected).mean() < 0.1 * step


def test_what_is_written_is_read_again():
    for found in (
        Preprocessing(
            (224, 224), 256, corner="down", interpolation="bicubic", mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3)
        ),
        Preprocessing(
            (96, 128), None, corner="down", interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3
        ),
    ):
        assert from_transformers(to_transformers(found, "vit"), "vit") == found


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_pixels_are_those_of_timm(mode):
    timm()
    from PIL import Image
    from timm.data import create_transform

    config = {"input_size": [3, 160, 160], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
    config |= {"crop_mode": "squash", "crop_pct": 1.0} if mode == "squash" else {}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    transform = create_transform(
        (3, 160, 160),
        mean=mean,
        std=std,
        interpolation="bicubic",
        crop_pct=config["crop_pct"],
        crop_mode=mode,
    )
    for image in PICTURES:
        expected = transform(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        assert np.abs(seen(from_timm(config), image) - expected).max() <= 1e-5 + 1 / 255 / 0.224


def test_what_no_transform_does_is_refused():
    with pytest.raises(UserError, match="do_flip_channel_order=True"):
        from_transformers({"do_flip_channel_order": True})
    with pytest.raises(UserError, match="crop_mode='border'"):
        from_timm({"crop_mode": "border"})
