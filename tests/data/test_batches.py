"""Batches are a pure function of (seed, step), on any number of processes and threads."""

import subprocess
import sys
import threading
import time
from functools import partial

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformer.data import DataConfig, make_batches
from jaxformer.data.base import Source
from jaxformer.data.batches import Batches, rows_per_task
from jaxformer.data.transform import Transform
from jaxformer.data.transforms import Flip, PadAndCrop, RandomErasing, Resize
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError

RANDOM = (PadAndCrop(1), Flip(), RandomErasing(0.5))


class Counting(Source):
    """A source of `count` images whose pixels and labels tell their index; notes what is read."""

    name, split = "counting/1.0.0", "train"

    def __init__(self, count: int):
        self.count = count
        self.indices: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, indices) -> list[dict]:
        self.indices += list(indices)
        return [{"image": np.full((2, 2, 1), index % 251, np.uint8), "labels": index} for index in indices]


def digits(digits_dir: str, **fields) -> DataConfig:
    return DataConfig(data_dir=digits_dir, **{"batch_size": 64, "transforms": RANDOM} | fields)


def counted(source: Counting, batch_size: int, seed: int = 0, train: bool = True, transforms=()) -> Batches:
    fields = {"transforms" if train else "eval_transforms": transforms}
    return Batches(source, DataConfig(batch_size=batch_size, **fields), seed, train)


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_an_epoch_sees_every_example_once_and_each_in_a_new_order():
    batches = counted(Counting(23), 5, seed=3, train=True)
    stream = np.concatenate([batches[step]["labels"] for step in range(23)])  # five epochs
    epochs = stream.reshape(5, 23)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(23), (5, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert batches.steps_per_epoch == 23 / 5


def test_the_first_elements_of_an_epoch_are_uniform():
    firsts = [int(counted(Counting(8), 1, seed=seed, train=True)[0]["labels"][0]) for seed in range(400)]
    counts = np.bincount(firsts, minlength=8)
    assert counts.min() > 25  # 50 expected, standard deviation 6.6
    assert counts.max() < 75


def test_seeds_and_steps_differ_and_repeat(digits_dir):
    one, again = (make_batches(digits(digits_dir), "train", seed=7) for _ in range(2))
    other = make_batches(digits(digits_dir), "train", seed=8)
    assert_equal(one[11], again[11])
    assert (one[11]["image"] != other[11]["image"]).any()
    assert (one[11]["image"] != one[12]["image"]).any()


def test_any_integer_is_a_seed(digits_dir):
    for seed in (-1, 2**63, 2**80):
        make_batches(digits(digits_dir), "train", seed=seed)[0]


def test_a_fresh_process_makes_the_same_batches(digits_dir):
    code = (
        "import sys, hashlib\n"
        "from jaxformer.data import DataConfig, make_batches\n"
        "from jaxformer.data.transforms import *\n"
        "transforms = (PadAndCrop(1), Flip(), RandomErasing(0.5))\n"
        "config = DataConfig(data_dir=sys.argv[1], batch_size=64, transforms=transforms)\n"
        "batch = make_batches(config, 'train', seed=5)[40]\n"
        "print(hashlib.sha256(batch['image'].tobytes() + batch['labels'].tobytes()).hexdigest())\n"
    )
    import hashlib

    theirs = subprocess.run(
        [sys.executable, "-c", code, digits_dir], capture_output=True, text=True, check=True
    )
    ours = make_batches(digits(digits_dir), "train", seed=5)[40]
    assert (
        theirs.stdout.strip()
        == hashlib.sha256(ours["image"].tobytes() + ours["labels"].tobytes()).hexdigest()
    )


@pytest.mark.parametrize("train", [True, False])
def test_processes_rows_make_up_the_global_batch(digits_dir, train):
    batches = make_batches(digits(digits_dir), "test" if not train else "train", seed=1, train=train)
    step = 5  # of the evaluation, the last batch, with padding
    for count in (2, 4):
        parts = [batches.local(step, index, count) for index in range(count)]
        together = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        assert_equal(together, batches[step])


def test_a_process_reads_only_its_rows():
    source = Counting(100)
    batches = counted(source, 20, train=False)
    source.indices.clear()
    batches.local(2, process_index=1, process_count=4)
    assert source.indices == [45, 46, 47, 48, 49]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("index", "count"), [(0, 1), (1, 2)])
