"""`predict` of a detector: boxes in the pixels of each picture, whatever its size."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers.scenes import NAME, SIDE, write_scenes
from PIL import Image

from jaxformer import cli
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.inference.loaded import LoadedRun
from jaxformer.train import train

CONFIG = {
    "task": {"name": "detection", "score_threshold": 0.0},
    "model": {
        "name": "detr",
        "backbone": {"name": "conv_stem", "channels": (8, 8, 8), "strides": (2,)},
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
        "mlp_dim": 16,
        "num_queries": 4,
    },
    "data": {
        "name": NAME,
        "batch_size": 8,
        "examples": {"name": "detection", "size": (SIDE, 2 * SIDE), "max_objects": 3},
    },
    "eval": {"split": "test", "every": "2 steps", "monitor": "ap50"},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "schedule": {"name": "constant"},
    "train": {"total": "2 steps"},
    "checkpoint": {"every": "2 steps"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has learnt next to nothing."""
    datasets = write_scenes(tmp_path_factory.mktemp("datasets"))
    config = {**CONFIG, "data": {**CONFIG["data"], "data_dir": str(datasets)}}
    folder = tmp_path_factory.mktemp("runs") / "detector"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_shown", "write_report"):  # tests/test_configs.py has them
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        train(Experiment(resolve(config)), folder)
    return folder


def test_boxes_are_in_the_pixels_of_the_picture(run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    sizes = {"wide": (60, 200), "tall": (90, 30)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / f"{name}.png") for name in sizes]
    assert cli.main(["predict", str(run), *files, "--output", str(tmp_path / "out")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == files
    trained = LoadedRun(run)
    model, task = trained.model, trained.task
    apply = jax.jit(model.apply)
    for line, (name, (height, width)) in zip(lines, sizes.items()):
        example = trained.example(tmp_path / f"{name}.png")
        # Kept in shape, at the top left of the frame of 32 x 64 pixels.
        scale = min(SIDE / height, 2 * SIDE / width)
        np.testing.assert_allclose(example["extent"], [scale * height, scale * width], atol=1)
        batch = {key: example[key][None] for key in ("image", "extent")}
        outputs = apply(trained.variables, **task.inputs(batch))
        x, y, w, h = np.asarray(outputs.boxes[-1, 0], np.float64).T
        corners = np.clip(np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1), 0, 1)
        expected = corners * [width, height, width, height]
        found = line["objects"]
        assert found
        assert {entry["label"] for entry in found} <= {"red", "green", "blue"}
        scores = [entry["score"] for entry in found]
        assert scores == sorted(scores, reverse=True)
        for entry in found:  # one of the queries' boxes
            assert np.abs(expected - entry["box"]).max(axis=1).min() < 0.02
        assert (tmp_path / "out" / f"{name}.png").exists()


def test_to_predict_the_folder_is_enough(run, tmp_path, capsys):
    moved = shutil.copytree(run, tmp_path / "moved")
    about = json.loads((moved / "config.json").read_text())
    about["config"]["data"]["data_dir"] = str(tmp_path / "nowhere")
    (moved / "config.json").write_text(json.dumps(about))
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(picture)
    said = []
    for folder in (run, moved):
        assert cli.main(["predict", str(folder), str(picture), "--output", str(tmp_path / "out")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert cli.main(["evaluate", str(moved)]) == 2
    assert f"dataset {NAME!r} is not prepared" in capsys.readouterr().err
    (moved / "data.json").unlink()
    assert cli.main(["predict", str(moved), str(picture)]) == 2
    assert f"dataset {NAME!r} is not prepared" in capsys.readouterr().err


def test_a_text_is_not_a_picture(run, tmp_path, capsys):
    (tmp_path / "note.png").write_text("not a picture")
    assert cli.main(["predict", str(run), str(tmp_path / "note.png"), "--output", str(tmp_path / "out")]) == 2
    assert "note.png" in capsys.readouterr().err
