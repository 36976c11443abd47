"""The embedded dataset: its content, its split, and that it is written in one piece."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxformer.data.catalog import EMBEDDED
from jaxformer.data.config import DataConfig
from jaxformer.data.digits import prepare_digits, split_indices, to_uint8
from jaxformer.data.kinds.images import ImageSource

PREPARE = "import sys; from pathlib import Path; from jaxformer.data.digits import prepare_digits; "


def read_everything(data_dir: str, split: str) -> list[dict]:
    source = ImageSource(DataConfig(data_dir=data_dir), split)
    return source.read(range(len(source)))


def test_grey_levels_stay_distinct_and_can_be_given_back():
    levels = np.arange(17.0)
    assert to_uint8(levels)[[0, 8, 16]].tolist() == [0, 128, 255]
    np.testing.assert_array_equal(np.rint(to_uint8(levels).astype(float) * 16 / 255), levels)


def test_the_split_is_stratified_and_holds_every_digit_once():
    labels = load_digits().target
    splits = split_indices(labels)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1797))
    for digit in range(10):
        share = np.mean(labels[splits["test"]] == digit) / np.mean(labels == digit)
        assert 0.97 < share < 1.03
    assert {name: len(indices) for name, indices in splits.items()} == EMBEDDED["digits"].splits
    assert len(splits["test"]) == 359
    assert splits["test"][:6].tolist() == [4, 13, 20, 28, 30, 31]  # fixed for good, so that results compare


def test_the_dataset_holds_scikit_learns_pictures(digits_dir):
    digits = load_digits()
    for split, indices in split_indices(digits.target).items():
        examples = read_everything(digits_dir, split)
        assert [example["labels"] for example in examples] == digits.target[indices].tolist()
        images = np.stack([example["image"] for example in examples])
        assert images.shape[1:] == (8, 8, 1)
        np.testing.assert_array_equal(images[..., 0], to_uint8(digits.images[indices]))


def test_processes_that_start_together_make_one_dataset(tmp_path):
    code = PREPARE + (
        "import cv2, tensorflow_datasets, sklearn.datasets; print('ready', flush=True); "
        "sys.stdin.readline(); "
        "prepare_digits(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as two:
        assert [process.stdout.readline() for process in (one, two)] == [b"ready\n"] * 2
        for process in (one, two):
            process.stdin.write(b"go\n")
            process.stdin.flush()
    assert [one.returncode, two.returncode] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(read_everything(str(tmp_path), "train")) == 1438


def test_a_kill_in_the_middle_leaves_nothing_that_looks_like_a_dataset(tmp_path):
    code = PREPARE + (
        "import time, tensorflow_datasets as tfds\n"
        "add_examples = tfds.core.SequentialWriter.add_examples\n"
        "def slowly(writer, examples):\n"
        "    for split, chunk in examples.items():\n"
        "        for start in range(0, len(chunk), 16):\n"
        "            time.sleep(0.02)\n"
        "            add_examples(writer, {split: chunk[start : start + 16]})\n"
        "tfds.core.SequentialWriter.add_examples = slowly\n"
        "prepare_digits(Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 60
    while (
        not list(tmp_path.glob(".digits.incomplete-*/*train.array_record*")) and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob(".digits.incomplete-*")), "it was killed too late for this test"
    assert not (tmp_path / "digits").exists()
    assert len(read_everything(str(tmp_path), "test")) == 359  # prepares it anew
    assert [path.name for path in tmp_path.iterdir()] == [
        "digits"
    ]  # and clears the dead process's folder away


def test_a_read_only_default_folder_sends_the_digits_to_the_cache(tmp_path, monkeypatch):
    shared, home = tmp_path / "shared", tmp_path / "home"
    shared.mkdir(mode=0o555)
    home.mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared))
    monkeypatch.setenv("HOME", str(home))
    assert len(ImageSource(DataConfig(), "test")) == 359
    assert not os.listdir(shared)
    assert (home / ".cache/jaxformer/tensorflow_datasets/digits/1.0.0/dataset_info.json").exists()


@pytest.mark.parametrize("host", [socket.gethostname(), "another-machine"])
def test_folders_of_writers_that_may_be_alive_are_left_alone(tmp_path, host):
    theirs = tmp_path / f".digits.incomplete-{host}-{os.getppid()}-abc"
    theirs.mkdir()
    prepare_digits(tmp_path)
    assert theirs.exists()
