"""Examples in a run's folder."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxformer.observe.samples import read_samples, visible, worst_mistakes, write_samples


def attention_of(count, tokens=17, layers=4, heads=3):
    weights = np.random.default_rng(0).random((count, layers, heads, tokens, tokens), np.float32)
    return weights / weights.sum(-1, keepdims=True)


def test_worst_mistakes_are_the_surest_ones():
    labels = np.array([0, 1, 0, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.45, 0.55]])
    np.testing.assert_array_equal(worst_mistakes(labels, probabilities, 10), [2, 1, 4])
    np.testing.assert_array_equal(worst_mistakes(labels, probabilities, 2), [2, 1])
    assert worst_mistakes(labels[:1], probabilities[:1], 5).shape == (0,)


def test_real_digits_mistakes_are_all_wrong(digits):
    _, labels, probabilities = digits
    worst = worst_mistakes(labels, probabilities, 20)
    assert (probabilities[worst].argmax(-1) != labels[worst]).all()
    confidence = probabilities.max(-1)
    assert (np.diff(confidence[worst]) <= 0).all()
    wrong = probabilities.argmax(-1) != labels
    assert confidence[worst[0]] == confidence[wrong].max()


def test_written_samples(tmp_path, digits):
    images, labels, probabilities = (part[:3] for part in digits)
    names = [f"digit {k}" for k in range(10)]
    folder = write_samples(tmp_path, images, labels, probabilities, names, attention_of(3), kind="samples")
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
        assert heads.mode == "RGBA"


def test_samples_of_a_model_without_attention_and_of_classes_without_names(tmp_path, digits):
    images, labels, probabilities = (part[:2] for part in digits)
    folder = write_samples(tmp_path, images.repeat(3, axis=-1), labels, probabilities, kind="samples")
    content = json.loads((folder / "samples.json").read_text())
    assert "layers" not in content
    assert content["samples"][0]["label"] == str(labels[0])
    assert {path.name for path in folder.iterdir()} == {"000.png", "001.png", "samples.json"}


def test_writing_again_replaces_all_of_a_kind_and_leaves_no_remains(tmp_path, digits):
    images, labels, probabilities = digits
    write_samples(tmp_path, images[:5], labels[:5], probabilities[:5], kind="samples")
    write_samples(tmp_path, images[:1], labels[:1], probabilities[:1], kind="mistakes")
    write_samples(tmp_path, images[:2], labels[:2], probabilities[:2], kind="samples")
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"samples", "mistakes"}
    assert {kind["kind"]: len(kind["samples"]) for kind in read_samples(tmp_path)} == {
        "samples": 2,
        "mistakes": 1,
    }


def test_a_failure_keeps_what_was_there(tmp_path, digits):
    images, labels, probabilities = (part[:2] for part in digits)
    write_samples(tmp_path, images, labels, probabilities, kind="samples")
    with pytest.raises(ValueError, match="tokens"):
        write_samples(
            tmp_path, images, labels, probabilities, None, attention_of(2), kind="samples", grid=(2, 2)
        )
    assert len(read_samples(tmp_path)[0]["samples"]) == 2
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["samples"]


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
