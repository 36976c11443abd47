"""Operations on images against Pillow's: colour jitter, and what RandAugment draws from."""

import numpy as np
import pytest
from helpers.pictures import picture, run
from PIL import Image, ImageEnhance

from jaxformer.data.operations import ColorJitter, Range, Resample, apply, shift_hue, to_array, to_pillow
from jaxformer.data.policies import INCREASING, ORIGINAL, RandAugment


@pytest.mark.parametrize(
    ("field", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_jitter_stays_between_pillows_extremes(field, enhance):
    image = picture()
    nothing = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    jitter = ColorJitter(**nothing | {field: 0.4})
    low, high = (to_array(enhance(to_pillow(image)).enhance(factor)).astype(int) for factor in (0.6, 1.4))
    for seed in range(20):
        result = run(jitter, image, seed)
        assert (result >= np.minimum(low, high) - 1).all()
        assert (result <= np.maximum(low, high) + 1).all()
        assert (result != image).any()


def test_a_hue_of_a_third_turns_red_into_green_and_grey_stays():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    red_green_blue = to_array(shift_hue(red, 1 / 3))[0, 0]
    assert red_green_blue[1] == 255
    assert red_green_blue[0] < 8
    assert red_green_blue[2] < 8
    grey = picture(channels=1)
    np.testing.assert_array_equal(run(ColorJitter(0, 0, 0.9, 0.5), grey), grey)


def test_randaugment_ranges_are_the_papers_code_and_timms():
    rng = np.random.default_rng(0)
    assert len(ORIGINAL) == 16
    assert len(INCREASING) == 15
    assert [ORIGINAL["posterize"](m, rng) for m in (0, 4, 9, 10)] == [0, 1, 3, 4]
    assert [INCREASING["posterize"](m, rng) for m in (0, 4, 9, 10)] == [4, 3, 1, 0]
    assert [ORIGINAL["solarize"](m, rng) for m in (0, 5, 10)] == [0, 128, 256]
    assert [INCREASING["solarize"](m, rng) for m in (0, 5, 10)] == [256, 128, 0]
    assert ORIGINAL["color"](5, rng) == 1.0
    assert {round(INCREASING["color"](10, rng), 6) for _ in range(50)} == {0.1, 1.9}
    assert {ORIGINAL["rotate"](10, rng) for _ in range(50)} == {-30, 30}
    assert abs(ORIGINAL["translate_x"](10, rng)) * 224 == pytest.approx(100)
    assert Range(0, 0.3)(20, rng) == pytest.approx(0.6)  # linear beyond 10


@pytest.mark.parametrize(
    "name", sorted(set(INCREASING) - {"autocontrast", "equalize", "invert", "posterize"})
)
def test_increasing_operations_do_nothing_at_magnitude_zero(name):
    image = to_pillow(picture())
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(
        apply((name, INCREASING[name](0, rng), Resample.NEAREST), image, rng), image
    )


@pytest.mark.parametrize("name", sorted(ORIGINAL))
def test_operations_do_what_their_names_say(name):
    image = picture(40, 40)
    rng = np.random.default_rng(1)
    amount = {"rotate": 90, "posterize": 3, "solarize": 100, "solarize_add": 50, "cutout": 0.2}.get(
        name, 0.25
    )
    result = to_array(apply((name, amount, Resample.NEAREST), to_pillow(image), rng))
    values = image.astype(int)
    if name == "invert":
        np.testing.assert_array_equal(result, 255 - image)
    elif name == "posterize":
        np.testing.assert_array_equal(result, image & 0b11100000)
    elif name == "solarize":
        np.testing.assert_array_equal(result, np.where(values < 100, values, 255 - values))
    elif name == "solarize_add":
        np.testing.assert_array_equal(result, np.where(values < 128, (values + 50).clip(max=255), values))
    elif name == "rotate":
        np.testing.assert_array_equal(result, np.rot90(image))
    elif name == "translate_x":
        np.testing.assert_array_equal(result[:, :30], image[:, 10:])
        assert (result[:, 30:] == 128).all()
    elif name == "translate_y":
        np.testing.assert_array_equal(result[:30], image[10:])
        assert (result[30:] == 128).all()
    elif name == "shear_x":
        np.testing.assert_array_equal(result[1], image[1])  # moved by 0.25 * 1.5 pixels
        np.testing.assert_array_equal(result[20, :35], image[20, 5:])  # by 0.25 * 20.5
        assert (result[39, -9:] == 128).all()
    elif name == "shear_y":
        assert (result[-9:, 39] == 128).all()
    elif name == "cutout":
        grey = (result == 128).all(-1)
        assert 0 < grey.sum() <= 16 * 16
        np.testing.assert_array_equal(result[~grey], image[~grey])
    elif name == "autocontrast":
        assert result.min((0, 1)).tolist() == [0] * 3
        assert result.max((0, 1)).min() >= 254  # Pillow truncates
    elif name == "equalize":
        assert abs(np.median(result) - 127) < 8
    elif name == "color":
        assert np.ptp(result.astype(int), axis=2).mean() < 0.3 * np.ptp(values, axis=2).mean()
    elif name == "contrast":
        assert result.std() == pytest.approx(values.std() * 0.25, rel=0.1)
    elif name == "brightness":
        assert result.mean() == pytest.approx(values.mean() * 0.25, rel=0.02)
    else:
        assert np.abs(np.diff(result.astype(int), axis=1)).mean() < np.abs(np.diff(values, axis=1)).mean()


def test_randaugment_uses_every_operation():
    image = np.zeros((16, 16, 3), np.uint8)
    image[4:12, 4:12] = picture(8, 8)
    rng = np.random.default_rng(0)
    results = {RandAugment(1, 8)({"image": image}, rng)["image"].tobytes() for _ in range(400)}
    assert len(results) >= 16 + 6 - 1  # six of the sixteen have two signs or many places
