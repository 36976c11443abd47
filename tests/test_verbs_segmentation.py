"""A segmenter from training to the report, and `predict` on pictures of any size: colours, maps, JSON lines."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.scenes import CLASSES, NAME, SIDE, write_scenes
from PIL import Image

from jaxformer import cli, drawing
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.observe.report import write_report
from jaxformer.tasks.segmentation import at_size, map_image
from jaxformer.train import train

CONFIG = {
    "task": {"name": "segmentation", "dice": 1.0},
    "model": {
        "name": "segmenter",
        "backbone": {
            "name": "resnet", "stage_sizes": (1, 1), "block": "basic", "width": 8, "stem": "small", "num_classes": 0,
        },
        "decoder": {"name": "fpn", "width": 8},
    },
    "data": {
        "name": NAME,
        "batch_size": 8,
        "examples": {
            "name": "segmentation", "size": (SIDE, 2 * SIDE), "class_names": CLASSES, "ignore_labels": (3,),
        },
    },
    "eval": {"split": "test", "every": "40 steps", "monitor": "mean_iou"},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "schedule": {"name": "constant"},
    "train": {"total": "40 steps"},
    "checkpoint": {"every": "40 steps"},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has learnt the three colours."""
    datasets = write_scenes(tmp_path_factory.mktemp("datasets"))
    config = {**CONFIG, "data": {**CONFIG["data"], "data_dir": str(datasets)}}
    folder = tmp_path_factory.mktemp("runs") / "segmenter"
    train(Experiment(resolve(config)), folder)
    return folder


def opened(path):
    """A picture whose file is closed."""
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_it_learns_and_its_report_shows_it(run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["metrics"]["mean_iou"] > 0.8
    assert [row["name"] for row in evaluation["per_class"]] == list(CLASSES[:3])
    page = write_report(run).read_text()
    for said in ('alt="truth"', 'alt="prediction"', drawing.css(1), "of its pixels are right", "IoU"):
        assert said in page
    samples = json.loads((run / "samples" / "samples" / "samples.json").read_text())["samples"]
    shown = samples[0]
    assert {entry["name"] for entry in shown["legend"]} <= set(CLASSES[:3])
    folder = run / "samples" / "samples"
    truth, picture = opened(folder / shown["drawn"][0]["picture"]), opened(folder / shown["image"])
    for shown in (truth, picture):
        assert shown.width == shown.height  # the padding is cut off


def test_predict_writes_maps_and_colours(run, tmp_path, capsys):
    """In the pictures' own sizes."""
    pixels = np.full((40, 50, 3), 125, np.uint8)
    pixels[5:35, 3:25], pixels[5:35, 25:47] = (200, 40, 40), (40, 40, 200)
    Image.fromarray(pixels).save(tmp_path / "two.png")
    Image.fromarray(pixels[:, :25].copy()).save(tmp_path / "one.png")
    output = tmp_path / "out"
    assert (
        cli.main(
            [
                "predict",
                str(run),
                str(tmp_path / "two.png"),
                str(tmp_path / "one.png"),
                "--output",
                str(output),
            ]
        )
        == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["two.png", "one.png"]
    found = opened(output / lines[0]["map"])
    assert (found.mode, found.size) == ("P", (50, 40))
    classes = np.asarray(found)
    assert np.mean(classes[8:32, 6:22] == 0) > 0.9
    assert np.mean(classes[8:32, 28:44] == 2) > 0.9
    shares = {entry["label"]: entry["share"] for entry in lines[0]["classes"]}
    np.testing.assert_allclose(sum(shares.values()), 1, atol=1e-5)
    np.testing.assert_allclose(shares["red"], np.mean(classes == 0), atol=1e-6)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert found.convert("RGB").getpixel((10, 20)) == drawing.colour(0)
    assert opened(output / "two.png").width > 50
    assert opened(output / lines[1]["map"]).size == (25, 40)


def test_a_map_goes_back_to_the_pictures_size():
    classes = np.zeros((4, 6), np.uint8)
    classes[:2, :3] = [[1, 2, 3], [4, 5, 6]]
    ours = at_size(classes, np.array([2, 3]), (6, 3, 3))
    np.testing.assert_array_equal(ours, np.repeat([[1, 2, 3], [4, 5, 6]], 3, axis=0))


def test_many_classes_are_written_in_two_bytes():
    classes = np.array([[0, 299]], np.int32)
    np.testing.assert_array_equal(np.asarray(map_image(classes, few=False)), classes)
    assert map_image(classes[:, :1], few=True).mode == "P"


def test_colours_of_classes_differ():
    assert len({drawing.colour(index) for index in range(150)}) == 150


def test_pixels_without_a_class_stay_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    classes = np.full((3, 4), -1, np.int32)
    np.testing.assert_array_equal(drawing.over_image(image, classes), image)
    classes[1, 2] = 5
    drawn = drawing.over_image(image, classes, strength=1.0)
    np.testing.assert_array_equal(drawn[1, 2], drawing.colour(5))
    np.testing.assert_array_equal(drawn[classes < 0], image[classes < 0])
