"""Boxes and masks stay where their objects are, whatever is done to the picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from jaxformer.data import DataConfig
from jaxformer.data.cropping import DetrCrop, Mosaic, RandomCrop, ResizeShorter, ScaleJitter
from jaxformer.data.geometry import (
    VOID,
    Move,
    cut,
    follow,
    letterbox,
    mirroring,
    moved_boxes,
    moved_mask,
    object_rows,
    scaling,
    window,
)
from jaxformer.data.operations import GEOMETRIC, Resample, apply, geometry
from jaxformer.data.policies import RandAugment
from jaxformer.data.transforms import CenterCrop, Flip, PadAndCrop, RandomErasing, RandomResizedCrop, Resize

SHADES = (90, 160, 230)  # of the rectangles, one for each class; the ground is 20
GROUND = 20


def scene(seed: int, height: int = 60, width: int = 80) -> dict:
    """Three filled rectangles that do not touch, as a picture, as boxes and as a mask; the ground is class 0."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), GROUND, np.uint8)
    mask = np.zeros((height, width), np.int32)
    boxes = []
    for number, shade in enumerate(SHADES):
        left, right = number * width // 3 + 2, (number + 1) * width // 3 - 2
        x0, y0 = int(rng.integers(left, right - 12)), int(rng.integers(0, height - 14))
        x1, y1 = int(rng.integers(x0 + 8, right + 1)), int(rng.integers(y0 + 8, height + 1))
        image[y0:y1, x0:x1] = shade
        mask[y0:y1, x0:x1] = number + 1
        boxes.append((x0, y0, x1, y1))
    labels = np.arange(1, len(SHADES) + 1, dtype=np.int32)
    return {"image": image, "boxes": np.array(boxes, np.float32), "labels": labels, "segmentation": mask}


def found(pixels: np.ndarray) -> tuple[float, ...] | None:
    """The box around what is True."""
    rows, columns = np.nonzero(pixels)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


MOVES = [
    Resize((35, 95)),
    Resize(120, "nearest"),
    CenterCrop((40, 70)),
    CenterCrop((70, 90)),
    CenterCrop(50, shorter_side=55),
    Flip(1),
    Flip(1, "vertical"),
    RandomResizedCrop((50, 60), scale=(0.3, 1)),
    PadAndCrop(12),
    RandomCrop((40, 90)),
    ScaleJitter((0.4, 2.5)),
    ScaleJitter((0.4, 2.5), size=(90, 50)),
    ResizeShorter((40, 50, 90), longest=110),
    DetrCrop(1, (45, 80), (30, 60)),
]


@pytest.mark.parametrize("transform", MOVES, ids=str)
def test_boxes_are_found_again_from_pixels_and_masks(transform):
    for seed in range(25):
        result = transform(scene(seed), np.random.default_rng(seed))
        image, mask = result["image"][:, :, 0].astype(int), result["segmentation"]
        assert mask.shape == image.shape
        assert mask.dtype == np.int32
        scale = np.array([image.shape[1], image.shape[0]] * 2)
        assert (result["boxes"] >= 0).all()
        assert (result["boxes"] <= scale).all()
        for box, label in zip(result["boxes"], result["labels"]):
            in_mask = found(mask == label)
            if (box[2:] - box[:2] < 2.5).any():
                continue  # a sliver may be between the middles of pixels
            np.testing.assert_allclose(box, in_mask, atol=1.01)
        within = minimum_filter(mask, 5) == maximum_filter(
            mask, 5
        )  # not beside others, where shades are mixed
        within = np.pad(within[1:-1, 1:-1], 1)  # nor at a border, where what was cut off may be mixed in
        shades = np.array([GROUND, *SHADES, 0])  # the last is that of VOID
        assert (abs(image - shades[mask])[within] <= 1).all()
        assert within.mean() > 0.2
        missing = set(range(1, 4)) - set(result["labels"].tolist())
        for label in missing:  # dropped: little or nothing is left
            assert (mask == label).sum() <= 0.15 * mask.size


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
@pytest.mark.parametrize("amount", [-0.31, 0.23])
def test_randaugment_moves_masks_as_pillow_moves_pictures(name, amount):
    amount = amount * 90 if name == "rotate" else amount
    mask = scene(3)["segmentation"]
    picture = apply(
        (name, amount, Resample.NEAREST), Image.fromarray(mask.astype(np.uint8) + 1), np.random.default_rng(0)
    )
    expected = np.array(picture).astype(int) - 1
    expected[expected == 127] = VOID  # grey 128
    ours = moved_mask(mask, geometry(name, amount, mask.shape[1], mask.shape[0]))
    assert (ours != expected).mean() < 0.002  # ties of the rounding


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_randaugment_boxes_are_around_their_rectangles(name):
    for seed in range(10):
        example = scene(seed)
        amount = 25 if name == "rotate" else 0.2
        move = geometry(name, amount, 80, 60)
        example |= follow(example, move)
        for box, label in zip(example["boxes"], example["labels"]):
            inside = found(example["segmentation"] == label)
            assert inside is not None
            assert (box[:2] <= np.array(inside[:2]) + 1).all()
            assert (box[2:] >= np.array(inside[2:]) - 1).all()
            if name.startswith("translate"):
                np.testing.assert_allclose(box, inside, atol=1)


