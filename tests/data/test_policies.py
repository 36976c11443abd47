"""AutoAugment, TrivialAugment and 3-Augment, against torchvision's tables, magnitudes and results."""

import collections

import numpy as np
import pytest
from helpers.timm_reference import timm

from jaxformer.data.geometry import VOID, moved_mask
from jaxformer.data.operations import (
    GREY,
    Range,
    Resample,
    ThreeAugment,
    apply,
    geometry,
    to_array,
    to_pillow,
)
from jaxformer.data.operations import Grayscale as Grey
from jaxformer.data.policies import LEARNT, ORIGINAL, POLICIES, STRENGTHS, WIDE, AutoAugment, TrivialAugment

HEIGHT, WIDTH = 36, 44
THEIR_NAMES = {
    "autocontrast": "AutoContrast",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
}


@pytest.fixture(scope="module")
def torchvision():
    """Its module of policies."""
    timm()
    from torchvision.transforms import autoaugment

    return autoaugment


@pytest.fixture
def image() -> np.ndarray:
    """A smooth picture."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = [128 + 100 * np.sin(rows / (3 + c) + columns / (5 - c)) for c in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def their_name(name: str) -> str:
    return THEIR_NAMES.get(name, name.capitalize())


def theirs_done(torchvision, name: str, image: np.ndarray, magnitude: float) -> np.ndarray:
    """What torchvision's operation makes of a picture."""
    nearest, fill = torchvision.InterpolationMode.NEAREST, [GREY] * 3
    picture = torchvision._apply_op(to_pillow(image), their_name(name), magnitude, nearest, fill)
    return to_array(picture)


def as_theirs(name: str, amount: float) -> float:
    """Our argument in torchvision's unit and direction."""
    if name in ("color", "contrast", "brightness", "sharpness"):
        return amount - 1
    if name.startswith("translate"):
        return -amount * (WIDTH if name.endswith("x") else HEIGHT)
    return amount


def amounts_of(draw) -> set[float]:
    """All arguments that can be drawn."""
    return {draw(np.random.default_rng(seed)) for seed in range(20)}


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_policies_are_those_of_torchvision(torchvision, policy):
    theirs = torchvision.AutoAugment(torchvision.AutoAugmentPolicy(policy)).policies
    ours = [tuple((their_name(name), p, m) for name, p, m in pair) for pair in POLICIES[policy]]
    assert ours == [tuple((name, p, m or 0) for name, p, m in pair) for pair in theirs]


def space(torchvision, kind: str):
    """(name, number of magnitudes, ours drawn at one, theirs) for every operation."""
    if kind == "auto":
        theirs = torchvision.AutoAugment()._augmentation_space(10, (HEIGHT, WIDTH))
        for name in sorted({choice[0] for pairs in POLICIES.values() for pair in pairs for choice in pair}):
            yield name, lambda m, rng, n=name: LEARNT[n](m * 10 / 9, rng), theirs[their_name(name)]
    else:
        theirs = torchvision.TrivialAugmentWide()._augmentation_space(STRENGTHS)
        for name, bounds in WIDE.items():
            side = WIDTH if name == "translate_x" else HEIGHT if name == "translate_y" else 1
            yield (
                name,
                lambda m, rng, b=bounds, s=side: b(m * 10 / 30, rng) / s,
                theirs[their_name(name)],
            )


@pytest.mark.parametrize("kind", ["auto", "trivial"])
def test_magnitudes_are_those_of_torchvision(torchvision, kind):
    seen = set()
    for name, draw, (magnitudes, signed) in space(torchvision, kind):
        seen.add(their_name(name))
        levels = magnitudes.tolist() if magnitudes.ndim else [0.0]
        for level, magnitude in enumerate(levels):
            ours = sorted({round(as_theirs(name, a), 5) for a in amounts_of(lambda rng: draw(level, rng))})  # noqa: B023
            if kind == "trivial" and name.startswith("translate"):
                magnitude = int(round(magnitude, 4))  # as its operation does; 16 is 15.999999 there
            expected = sorted({-magnitude, magnitude}) if signed else [magnitude]
            np.testing.assert_allclose(ours, expected, atol=2e-5, err_msg=f"{name} {level}")
    their_space = (
        torchvision.AutoAugment()._augmentation_space(10, (9, 9))
        if kind == "auto"
        else torchvision.TrivialAugmentWide()._augmentation_space(31)
    )
    assert seen == set(their_space)


@pytest.mark.parametrize("name", [*sorted(WIDE), "invert"])
def test_operations_give_torchvisions_pictures(torchvision, name, image):
    for strength in (0, 4, 11, 30):
        for amount in amounts_of(lambda rng: WIDE.get(name, Range(0, 0))(strength / 3, rng)):  # noqa: B023
            if name.startswith("translate"):
                amount /= WIDTH if name.endswith("x") else HEIGHT
            magnitude = as_theirs(name, amount)
            ours = to_array(
                apply((name, amount, Resample.NEAREST), to_pillow(image), np.random.default_rng(0))
            )
            np.testing.assert_array_equal(ours, theirs_done(torchvision, name, image, round(magnitude, 9)))


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_autoaugment_draws_every_pair_and_each_operation_as_often_as_the_policy_says(policy):
    """The share of pictures with a given operation is the mean over the pairs of how often they have it."""
    transform, count = AutoAugment(policy), 4000
    rng, drawn = np.random.default_rng(0), collections.Counter()
    for _ in range(count):
        drawn.update(name for name, _, _ in transform.drawn(HEIGHT, WIDTH, rng))
    expected = collections.Counter()
    for pair in POLICIES[policy]:
        for name, probability, _ in pair:
            expected[name] += probability / 25
    assert set(drawn) == {name for name, share in expected.items() if share > 0}
    for name, share in expected.items():
        assert drawn[name] / count == pytest.approx(share, abs=5 * np.sqrt(max(share, 0.01) / count))