def test_reading_ahead_gives_the_same_batches_from_any_step(digits_dir, threads, index, count):
    batches = make_batches(digits(digits_dir, read_threads=threads, batch_size=256), "train", seed=2)
    with batches.read(9, index, count, stop=15) as reader:
        read = list(reader)
        assert list(reader) == []  # it stays at its end
    assert len(read) == 6
    for step, batch in zip(range(9, 15), read):
        assert_equal(batch, batches.local(step, index, count))


def test_caching_changes_nothing(digits_dir):
    plain = make_batches(digits(digits_dir), "train", seed=4)
    cached = make_batches(digits(digits_dir, cache="memory"), "train", seed=4)
    for step in (0, 40, 0):  # the same examples again, with other and with the same random numbers
        assert_equal(cached[step], plain[step])


def test_evaluation_counts_every_example_once(digits_dir):
    batches = make_batches(digits(digits_dir, eval_batch_size=50), "test", train=False)
    read = list(batches)
    assert len(read) == len(batches) == 8
    assert [len(batch["labels"]) for batch in read] == [50] * 8
    mask = np.concatenate([batch["example_mask"] for batch in read])
    assert mask.sum() == 359
    assert mask[:359].all()
    plain = make_batches(digits(digits_dir, eval_batch_size=1), "test", train=False)
    images = np.concatenate([batch["image"] for batch in read])
    np.testing.assert_array_equal(images[358], plain[358]["image"][0])
    assert not images[359:].any()


def test_a_process_may_have_nothing_but_padding():
    batches = counted(Counting(5), 8, seed=0, train=False)
    part = batches.local(0, process_index=3, process_count=4)
    assert not part["example_mask"].any()
    assert not part["image"].any()


def test_the_element_spec_tells_the_batches_shapes(digits_dir):
    for train in (True, False):
        config = digits(digits_dir, transforms=(Resize((10, 12)),), eval_transforms=(Resize((10, 12)),))
        batches = make_batches(config, "test", train=train)
        spec = {key: (value.shape[1:], value.dtype) for key, value in batches[0].items()}
        assert batches.element_spec == spec
        assert spec["image"] == ((10, 12, 1), np.uint8)
        assert spec["labels"] == ((), np.int32)


def test_random_numbers_belong_to_the_element_not_to_the_batch():
    class Draw(Transform):
        def __call__(self, example: dict, rng: np.random.Generator) -> dict:
            return example | {"labels": int(rng.integers(2**31))}

    small = counted(Counting(100), 4, seed=9, train=True, transforms=(Draw(),))
    large = counted(Counting(100), 20, seed=9, train=True, transforms=(Draw(),))
    stream = np.concatenate([small[step]["labels"] for step in range(50)])
    np.testing.assert_array_equal(stream[100:120], large[5]["labels"])
    assert len(set(stream)) == 200  # an example gets new numbers in the next epoch


def test_repeats_are_augmented_anew_and_an_epoch_stays_as_long(digits_dir):
    once, three = (make_batches(digits(digits_dir, batch_size=48, repeats=n), "train") for n in (1, 3))
    assert three.num_examples == once.num_examples
    assert three.steps_per_epoch == once.steps_per_epoch
    for step in (0, 25):
        copies = three[step]["image"].reshape(3, 16, 8, 8, 1)
        labels = three[step]["labels"].reshape(3, 16)
        assert (labels == labels[0]).all()
        for one, other in ((0, 1), (1, 2)):  # by numbers of their own, which are now and then alike
            assert (copies[one] != copies[other]).any((1, 2, 3)).mean() > 0.8
    plain = make_batches(digits(digits_dir, batch_size=48, repeats=3, transforms=()), "train")
    images = plain[7]["image"].reshape(3, 16, 8, 8, 1)
    assert (images == images[0]).all()


