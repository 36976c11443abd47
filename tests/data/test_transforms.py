"""Transforms: shapes, identity at no strength, bounds, determinism, and comparison with Pillow."""

import dataclasses
import re

import numpy as np
import pytest
from helpers.pictures import picture, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxformer.config import schema
from jaxformer.data.config import TRANSFORMS, DataConfig
from jaxformer.data.cropping import DetrCrop, Mosaic, RandomCrop, ResizeShorter, ScaleJitter
from jaxformer.data.geometry import resize
from jaxformer.data.operations import ColorJitter, Grayscale, ThreeAugment
from jaxformer.data.policies import AutoAugment, RandAugment, TrivialAugment
from jaxformer.data.published import Published
from jaxformer.data.transforms import CenterCrop, Flip, PadAndCrop, RandomErasing, RandomResizedCrop, Resize

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))


EVERY = [
    Resize(9),
    Resize((5, 50), "bicubic"),
    CenterCrop(9),
    CenterCrop((8, 12), shorter_side=16),
    Published((5, 50), interpolation="bicubic"),
    Published((8, 12), shorter_side=16),
    Published(9, shorter_side=11, square=True, corner="down"),
    Published(shorter_side=8, longest=44, interpolation="lanczos"),
    RandomResizedCrop(9),
    Flip(),
    Flip(direction="vertical"),
    RandomCrop((9, 40)),
    ScaleJitter((0.3, 3)),
    ScaleJitter((0.5, 2), size=(11, 15)),
    ResizeShorter((8, 12, 40), longest=44),
    ResizeShorter((8,)),
    DetrCrop(0.7, (20, 30), (10, 25)),
    PadAndCrop(3),
    PadAndCrop(3, 0.5, "reflect"),
    RandomErasing(1.0),
    RandomErasing(0.5, fill="zeros"),
    ColorJitter(0.5, 0.5, 0.5, 0.2),
    RandAugment(3, 9),
    RandAugment(2, 9, "increasing", 0.5, 0.5),
    AutoAugment("imagenet"),
    AutoAugment("cifar10", "original"),
    TrivialAugment(),
    ThreeAugment(),
    Grayscale(0.5),
]


def test_the_table_names_every_transform():
    of_pictures = {schema.load(target) for target in TRANSFORMS.values() if ".text." not in target}
    assert {type(transform) for transform in EVERY} == of_pictures - {Mosaic}  # which needs boxes, or a mask


@pytest.mark.parametrize("transform", EVERY, ids=str)
def test_images_stay_images_and_the_given_one_is_not_written_to(transform):
    for channels in (1, 3):
        image = picture(channels=channels)
        before = image.copy()
        image.setflags(write=False)
        for seed in range(20):
            result = run(transform, image, seed)
            assert result.dtype == np.uint8
            assert result.ndim == 3
            assert result.shape[2] == channels
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("transform", EVERY, ids=str)
def test_the_same_numbers_give_the_same_image_and_others_another(transform):
    image = picture()
    results = [run(transform, image, seed) for seed in range(8)]
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(run(transform, image, seed), result)
    different = any(not np.array_equal(result, results[0]) for result in results[1:])
    assert different == transform.random


@pytest.mark.parametrize(
    "transform",
    [
        Resize((24, 32)),
        CenterCrop((24, 32)),
        CenterCrop(24, shorter_side=24),
        RandomResizedCrop((24, 32), scale=(1, 1), ratio=(32 / 24, 32 / 24)),
        Flip(0),
        RandomCrop((24, 32)),
        ScaleJitter((1, 1)),
        ResizeShorter((24,)),
        DetrCrop(0),
        PadAndCrop(0),
        PadAndCrop(4, probability=0),
        RandomErasing(0),
        ColorJitter(0, 0, 0, 0),
        ColorJitter(probability=0),
        RandAugment(probability=0),
        Grayscale(0),
    ],
    ids=str,
)
def test_no_strength_is_the_identity(transform):
    image = picture()
    expected = image[:, 4:28] if transform == CenterCrop(24, shorter_side=24) else image
    for seed in range(5):
        np.testing.assert_array_equal(run(transform, image, seed), expected)