def test_the_original_ranges_are_the_authors():
    """Of efficientnet/autoaugment.py: (level / 10) * 1.8 + 0.1, int((level / 10) * 4), (level / 10) * 0.3."""
    rng = np.random.default_rng(0)
    assert ORIGINAL["color"](0, rng) == pytest.approx(0.1)
    assert ORIGINAL["contrast"](8, rng) == pytest.approx(1.54)
    assert ORIGINAL["posterize"](8, rng) == 3
    assert ORIGINAL["solarize"](5, rng) == 128
    assert abs(ORIGINAL["shear_x"](5, rng)) == pytest.approx(0.15)


def test_trivialaugment_draws_every_operation_and_strength_equally_often():
    rng, names, degrees = np.random.default_rng(0), collections.Counter(), collections.Counter()
    for _ in range(14 * 500):
        ((name, amount, _),) = TrivialAugment().drawn(32, 32, rng)
        names[name] += 1
        if name == "rotate":
            degrees[round(amount, 3)] += 1
    assert set(names) == set(WIDE)
    assert all(400 < count < 600 for count in names.values())  # 500 expected, standard deviation 22
    assert sorted(degrees) == pytest.approx([4.5 * level for level in range(-30, 31)])


@pytest.mark.parametrize(
    "transform", [AutoAugment("svhn"), AutoAugment("cifar10"), TrivialAugment()], ids=str
)
def test_boxes_and_masks_go_where_the_picture_goes(transform, image):
    """The picture is the mask's own, coloured so that no operation on colours can mix up the classes."""
    mask = np.full((HEIGHT, WIDTH), 0, np.int32)
    mask[8:20, 6:22] = 1
    example = {
        "image": np.repeat(mask[..., None] * 255, 3, -1).astype(np.uint8),
        "segmentation": mask,
        "boxes": np.array([[6, 8, 22, 20]], np.float32),
        "labels": np.array([0], np.int32),
    }
    moved = 0
    for seed in range(60):
        result = transform(example, np.random.default_rng(seed))
        plain = transform({"image": example["image"]}, np.random.default_rng(seed))["image"]
        np.testing.assert_array_equal(result["image"], plain)
        classes = result["segmentation"]
        of_class = [plain[classes == number].astype(int) for number in (0, 1)]
        for values in of_class:
            if len(values):  # one colour each, but at borders that are sharpened
                assert (abs(values - np.median(values)) <= 40).mean() > 0.9
        if (classes == 1).any() and len(result["boxes"]):
            rows, columns = np.nonzero(classes == 1)
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            box = result["boxes"][0]
            assert (box[:2] <= np.array(around[:2]) + 1.01).all()
            assert (box[2:] >= np.array(around[2:]) - 1.01).all()
        moved += (classes != mask).any()
    assert 10 < moved < 60


def test_a_translation_in_pixels_moves_whole_pixels():
    mask = np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)
    moved = moved_mask(mask, geometry("translate_x", 7 / WIDTH, WIDTH, HEIGHT))
    np.testing.assert_array_equal(moved[:, :-7], mask[:, 7:])
    assert (moved[:, -7:] == VOID).all()


def test_3_augment_is_grey_solarized_or_blurred(torchvision, image):
    """The three are torchvision's and Pillow's, as in DeiT III's code; each is a third."""
    from PIL import Image, ImageFilter, ImageOps
    from torchvision.transforms import Grayscale

    picture = Image.fromarray(image)
    grey, solarized = np.array(Grayscale(3)(picture)), np.array(ImageOps.solarize(picture))
    blurred = np.array(picture.filter(ImageFilter.GaussianBlur(1.5)))
    counts = collections.Counter()
    for seed in range(300):
        result = ThreeAugment(0, (1.5, 1.5))({"image": image}, np.random.default_rng(seed))["image"]
        counts[next(i for i, known in enumerate((grey, solarized, blurred)) if (known == result).all())] += 1
    assert all(70 < counts[i] < 130 for i in range(3))
    np.testing.assert_array_equal(Grey(1)({"image": image}, np.random.default_rng(0))["image"], grey)


def test_3_augment_jitters_colours_and_leaves_boxes(image):
    example = {"image": image, "boxes": np.zeros((1, 4), np.float32)}
    plain, jittered = (
        [ThreeAugment(s)(example, np.random.default_rng(seed)) for seed in range(9)] for s in (0, 0.3)
    )
    for one, other in zip(plain, jittered):
        assert (one["image"] != other["image"]).any()
        assert other["boxes"] is example["boxes"]
    grey = image[:, :, :1]
    assert ThreeAugment()({"image": grey}, np.random.default_rng(0))["image"].shape == grey.shape