def test_randaugment_and_erasing_keep_what_they_do_not_move():
    example = scene(0)
    result = RandomErasing(1)(example, np.random.default_rng(0))
    assert result["boxes"] is example["boxes"]
    assert result["segmentation"] is example["segmentation"]
    moved = 0
    for seed in range(30):
        result = RandAugment(2, 9, "increasing")(example, np.random.default_rng(seed))
        plain = RandAugment(2, 9, "increasing")({"image": example["image"]}, np.random.default_rng(seed))
        np.testing.assert_array_equal(result["image"], plain["image"])
        moved += result["boxes"].tobytes() != example["boxes"].tobytes()
    assert 5 < moved < 28


matrices = st.tuples(
    st.floats(0.4, 2),
    st.floats(-0.3, 0.3),
    st.floats(-20, 20),
    st.floats(-0.3, 0.3),
    st.floats(0.4, 2),
    st.floats(-20, 20),
)


@settings(max_examples=60, deadline=None)
@given(first=matrices, second=matrices)
def test_moves_follow_each_other_and_can_be_undone(first, second):
    one, two = Move(first, (50, 60)), Move(second, (40, 30))
    point = np.array([7.0, 11.0, 1.0])

    def moved(move: Move, at: np.ndarray) -> np.ndarray:
        return np.append(np.array(move.matrix).reshape(2, 3) @ at, 1)

    np.testing.assert_allclose(moved(one.then(two), point), moved(one, moved(two, point)), atol=1e-9)
    np.testing.assert_allclose(moved(one.inverse((9, 9)), moved(one, point)), point, atol=1e-6)
    assert one.then(two).size == (40, 30)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(["scale", "mirror", "upside down", "pad"]),
    height=st.integers(60, 130),
    width=st.integers(80, 150),
)
def test_moving_and_moving_back_is_the_identity(seed, kind, height, width):
    example = scene(seed)
    move = {
        "scale": scaling((60, 80), (height, width)),
        "mirror": mirroring((60, 80)),
        "upside down": mirroring((60, 80), upside_down=True),
        "pad": window(60 - height, 80 - width, height, width),
    }[kind]
    moved = follow(example, move)
    back = follow(example | moved, move.inverse((60, 80)))
    np.testing.assert_allclose(back["boxes"], example["boxes"], atol=1e-3)
    np.testing.assert_array_equal(back["labels"], example["labels"])
    np.testing.assert_array_equal(back["segmentation"], example["segmentation"])


def test_plain_pictures_have_nothing_that_follows():
    assert follow({"image": np.zeros((2, 2, 3), np.uint8), "labels": 3}, mirroring((2, 2))) == {}


def test_boxes_are_clipped_and_dropped_where_too_little_is_left():
    boxes = np.array([[0, 0, 10, 10], [15, 0, 25, 10], [19, 0, 29, 10], [30, 0, 40, 10]], np.float32)
    left, kept = moved_boxes(boxes, window(0, 0, 20, 20), 0.3)
    np.testing.assert_array_equal(kept, [True, True, False, False])  # 50% and 10% of the middle two are left
    np.testing.assert_array_equal(left, [[0, 0, 10, 10], [15, 0, 20, 10]])
    assert moved_boxes(boxes, window(0, 0, 20, 20), 0)[1].tolist() == [True, True, True, False]
    none, kept = moved_boxes(np.zeros((0, 4), np.float32), window(0, 0, 20, 20), 0.3)
    assert none.shape == (0, 4)
    assert kept.shape == (0,)


def test_a_mask_is_resized_as_pillow_does():
    mask = np.random.default_rng(0).integers(0, 5, (30, 40)).astype(np.int32)
    for size in ((60, 80), (46, 104), (14, 24)):
        expected = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(moved_mask(mask, scaling(mask.shape, size)), np.array(expected))


def test_mirrored_padding_is_refused_where_there_are_boxes():
    with pytest.raises(ValueError, match="mirrors objects"):
        PadAndCrop(4, mode="reflect")(scene(0), np.random.default_rng(0))
    example = scene(0)
    del example["boxes"], example["labels"]
    result = PadAndCrop(4, mode="reflect")(example, np.random.default_rng(2))
    assert (result["segmentation"] == VOID).any()


