"""Every config in configs/ builds, takes two steps on tiny shapes, evaluates, and goes on where it stopped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.scenes import CLASSES, SIDE, write_scenes
from helpers.scenes import NAME as SCENES
from helpers.sentences import NAME, write_sentences
from helpers.shipped import read

from jaxformer.analysis.nominal import Known, image_shape
from jaxformer.config import files as configfile
from jaxformer.config import schema
from jaxformer.config.reference import reference
from jaxformer.config.schema import to_dict
from jaxformer.config.sections import ExperimentConfig, resolve
from jaxformer.debugging.checks import debug
from jaxformer.debugging.tiny import tiny
from jaxformer.experiment import Experiment
from jaxformer.train import train

CONFIGS = sorted(Path(__file__).parent.parent.glob("configs/*.py"))


@pytest.fixture(scope="module")
def scenes_dir(tmp_path_factory):
    """A TFDS folder with a dataset of pictures with boxes, masks and texts."""
    return write_scenes(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def sentences_dir(tmp_path_factory):
    """A TFDS folder with a dataset of text; and a cache of tokens for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_sentences(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory, request):
    """The folder of a run, for configs that learn from one."""
    path = next(path for path in CONFIGS if path.stem == "resnet_cifar10")
    folder = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        train(Experiment(of_fixtures(path, request)), folder)
    return folder


def without_report(patch):
    """Trainings write no report: of another training of the same config there is one."""
    for name in ("write_shown", "write_report"):
        patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)


def of_fixtures(path, request):
    """The config's tiny form for two steps; it reads the digits, the sentences or the scenes instead of its dataset.

    Of the fixtures only those are made that it needs.
    """
    config = read(path)
    data, evaluation, side = config["data"], "test[:64]", 8
    data["train_split"] = "train"

    def fixture(name):
        return str(request.getfixturevalue(name))

    if "tokenizer" in data:
        if data["tokenizer"]["name"] == "trained":
            data["tokenizer"]["vocab_size"] = 300
        elif data["tokenizer"]["name"] == "file":
            data["tokenizer"] = {"name": "bytes", "template": data["tokenizer"]["template"]}
            config["model"]["vocab_size"] = None
    if data.get("examples", {}).get("name") in ("detection", "segmentation", "captions"):
        data |= {"name": SCENES, "data_dir": fixture("scenes_dir")}
        evaluation = "test"
        for name, feature in data[
            "examples"
        ].items():  # the scenes have one caption, question and answer each
            if name in ("caption_feature", "prompt_feature"):
                data["examples"][name] = feature.removesuffix("s")
        data["examples"].pop("more_captions", None)
        if data["examples"]["name"] == "segmentation":
            data["examples"] |= {"class_names": CLASSES, "ignore_labels": [len(CLASSES) - 1]}
            config["task"]["class_weights"] = None
    elif "tokenizer" in data:
        data |= {"name": NAME, "data_dir": fixture("sentences_dir")}
        evaluation = "test[:20]"
    else:
        data |= {"name": "digits", "data_dir": fixture("digits_dir")}
        config["task"] |= {"mean": [0.5], "std": [0.5]}
        if "image_size" in config["model"]:
            config["model"]["image_size"] = 8
            if config["model"].get("patch_size", 0) > 8:
                config["model"]["patch_size"] = 4
        if config["model"]["name"] == "coatnet":  # of 8 pixels its attention would see one token
            config["model"]["image_size"] = side = 16
            for transforms in (data["transforms"], data["eval_transforms"]):
                transforms.insert(0, {"name": "resize", "size": side})
        if "distillation" in config["task"]:
            config["task"]["distillation"]["run"] = fixture("teacher_dir")
    written = to_dict(tiny(resolve(config), layers=1, side=side if data["name"] == "digits" else SIDE))
    written["train"]["total"] = "2 steps"
    written["eval"] |= {"split": evaluation, "every": "1 step"}
    written["checkpoint"] |= {"every": "1 step", "keep": 3}
    return resolve(written)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_two_steps_and_going_on(path, tmp_path, request, monkeypatch):
    """Goes on with the parts that are built already; test_resume.py and test_kills.py go on in a new process."""
    experiment = Experiment(of_fixtures(path, request))
    result = train(experiment, tmp_path / "run")
    assert (result["status"], result["step"]) == ("completed", 2)
    assert np.isfinite(list(result["final"].values())).all()
    assert set(result["final"]) <= set(experiment.task.metric_names)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    # As if it had been killed after the first step.
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "2")
    (tmp_path / "killed" / "result.json").unlink()
    without_report(monkeypatch)
    again = train(experiment, tmp_path / "killed")
    assert again["final"] == result["final"]
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_nominal_batches_have_the_arrays_of_real_ones(path, request):
    config = of_fixtures(path, request)
    shape = image_shape(config, Known(side=8 if config.data.name == "digits" else SIDE))
    real = dict(Experiment(config).train_data.element_spec)
    if config.data.name == "digits":
        real["image"] = ((*real["image"][0][:2], 3), real["image"][1])  # they are grey, and others seldom
    assert config.data.examples.nominal_spec(shape, config.data.transforms) == real


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_nothing_is_wrong_with_it(path, request):
    found = list(debug(of_fixtures(path, request)))
    assert [finding.text for finding in found if finding.verdict == "wrong"] == []
    assert any("learnt by heart" in finding.text for finding in found)
    assert any("in float64" in finding.text for finding in found)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_resolved_config_reads_back(path):
    experiment = resolve(read(path))
    assert resolve(json.loads(json.dumps(to_dict(experiment)))) == experiment


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_docstring_gives_command_and_result(path):
    text = path.read_text().split('"""')[1]
    assert f"--config configs/{path.name}" in text
    assert "Result:" in text


def test_every_field_that_a_config_may_set_is_documented():
    def classes(cls):
        yield cls
        for field in schema.config_fields(cls).values():
            choices = field.metadata.get("choices")
            for target in choices.table.values() if choices else ():
                yield schema.load(target)
            if hasattr(field.type, "__dataclass_fields__"):
                yield from classes(field.type)

    for cls in classes(ExperimentConfig):
        missing = [field.name for field in reference(cls) if not field.doc]
        assert not missing, f"{cls.__name__}: {sorted(missing)}"


def test_the_imagenet_recipe_is_the_papers(monkeypatch, tmp_path):
    """Beyer et al. 2022: ViT-S/16, 90 epochs of batch 1024, 10,000 steps of warm-up to 1e-3."""
    import jax

    from jaxformer.analysis.describe import assemble

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    config = configfile.read(str(next(p for p in CONFIGS if p.stem == "vit_s16_imagenet")))
    experiment = assemble(resolve(config))
    params = experiment.variable_shapes["params"]
    # ViT-S/16 with a class token and a learned table has 22,050,664; without both (384 + 197 * 384 fewer):
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 22_050_664 - 384 - 197 * 384
    assert experiment.total_steps == -(-90 * (1_281_167 * 99 // 100) // 1024)
    assert float(experiment.schedule(10_000)) == pytest.approx(1e-3, rel=1e-5)
    assert float(experiment.schedule(5_000)) == pytest.approx(5e-4, rel=1e-3)
    assert float(experiment.schedule(experiment.total_steps)) == pytest.approx(0, abs=1e-8)
    # 4.6 GFLOPs as multiply-adds (Touvron et al. 2021, table 5), less the class token.
    assert experiment.forward_flops / 2e9 == pytest.approx(4.6, abs=0.05)
