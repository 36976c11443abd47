"""Examples in a run's folder."""

import json

import numpy as np
import pytest
from helpers.shown_images import attention_of, shown_images
from PIL import Image

from jaxformer.observe.samples import Patches, read_samples, save_png, visible, write_samples


def test_written_samples(tmp_path, digits):
    images, labels, probabilities = (part[:3] for part in digits)
    names = [f"digit {k}" for k in range(10)]
    examples = shown_images(images, labels, probabilities, names, attention_of(3))
    folder = write_samples(tmp_path, examples, kind="samples")
    content = json.loads((folder / "samples.json").read_text())
    assert (content["kind"], content["layers"], content["heads"]) == ("samples", 4, 3)
    first = content["samples"][0]
    assert first["label"] == f"digit {labels[0]}"
    assert first["top"][0]["class"] == f"digit {probabilities[0].argmax()}"
    assert first["top"][0]["probability"] == pytest.approx(probabilities[0].max(), abs=1e-6)
    assert first["correct"] == (probabilities[0].argmax() == labels[0])
    with Image.open(folder / first["image"]) as file:
        picture = np.asarray(file)
    np.testing.assert_array_equal(picture, images[0, :, :, 0].repeat(20, 0).repeat(20, 1))
    with Image.open(folder / first["rollout"]) as rollout, Image.open(folder / first["heads"]) as heads:
        assert rollout.size == (160, 160)
        assert heads.size == (3 * 51 - 3, 4 * 51 - 3)
        assert heads.has_transparency_data


def test_samples_of_a_model_without_attention(tmp_path, digits):
    images, labels, probabilities = (part[:2] for part in digits)
    examples = shown_images(images.repeat(3, axis=-1), labels, probabilities)
    folder = write_samples(tmp_path, examples, kind="samples")
    content = json.loads((folder / "samples.json").read_text())
    assert "layers" not in content
    assert content["samples"][0]["label"] == str(labels[0])
    assert {path.name for path in folder.iterdir()} == {"000.png", "001.png", "samples.json"}


def test_writing_again_replaces_all_of_a_kind_and_leaves_no_remains(tmp_path, digits):
    for count, kind in ((5, "samples"), (1, "mistakes"), (2, "samples")):
        write_samples(tmp_path, shown_images(*(part[:count] for part in digits)), kind=kind)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"samples", "mistakes"}
    assert {kind["kind"]: len(kind["samples"]) for kind in read_samples(tmp_path)} == {
        "samples": 2,
        "mistakes": 1,
    }


def test_a_failure_keeps_what_was_there(tmp_path, digits):
    parts = [part[:2] for part in digits]
    write_samples(tmp_path, shown_images(*parts), kind="samples")
    examples = shown_images(*parts, None, attention_of(2))
    with pytest.raises(ValueError, match="tokens"):
        write_samples(tmp_path, examples, kind="samples", patches=Patches((2, 2)))
    assert len(read_samples(tmp_path)[0]["samples"]) == 2
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["samples"]


@pytest.mark.parametrize(("colours", "mode"), [(256, "P"), (257, "RGBA")])
def test_a_palette_loses_nothing(tmp_path, colours, mode):
    rng = np.random.default_rng(0)
    table = rng.choice(2**16, colours, replace=False) * 65_521  # odd: no two are alike
    table = table.astype(np.uint32).view(np.uint8).reshape(-1, 4)
    picture = table[np.r_[np.arange(colours), rng.integers(0, colours, 30 * 20 - colours)].reshape(30, 20)]
    with Image.open(tmp_path / save_png(tmp_path / "a.png", picture)) as file:
        assert file.mode == mode
        np.testing.assert_array_equal(np.asarray(file.convert("RGBA")), picture)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8, 1), (160, 160, 1)),
        ((32, 32, 3), (160, 160, 3)),
        ((100, 60, 3), (100, 60, 3)),
        ((480, 640, 3), (120, 160, 3)),
        ((1000, 2, 1), (160, 1, 1)),
        ((200, 200, 1), (160, 160, 1)),
    ],
)
def test_pictures_are_of_a_size_to_be_seen(shape, expected):
    assert visible(np.zeros(shape, np.uint8)).shape == expected