def test_flipping_twice_is_the_identity():
    image = picture()
    once = run(Flip(1), image)
    np.testing.assert_array_equal(once, image[:, ::-1])
    np.testing.assert_array_equal(run(Flip(1), once), image)


def test_flip_is_as_frequent_as_asked():
    rng = np.random.default_rng(0)
    image = picture()
    flips = sum(Flip(0.3)({"image": image}, rng)["image"] is not image for _ in range(2000))
    assert 520 < flips < 680  # 600 expected, standard deviation 20


@settings(max_examples=60, deadline=None)
@given(
    shape=SIZES,
    padding=st.integers(0, 8),
    mode=st.sampled_from(["zeros", "reflect"]),
    seed=st.integers(0, 99),
)
def test_pad_and_crop_is_a_window_of_the_padded_image(shape, padding, mode, seed):
    height, width, channels = shape
    if mode == "reflect":
        padding = min(padding, height - 1, width - 1)
    image = np.random.default_rng(seed).integers(1, 256, shape, np.uint8)
    sides = [(padding, padding), (padding, padding), (0, 0)]
    padded = np.pad(image, sides, **({"constant_values": 0} if mode == "zeros" else {"mode": "reflect"}))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width, channels))[:, :, 0]
    result = run(PadAndCrop(padding, mode=mode), image, seed)
    assert (windows == result).all(axis=(2, 3, 4)).any()


def test_pad_and_crop_reaches_every_shift_equally_often():
    image = np.zeros((5, 5, 1), np.uint8)
    image[2, 2] = 1
    rng = np.random.default_rng(0)
    places = [np.argmax(PadAndCrop(2)({"image": image}, rng)["image"]) for _ in range(5000)]
    counts = np.bincount(places, minlength=25)
    assert counts.min() > 140  # 200 expected, standard deviation 14
    assert counts.max() < 260


@settings(max_examples=100, deadline=None)
@given(shape=SIZES, seed=st.integers(0, 999))
def test_random_crops_lie_inside_the_image(shape, seed):
    height, width, _ = shape
    top, left, h, w = RandomResizedCrop(4).rectangle(height, width, np.random.default_rng(seed))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h > 0
    assert w > 0


def test_random_crops_have_the_areas_and_ratios_that_were_asked_for():
    transform = RandomResizedCrop(32, scale=(0.2, 0.6), ratio=(0.5, 2.0))
    rng = np.random.default_rng(0)
    boxes = np.array([transform.rectangle(400, 600, rng)[2:] for _ in range(500)], float)
    area, ratio = boxes.prod(1) / (400 * 600), boxes[:, 1] / boxes[:, 0]
    assert 0.195 < area.min() < 0.25
    assert 0.55 < area.max() < 0.605
    assert 0.49 < ratio.min() < 0.6
    assert 1.7 < ratio.max() < 2.02


def test_an_image_that_no_ratio_fits_gives_its_middle():
    top, left, h, w = RandomResizedCrop(4).rectangle(10, 100, np.random.default_rng(0))
    assert (h, w) == (10, 13)
    assert (top, left) == (0, 43)


def test_center_crop_keeps_the_middle():
    image = picture(20, 30)
    np.testing.assert_array_equal(run(CenterCrop(10), image), image[5:15, 10:20])
    padded = run(CenterCrop((24, 30)), image)
    np.testing.assert_array_equal(padded[2:22], image)
    assert not padded[:2].any()
    assert not padded[22:].any()


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (CenterCrop(24), True),
        (CenterCrop((8, 24)), True),
        (CenterCrop(20), False),
        (CenterCrop(24, shorter_side=24), False),
    ],
)
def test_it_is_said_that_images_are_smaller_than_what_is_cut_out(transform, said, caplog):
    transform.check({"image": np.zeros((20, 20, 3), np.uint8)})
    assert ("images of 20x20 pixels are smaller than the window of" in caplog.text) == said
    assert ("set shorter_side=24 to resize them first" in caplog.text) == said


def test_shrinking_averages_areas_as_pillow_does():
    image = picture(48, 64)
    ours = resize(image, 12, 16, "bilinear").astype(int)
    theirs = np.array(Image.fromarray(image).resize((16, 12), Image.Resampling.BOX)).astype(int)
    assert abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(("ours", "theirs"), [("bilinear", "BILINEAR"), ("nearest", "NEAREST")])
