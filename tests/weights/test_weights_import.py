"""`weights import` writes a run that the other verbs take, and that a training can begin as."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

import jaxformer as jf
from jaxformer import cli
from jaxformer.config.schema import build
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.models import CONTRACT, MODELS
from jaxformer.weights.augreg import AUGREG
from jaxformer.weights.export import write_pretrained
from jaxformer.weights.preprocessing import Preprocessing

VIT = {
    "name": "vit", "image_size": 16, "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2, "num_classes": 3,
    "activation": "gelu_erf",
}  # fmt: skip
RESNET = {"name": "resnet", "stage_sizes": (1, 1), "width": 8, "num_classes": 3}
VIEW = Preprocessing(
    (16, 16), 20, corner="down", interpolation="bicubic", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)
)


def source(fields, folder):
    """A model in a folder as transformers would write it; its variables, of which none is left as it began."""
    model = build(MODELS, fields, "model", CONTRACT)
    variables = jf.init(model, image=(1, 16, 16, 3))
    variables = jax.tree.map(
        lambda x: x + 0.05 * np.random.default_rng(x.size).random(x.shape, np.float32), variables
    )
    write_pretrained(
        model, fields["name"], variables, folder, classes=("cat", "dog", "owl"), preprocessing=VIEW
    )
    return model, variables


def equal(found, expected):
    found, expected = flatten_dict(found), flatten_dict(expected)
    return found.keys() == expected.keys() and all(
        np.array_equal(found[path], expected[path]) for path in expected
    )


@pytest.mark.parametrize("fields", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_published_model_becomes_a_run_and_a_folder_again(fields, tmp_path, capsys):
    model, variables = source(fields, tmp_path / "source")
    run = tmp_path / "run"
    assert cli.main(["weights", "import", str(tmp_path / "source"), "--workdir", str(run)]) == 0
    loaded = jf.load_run(run)
    assert loaded.step == 0
    assert loaded.class_names == ["cat", "dog", "owl"]
    assert equal(loaded.variables, variables)

    pixels = np.random.default_rng(0).integers(0, 256, (30, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(tmp_path / "picture.png")]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[0])["predictions"]
    small = np.asarray(Image.fromarray(pixels).resize((20, 25), Image.Resampling.BICUBIC))[4:20, 2:18]
    seen = (small.astype(np.float32) / 255 - np.float32(VIEW.mean)) / np.float32(VIEW.std)
    expected = jax.nn.softmax(jax.jit(model.apply)(variables, seen[None]).logits[0])
    names = ("cat", "dog", "owl")
    for each in answer:
        assert each["probability"] == pytest.approx(float(expected[names.index(each["label"])]), abs=1e-5)

    again = jf.load_pretrained(run)
    assert equal(again.variables, variables)
    assert again.class_names == list(names)
    assert cli.main(["weights", "export", str(run), str(tmp_path / "out")]) == 0
    for name in ("config.json", "preprocessor_config.json"):
        before, after = (json.loads((tmp_path / folder / name).read_text()) for folder in ("source", "out"))
        assert after == before
    assert equal(jf.load_pretrained(tmp_path / "out").variables, variables)


def test_a_training_begins_as_a_run_with_its_statistics(tmp_path):
    _, variables = source(RESNET, tmp_path / "source")
    assert cli.main(["weights", "import", str(tmp_path / "source"), "--workdir", str(tmp_path / "run")]) == 0
    config = {
        "model": {"pretrained": str(tmp_path / "run")},
        "task": {"name": "classification", "mean": [0.5], "std": [0.5]},  # the source's are of three channels
        "data": {"name": "digits", "batch_size": 8},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "schedule": {"name": "constant"},
        "train": {"total": "1 steps"},
    }
    data = {
        "transforms": [{"name": "resize", "size": 16}],
        "eval_transforms": [{"name": "resize", "size": 16}],
    }
    config["data"] |= data
    # One channel of digits: the stem's kernel does not fit, and both names are given.
    with pytest.raises(UserError, match=r"conv_stem/kernel: conv_stem/kernel has shape \(7, 7, 3, 8\)"):
        jf.experiment(config).init_state()
    from jaxformer.data.base import NominalBatches
    from jaxformer.experiment import Experiment

    spec = {"image": ((16, 16, 3), np.dtype(np.uint8)), "labels": ((), np.dtype(np.int32))}
    nominal = NominalBatches(8, 8, spec, sizes={"num_classes": 5})
    state = Experiment(resolve(config), train_data=nominal, eval_data=nominal).init_state()
    assert equal(state.model_state["batch_stats"], variables["batch_stats"])
    head = state.params.pop("head")
    assert head["kernel"].shape == (64, 5)
    assert equal(state.params, {name: x for name, x in variables["params"].items() if name != "head"})


def test_a_run_of_another_resolution_and_a_head_that_is_missing(tmp_path, capsys):
    source(VIT, tmp_path / "source")
    words = ["weights", "import", str(tmp_path / "source"), "--workdir", str(tmp_path / "run")]
    assert cli.main([*words, "--config.model.image_size=32"]) == 0
    assert jf.load_run(tmp_path / "run").variables["params"]["position_embedding"].shape == (1, 17, 16)
    source({**VIT, "num_classes": 0, "representation": 16}, tmp_path / "headless")
    bare = ["weights", "import", str(tmp_path / "headless"), "--workdir", str(tmp_path / "bare")]
    assert cli.main(bare) == 0
    Image.fromarray(np.zeros((30, 24, 3), np.uint8)).save(tmp_path / "picture.png")
    assert cli.main(["predict", str(tmp_path / "bare"), str(tmp_path / "picture.png")]) == 2
    assert "has no head" in capsys.readouterr().err
    assert cli.main(words) == 2
    assert "is not empty; name another folder" in capsys.readouterr().err


def test_an_npz_file_tells_which_model_it_is(tmp_path):
    model = build(MODELS, {**VIT, "activation": "gelu_tanh"}, "model", CONTRACT)
    variables = jf.init(model, image=(1, 16, 16, 3))
    old = {
        row.theirs
        for row in AUGREG.rows
        if any(x in row.theirs for x in ("Attention_1", "Norm_2", "Block_3"))
    }
    np.savez(tmp_path / "vit.npz", **AUGREG.write(variables, {*old, "pos_embedding"}))
    found = jf.load_pretrained(tmp_path / "vit.npz")
    assert found.model == model.clone(mlp_dim=64)
    assert equal(found.variables, variables)


def test_files_that_tell_nothing_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", kernel=np.zeros(3))
    with pytest.raises(UserError, match="of no model that is known by their names"):
        jf.load_pretrained(tmp_path / "a.npz")
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\xff")
    with pytest.raises(UserError, match="is no whole ONNX file"):
        jf.load_pretrained(tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"b\.onnx: there is no such file"):
        jf.load_pretrained(tmp_path / "b.onnx")
    with pytest.raises(UserError, match="is a pickle, which is never loaded"):
        jf.load_pretrained(tmp_path / "b.pth")


def test_an_empty_source_is_refused_with_the_config():
    config = {"model": {"name": "vit", "pretrained": ""}}
    with pytest.raises(UserError, match=r'model\.pretrained="": expected a folder or a name of the Hub'):
        resolve(config)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "files"), [("bert", 1), ("gpt", 3)])
def test_importing_needs_little_memory_beyond_the_parameters(family, files, tmp_path):
    """The peak of a process is less than what stays and 1.3 times the largest tensor."""
    script = Path(__file__).parents[2] / "benchmarks" / "weights_import.py"
    spec = importlib.util.spec_from_file_location("weights_import", script)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    sizes = benchmark.write_source(tmp_path, family, 768, 6, 12, files)
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    for way in ("load_pretrained", "model.pretrained"):
        words = [sys.executable, script, "--child", way, tmp_path]
        more = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)[-1]
        assert 0.5 * sum(sizes) < more * 2**20 < sum(sizes) + 1.3 * max(sizes), way