def test_a_window_far_outside_is_empty():
    result = cut(scene(0), 500, -900, 10, 12)
    assert not result["image"].any()
    assert result["image"].shape == (10, 12, 3)
    assert (result["segmentation"] == VOID).all()
    assert len(result["boxes"]) == len(result["labels"]) == 0


def test_resize_shorter_keeps_the_aspect_ratio_and_the_bound():
    image = np.zeros((30, 60, 3), np.uint8)
    rng = np.random.default_rng(0)
    assert ResizeShorter((45,))({"image": image}, rng)["image"].shape == (45, 90, 3)
    assert ResizeShorter((45,), longest=80)({"image": image}, rng)["image"].shape == (40, 80, 3)
    assert not ResizeShorter((45,)).random
    sizes = {ResizeShorter((20, 45))({"image": image}, rng)["image"].shape[0] for _ in range(40)}
    assert sizes == {20, 45}


def test_scale_jitter_covers_its_range():
    rng = np.random.default_rng(0)
    example = {"image": np.full((100, 100, 3), 200, np.uint8), "segmentation": np.zeros((100, 100), np.int32)}
    covered = [(ScaleJitter((0.5, 1))(example, rng)["segmentation"] == 0).mean() for _ in range(200)]
    assert 0.25 <= min(covered) < 0.3
    assert 0.9 < max(covered) <= 1


@pytest.mark.parametrize(
    ("size", "extent"), [((90, 120), (90, 120)), ((90, 90), (68, 90)), ((30, 80), (30, 40))]
)
def test_frames_keep_the_aspect_ratio_and_pad_below_and_at_the_right(size, extent):
    made = letterbox(scene(1), size)
    assert made["image"].shape == (*size, 3)
    assert made["extent"].tolist() == list(extent)
    assert not made["image"][extent[0] :].any()
    assert not made["image"][:, extent[1] :].any()
    padding = made["segmentation"] == VOID
    assert padding[extent[0] :].all()
    assert padding[:, extent[1] :].all()
    assert not padding[: extent[0], : extent[1]].any()
    rows = object_rows(made, 5)
    assert rows["labels"].tolist() == [1, 2, 3, -1, -1]
    assert not rows["boxes"][3:].any()
    original = scene(1)["boxes"] / np.array([80, 60, 80, 60])[None]
    np.testing.assert_allclose(rows["boxes"][:3, :2], (original[:, :2] + original[:, 2:]) / 2, atol=1e-6)
    np.testing.assert_allclose(rows["boxes"][:3, 2:], original[:, 2:] - original[:, :2], atol=1e-6)


def test_small_pictures_are_enlarged_only_if_asked():
    made = letterbox(scene(1), (200, 200), enlarge=False)
    assert made["extent"].tolist() == [60, 80]
    np.testing.assert_array_equal(made["image"][:60, :80], scene(1)["image"])
    assert letterbox(scene(1), (30, 30), enlarge=False)["extent"].tolist() == [22, 30]


def test_of_too_many_objects_the_largest_stay_in_their_order():
    boxes = np.array([[0, 0, 5, 5], [0, 0, 1, 1], [0, 0, 9, 9]], np.float32)
    example = {"boxes": boxes, "labels": np.array([7, 8, 9], np.int32), "extent": np.array([10, 10])}
    assert object_rows(example, 2)["labels"].tolist() == [7, 9]


def test_a_mosaic_shows_four_pictures_with_their_boxes():
    scenes = [scene(seed) for seed in range(4)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        result = Mosaic(1, size=(100, 140))(scenes[0], rng, lambda count: scenes[1 : 1 + count])
        assert result["image"].shape == (100, 140, 3)
        assert result["segmentation"].shape == (100, 140)
        assert len(result["boxes"]) == len(result["labels"]) >= 4
        for box, label in zip(result["boxes"], result["labels"]):
            x0, y0, x1, y1 = np.clip(np.round(box), 0, [140, 100, 140, 100]).astype(int)
            if min(x1 - x0, y1 - y0) > 3:
                assert (result["segmentation"][y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] == label).all()
        inside = sum((result["segmentation"] == label).sum() for label in (1, 2, 3))
        assert inside == pytest.approx(
            ((result["boxes"][:, 2:] - result["boxes"][:, :2]).prod(1)).sum(), rel=0.2
        )


def test_a_mosaic_needs_boxes_or_a_mask():
    with pytest.raises(ValueError, match="one label for four images"):
        Mosaic(1)({"image": scene(0)["image"], "labels": 1}, np.random.default_rng(0), lambda count: [])
    example = scene(0)
    (line,) = DataConfig(name="digits", batch_size=4, transforms=(Mosaic(),)).problems()
    assert line.startswith(
        "transforms[0]=Mosaic: joins images with boxes or masks, and examples='images' have one"
    )
    assert Mosaic(0)(example, np.random.default_rng(0), lambda count: []) is example