def test_enlarging_interpolates_as_pillow_does(ours, theirs):
    image = picture(12, 16)
    reference = np.array(Image.fromarray(image).resize((40, 36), Image.Resampling[theirs])).astype(int)
    assert abs(resize(image, 36, 40, ours).astype(int) - reference).max() <= 1


def test_erasing_changes_one_rectangle_of_a_fitting_area():
    image = np.full((50, 60, 3), 7, np.uint8)
    areas = []
    for seed in range(200):
        rows, columns = np.nonzero((run(RandomErasing(1.0, fill="zeros"), image, seed) == 0).all(-1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width  # a full rectangle
        areas.append(len(rows) / 3000)
    assert 0.015 < min(areas) < 0.05
    assert 0.28 < max(areas) < 0.345
    noise = run(RandomErasing(1.0, area=(0.3, 0.3)), image, 0)
    erased = noise[(noise != 7).any(-1)]
    assert abs(erased.mean() - 127.5) < 6  # uniform


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        (Resize(0), "size=0"),
        (CenterCrop(32, shorter_side=16), "shorter_side=16: smaller than size=32"),
        (RandomResizedCrop(8, scale=(0.5, 1.5)), "scale[1]=1.5"),
        (RandomResizedCrop(8, ratio=(2, 1)), "ratio=[2.0, 1.0]: expected the smaller one first"),
        (Flip(1.5), "probability=1.5"),
        (RandomCrop(0), "size=0"),
        (RandomCrop(8, min_visible=2), "min_visible=2"),
        (ScaleJitter((2, 1)), "scale=[2.0, 1.0]: expected the smaller one first"),
        (ScaleJitter(size=0), "size=0"),
        (ResizeShorter(()), "sides=[]"),
        (ResizeShorter((800,), longest=600), "longest=600"),
        (DetrCrop(size=(9, 8)), "size=[9, 8]"),
        (DetrCrop(sides=(0,)), "sides[0]=0"),
        (Mosaic(scale=(0, 1)), "scale[0]=0"),
        (Mosaic(center=(0.5, 1.5)), "center[1]=1.5"),
        (Mosaic(size=(0, 3)), "size[0]=0"),
        (PadAndCrop(-1), "padding=-1"),
        (RandomErasing(area=(0, 0.1)), "area[0]=0"),
        (RandomErasing(ratio=(-1, 1)), "ratio[0]=-1"),
        (ColorJitter(hue=0.6), "hue=0.6"),
        (ColorJitter(contrast=-1), "contrast=-1"),
        (ThreeAugment(-1), "jitter=-1"),
        (ThreeAugment(radius=(3, 1)), "radius=[3.0, 1.0]: expected the smaller one first"),
        (RandAugment(num_layers=0), "num_layers=0"),
        (RandAugment(magnitude=31), "magnitude=31"),
        (RandAugment(magnitude_std=-1), "magnitude_std=-1"),
    ],
)
def test_impossible_fields_are_named(transform, problem):
    lines = list(schema.problems(transform))
    assert len(lines) == 1
    assert lines[0].startswith(problem)
    assert re.split(r"[=\[:]", lines[0])[0] in {field.name for field in dataclasses.fields(transform)}


@pytest.mark.parametrize("transform", EVERY, ids=str)
def test_the_transforms_of_these_tests_are_sound(transform):
    assert list(schema.problems(transform)) == []


@pytest.mark.parametrize("transform", EVERY, ids=str)
def test_a_config_may_name_every_transform(transform):
    fields = schema.to_dict(DataConfig(transforms=(transform,)))
    errors = []
    assert schema.resolve(DataConfig, fields, "data", errors).transforms == (transform,)
    assert errors == []


@pytest.mark.parametrize("padding", [3, 8, 20])
def test_padding_may_be_larger_than_the_image(padding):
    image = np.full((8, 8, 3), 7, np.uint8)
    for seed in range(40):
        cropped = PadAndCrop(padding)({"image": image}, np.random.default_rng(seed))["image"]
        assert cropped.shape == image.shape
        assert set(np.unique(cropped)) <= {0, 7}