def test_repeats_are_the_same_for_any_processes_and_from_any_step(digits_dir):
    make = partial(make_batches, digits(digits_dir, batch_size=48, repeats=3, read_threads=2), "train", 5)
    batches = make()
    whole = [batches[step] for step in range(4)]
    parts = [batches.local(3, index, 4) for index in range(4)]
    assert_equal({key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, whole[3])
    with make().read(2, stop=4) as reader:  # another run that goes on from step 2
        for step, batch in zip((2, 3), reader, strict=True):
            assert_equal(batch, whole[step])


def test_an_evaluation_has_no_repeats(digits_dir):
    config = digits(digits_dir, batch_size=48, repeats=3)
    once = digits(digits_dir, batch_size=48)
    assert_equal(make_batches(config, "test", train=False)[0], make_batches(once, "test", train=False)[0])


def test_closing_ends_the_threads(digits_dir):
    def workers() -> int:
        return sum("grain" in thread.name for thread in threading.enumerate())

    before = workers()
    batches = make_batches(digits(digits_dir, read_threads=2), "train")
    with batches.read(0) as reader:
        next(reader)
        assert workers() > before
    deadline = time.monotonic() + 10
    while workers() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers() == before


def test_what_goes_wrong_in_a_thread_reaches_the_reader():
    class Fail(Transform):
        def __call__(self, example: dict, rng: np.random.Generator) -> dict:
            if example["labels"] == 17:
                raise ValueError("seventeen")
            return example

    batches = counted(Counting(40), 5, seed=0, train=False, transforms=(Fail(),))
    with pytest.raises(UserError, match=r"counting/1.0.0, split 'train', index 17: Fail failed: seventeen"):
        list(batches.read(0))


def broken_dataset(folder, images: list[bytes]) -> DataConfig:
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
    examples = [{"image": image, "label": index % 2} for index, image in enumerate(images)]
    write_dataset(folder, "pictures", "1.0.0", features, {"train": examples})
    return DataConfig(name="pictures", data_dir=str(folder), batch_size=4)


@pytest.mark.parametrize("damage", ["truncated", "not a picture", "empty"])
def test_a_broken_image_is_named(tmp_path, damage):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    good = cv2.imencode(".jpg", image)[1].tobytes()
    bad = {"truncated": good[: len(good) // 2], "not a picture": b"hello", "empty": b""}[damage]
    config = broken_dataset(tmp_path, [good] * 6 + [bad] + [good])
    batches = make_batches(config, "train", train=False)
    batches[0]
    for read in (lambda: batches[1], lambda: list(batches.read(1))):
        with pytest.raises(UserError, match=r"pictures/1.0.0, split 'train', index 6: broken image"):
            read()


def test_images_of_different_sizes_need_a_transform(tmp_path):
    images = [cv2.imencode(".png", np.zeros((side, 8, 3), np.uint8))[1].tobytes() for side in (8, 8, 9, 8)]
    config = broken_dataset(tmp_path, images)
    with pytest.raises(
        UserError, match=r"index 2: the image is \(9, 8, 3\), the first is \(8, 8, 3\); add a"
    ):
        make_batches(config, "train", train=False)[0]


def test_steps_and_processes_that_do_not_exist_are_refused():
    batches = counted(Counting(10), 4, seed=0, train=False)
    for step in (-1, 3):
        with pytest.raises(IndexError, match=f"step {step}"):
            batches[step]
    with pytest.raises(ValueError, match="does not divide by 3"):
        batches.local(0, 0, 3)
    with pytest.raises(ValueError, match="process_index 2"):
        batches.local(0, 2, 2)


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, 1), (128, 128), (256, 128), (1024, 128), (300, 100), (509, 509)]
)
def test_tasks_are_even_parts_of_a_batch(rows, expected):
    assert rows_per_task(rows) == expected


def test_cifar10_is_read_as_tfds_reads_it(cifar10_dir):
    config = DataConfig(name="cifar10", data_dir=cifar10_dir, eval_batch_size=64)
    batches = make_batches(config, "test[:64]", train=False)
    reference = tfds.builder_from_directory(f"{cifar10_dir}/cifar10/3.0.2").as_data_source("test")
    batch = batches[0]
    for row in range(64):
        np.testing.assert_array_equal(batch["image"][row], reference[row]["image"])
        assert batch["labels"][row] == reference[row]["label"]
    assert batches.class_names[:3] == ["airplane", "automobile", "bird"]
    assert len(make_batches(config, "train[:90%]", train=False)) * 64 >= 45_000


def test_every_batch_is_looked_at_without_its_padding(digits_dir):
    seen = []
    batches = make_batches(digits(digits_dir, eval_batch_size=100), "test", train=False, check=seen.append)
    assert len(list(batches)) == 4
    assert sorted(len(batch["labels"]) for batch in seen) == [59, 100, 100, 100]

    def refuse(batch):
        raise UserError("no such label")

    with pytest.raises(UserError, match="no such label"):
        next(make_batches(digits(digits_dir), "train", check=refuse).read())
