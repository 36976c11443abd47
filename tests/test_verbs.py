"""Every verb of the command line on a small finished run: what it prints, what it writes, exit code 0."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.image_files import encoded, of_mode, png_that_claims
from helpers.importing_cases import write
from PIL import Image
from sklearn.datasets import load_digits

from jaxformer import cli
from jaxformer.analysis.describe import assemble
from jaxformer.data.digits import split_indices, to_uint8
from jaxformer.inference.loaded import LoadedRun
from jaxformer.observe.text import engineering
from jaxformer.runs import Run

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.transforms": [],
    "optimizer": {"name": "adamw", "learning_rate": 5e-3, "weight_decay": 0.05},
    "schedule": {"name": "constant"},
    "eval": {
        "split": "test[:128]",
        "every": "20 steps",
        "monitor": "ece",
    },  # the first is best: it is the least sure
    "train.total": "60 steps",
    "checkpoint.every": "20 steps",
}
OVERRIDES = [f"--config.{key}={value}" for key, value in TINY.items()]
DIGITS = load_digits()
TEST = split_indices(DIGITS.target)["test"]


@pytest.fixture(autouse=True, scope="module")
def environment(digits_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main(["train", "--config", CONFIG, "--workdir", str(folder), *OVERRIDES]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of the run, to change."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(finished, tmp_path / "tiny")


@pytest.fixture
def said(capsys):
    """What a command line that succeeds prints to stdout."""

    def ask(*argv):
        capsys.readouterr()
        assert cli.main([str(a) for a in argv]) == 0
        return capsys.readouterr().out

    return ask


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def logged(run):
    """Step -> metrics of the evaluations in training."""
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {
        r["step"]: {k.removeprefix("eval/"): v for k, v in r.items() if k.startswith("eval/")}
        for r in records
        if "eval/loss" in r
    }


def only_line(text):
    (line,) = text.splitlines()
    return json.loads(line)


def save_digits(folder, indices):
    """Digits as PNG files, named by their place."""
    paths = []
    for index in indices:
        paths.append(folder / f"{index}.png")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_uint8(DIGITS.images[index])).save(paths[-1])
    return paths


def test_training_a_finished_run_says_there_is_nothing_to_do(run, capsys):
    before = files(run)
    assert cli.main(["train", "--config", CONFIG, "--workdir", str(run), *OVERRIDES]) == 0
    out, err = capsys.readouterr()
    assert "is finished (completed at step 60): nothing to do" in err
    assert out == ""
    assert {p.name for p, time in files(run).items() if before.get(p) != time} == {"config.json"}


@pytest.mark.parametrize(("checkpoint", "step"), [([], 20), (["best"], 20), (["latest"], 60), (["40"], 40)])
def test_evaluate_prints_what_training_saw_at_that_checkpoint(checkpoint, step, run, said):
    printed = only_line(said("evaluate", run, *(["--checkpoint", *checkpoint] if checkpoint else [])))
    metrics = logged(run)[step]
    assert (printed.pop("step"), printed.pop("split")) == (step, "test[:128]")
    assert printed == pytest.approx(metrics, rel=1e-6)
    if step == 60:
        final = json.loads((run / "result.json").read_text())["final"]
        assert metrics == final
    written = json.loads((run / "evaluation.json").read_text())
    assert written["step"] == step
    assert written["metrics"] == printed
    assert np.sum(written["confusion"]) == 128


def test_evaluating_another_split_leaves_the_runs_own_evaluation(run, said):
    before = (run / "evaluation.json").read_bytes()
    printed = only_line(said("evaluate", run, "--split", "train[:64]", "--checkpoint", "latest"))
    assert (printed["step"], printed["split"]) == (60, "train[:64]")
    assert printed["loss"] != logged(run)[60]["loss"]
    assert (run / "evaluation.json").read_bytes() == before


def test_views_of_each_picture_are_averaged_and_the_runs_own_evaluation_stays(run, said):
    before = (run / "evaluation.json").read_bytes()
    printed = only_line(
        said("evaluate", run, "--split", "train[:64]", "--checkpoint", "latest", "--tta", "flip")
    )
    trained = LoadedRun(run, "latest")
    batch = trained.opened("train[:64]").eval_data[0]
    images, labels = batch["image"][:64], batch["labels"][:64]
    apply = jax.jit(partial(trained.task.predict, trained.model, trained.variables))
    both = [apply({"image": view})["probabilities"] for view in (images, images[:, :, ::-1])]
    chances = np.mean(both, axis=0)[np.arange(64), labels]
    assert printed["tta"] == "flip"
    assert printed["loss"] == pytest.approx(-np.log(chances).mean(), rel=1e-4)
    assert printed["accuracy"] == pytest.approx((np.mean(both, axis=0).argmax(-1) == labels).mean())
    said("evaluate", run, "--tta", "five_crop")
    assert (run / "evaluation.json").read_bytes() == before


def test_a_run_from_other_devices_is_evaluated_on_these(run, said):
    """A batch of 30, as 2 devices could share it."""
    about = json.loads((run / "config.json").read_text())
    about["config"]["data"]["eval_batch_size"] = 30
    about["config"]["parallel"]["mesh"] = {"data": 2}
    (run / "config.json").write_text(json.dumps(about))
    printed = only_line(said("evaluate", run, "--checkpoint", "latest"))
    assert printed["loss"] == pytest.approx(logged(run)[60]["loss"], rel=1e-6)


def test_predict_gives_the_models_own_predictions_and_pictures(run, said, tmp_path):
    chosen = TEST[:8]
    paths = save_digits(tmp_path / "digits", chosen)
    output = tmp_path / "out"
    text = said("predict", run, *paths, "--output", output, "--checkpoint", "latest", "--top", "3")
    assert (output / "predictions.jsonl").read_text() == text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["file"] for line in lines] == [str(path) for path in paths]

    trained = LoadedRun(run, "latest")
    inputs = trained.task.inputs({"image": to_uint8(DIGITS.images[chosen])[..., None]})
    logits = trained.model.apply(trained.variables, **inputs, deterministic=True).logits
    expected = np.asarray(jax.nn.softmax(logits))
    assert [line["predictions"][0]["index"] for line in lines] == expected.argmax(-1).tolist()
    for path, line, row in zip(paths, lines, expected):
        assert [p["label"] for p in line["predictions"]] == [str(p["index"]) for p in line["predictions"]]
        found = [p["probability"] for p in line["predictions"]]
        np.testing.assert_allclose(found, np.sort(row)[::-1][:3], atol=1e-5)
        with Image.open(output / path.name) as picture:
            picture.load()
            assert picture.width > 8
    assert sum(line["predictions"][0]["index"] == DIGITS.target[i] for line, i in zip(lines, chosen)) >= 4


def test_predict_goes_on_past_files_that_are_no_images(run, capfd, tmp_path):
    (good,) = save_digits(tmp_path / "digits", TEST[:1])
    bad = tmp_path / "bad"
    write(bad / "giant.png", png_that_claims(60000, 60000))
    write(bad / "giant.ppm", b"P6\n999999 999999\n255\n" + bytes(99))
    write(bad / "floats.tif", encoded(of_mode("F"), "TIFF"))
    write(bad / "half.png", good.read_bytes()[:-40])
    write(bad / "words.png", b"hello")
    (bad / "folder.png").mkdir()
    os.mkfifo(bad / "pipe.png")
    (bad / "circle.png").symlink_to(bad / "circle.png")
    given = [*sorted(bad.iterdir()), Path("/dev/zero"), Path("/dev/null")]
    given.remove(bad / "folder.png")  # would be looked into
    assert cli.main(["predict", str(run), *map(str, given), str(good), "--skip-broken"]) == 0
    out, said = capfd.readouterr()
    assert [json.loads(line)["file"] for line in out.splitlines()] == [str(good)]
    assert "Traceback" not in said
    assert said.count("skipped") == len(given) == 9
    assert f"skipped {bad}/giant.png: Image size (3600000000 pixels) exceeds limit" in said
    assert "skipped /dev/zero: a pipe, a device or a socket; copy its content into a file" in said
    assert cli.main(["predict", str(run), str(bad / "pipe.png")]) == 2
    assert "1 of 1 image cannot be read; fix it, or leave it out" in capfd.readouterr().err
    with Image.fromarray(np.zeros((1, 2_000_000), np.uint8)) as wide:
        wide.save(tmp_path / "wide.png")
    config = json.loads((run / "config.json").read_text())
    config["config"]["data"]["eval_transforms"] = [{"name": "resize_shorter", "sides": [224]}]
    (run / "config.json").write_text(json.dumps(config))
    assert cli.main(["predict", str(run), str(tmp_path / "wide.png")]) == 2
    assert "1x2000000 pixels would become 224x448000000, which are too many" in capfd.readouterr().err


def test_predictions_go_into_the_run_by_default(run, said, tmp_path):
    save_digits(tmp_path / "digits", TEST[:2])
    said("predict", run, tmp_path / "digits")
    assert {p.name for p in (run / "predictions").iterdir()} == {
        "predictions.jsonl",
        *(f"{index}.png" for index in TEST[:2]),
    }


def test_explanations_lie_beside_the_predictions(run, said, tmp_path):
    save_digits(tmp_path / "digits", TEST[:2])
    said("predict", run, tmp_path / "digits", "--class", "3", "--explain")
    folder = run / "predictions" / "explanations"
    lines = [json.loads(line) for line in (folder / "explanations.jsonl").read_text().splitlines()]
    assert [Path(line["file"]).stem for line in lines] == sorted(str(index) for index in TEST[:2])
    for line in lines:
        shown = {Path(made["image"]).name: made["shows"] for made in line["images"]}
        assert list(shown) == ["rollout.png", "heads.png", "grad-cam.png"]
        assert shown["grad-cam.png"] == "Grad-CAM of 3"
        for made in line["images"]:
            with Image.open(folder / made["image"]) as picture:
                picture.load()
    said("predict", run, tmp_path / "digits", "--explain", tmp_path / "seen")
    assert (tmp_path / "seen" / "explanations.jsonl").exists()


def test_explain_draws_what_predict_draws(run, said, tmp_path):
    save_digits(tmp_path / "digits", TEST[:2])
    said("predict", run, tmp_path / "digits", "--class", "3", "--explain")
    text = said("explain", run, tmp_path / "digits", "--class", "3")
    folder = run / "explanations"
    assert (folder / "explanations.jsonl").read_text() == text
    for line in map(json.loads, text.splitlines()):
        assert line["images"][-1]["shows"] == "Grad-CAM of 3"
        for made in line["images"]:
            drawn = (folder / made["image"]).read_bytes()
            assert drawn == (run / "predictions" / "explanations" / made["image"]).read_bytes()


def test_the_fields_of_a_config_are_described(said):
    """As a section, a table of classes, a class, and a class in a class."""
    assert "optimizer" in said("describe", "--fields", "")
    assert "Vision Transformer" in said("describe", "--fields", "model")
    vit = {
        line.split()[0]: line
        for line in said("describe", "--fields", "model.vit").splitlines()
        if line[2:3].strip()
    }
    assert {"image_size", "width", "pool"} <= vit.keys()
    assert "'cls' or 'average' or 'map'" in vit["pool"]
    assert "attention heads" in vit["num_heads"].lower()
    assert "label_feature" in said("describe", "--fields", "data.examples.images")


def test_files_may_stand_after_flags(run, said, tmp_path):
    first, second = save_digits(tmp_path / "digits", TEST[:2])
    lines = said("predict", run, "--top", "2", first, "--output", tmp_path / "out", second).splitlines()
    assert [json.loads(line)["file"] for line in lines] == [str(first), str(second)]


@pytest.mark.parametrize(
    "argv", [["--text", "a cat"], ["cats.txt"], ["-"], ["--question", "what", "--context-file", "a.txt"]]
)
def test_a_model_of_images_takes_no_texts(argv, run, capsys):
    assert cli.main(["predict", str(run), *argv]) == 2
    assert f"{run} holds a model of images; name image files" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fewshot", "perplexity", "harness"])
def test_a_model_of_images_is_not_evaluated_on_texts(verb, run, capsys, tmp_path):
    (tmp_path / "text").write_text('{"prompt": "a", "choices": ["b", "c"], "answer": 0}')
    assert cli.main([verb, str(run), str(tmp_path / "text")]) == 2
    assert "that does not go from token to token" in capsys.readouterr().err
    assert cli.main(["generate", str(run), "--prompt", "a"]) == 2
    assert "that writes no texts" in capsys.readouterr().err


def test_report_is_written_anew(run, said):
    (run / "report.html").unlink()
    assert said("report", run) == f"{run / 'report.html'}\n"
    assert f"{logged(run)[60]['accuracy']:.4f}" in (run / "report.html").read_text()


def test_reports_of_several_runs_compare_them(run, said, tmp_path):
    other = shutil.copytree(run, tmp_path / "another")
    before = files(run)
    *table, written = said("report", run, other, "--output", tmp_path / "both.html").splitlines()
    assert written == str(tmp_path / "both.html")
    shapes = assemble(Run.open(run).read_config()).variable_shapes["params"]
    count = engineering(sum(leaf.size for leaf in jax.tree.leaves(shapes)))
    assert [row.split("|")[3].strip() for row in table[2:]] == [count, count]
    page = (tmp_path / "both.html").read_text()
    assert "tiny" in page
    assert "another" in page
    assert files(run) == before


def test_describe_counts_the_parameters_and_shows_the_rules(finished, said):
    text = said("describe", "--config", CONFIG, *OVERRIDES, "--no-compile")
    shapes = assemble(Run.open(finished).read_config()).variable_shapes["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert f"{count:,}" in text
    table = text.partition("\nrule ")[2].splitlines()[2:]
    rules = {cells[0]: cells[1] for line in table if len(cells := re.split(r"  +", line)) > 3}
    assert set(rules) == {"weight decay 0.05", "no weight decay"}
    assert sum(int(number.replace(",", "")) for number in rules.values()) == count
    assert "not compiled" in text
    assert "60 steps of 64 = 3,840 examples (2.67 epochs of 1,438)" in text


def test_describe_needs_neither_the_devices_nor_the_dataset(tmp_path):
    """In a process of its own: the devices are made up before JAX looks for them."""
    argv = ["describe", "--preset", "vit-b16", "--mesh", "data=8,fsdp=4,tensor=2", "--no-compile"]
    done = subprocess.run(
        [sys.executable, "-m", "jaxformer", *argv],
        env={**os.environ, "TFDS_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "86,567,656" in done.stdout
    )  # with 1,000 classes: timm's vit_base_patch16_224, torchvision's vit_b_16
    assert "On 64 devices (data=8, fsdp=4, sequence=1, tensor=2; jit), batch 1024:" in done.stdout


def test_data_list_names_what_is_prepared(finished, said, digits_dir):
    lines = said("data", "list").splitlines()
    assert lines[0] == f"{digits_dir} (TFDS_DATA_DIR)"
    (digits,) = [line for line in lines if line.startswith("digits ")]
    assert "train 1,438, test 359" in digits


def test_data_show_draws_a_contact_sheet(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said("data", "show", "digits", "--count", "20") == "digits.png\n"
    said("data", "show", "digits", "--split", "test[:10]", "--output", "few.png")
    with Image.open("digits.png") as many, Image.open("few.png") as few:
        assert many.width == few.width
        assert many.height > few.height


def test_imported_images_can_be_shown(said, tmp_path):
    for label in (0, 1):
        save_digits(tmp_path / "source" / f"number {label}", np.flatnonzero(DIGITS.target == label)[:10])
    where = ["--data-dir", tmp_path / "data"]
    printed = said("data", "import", "images", tmp_path / "source", "--name", "mine", *where)
    lines = printed.splitlines()
    assert lines[:2] == [
        f"{tmp_path / 'data' / 'mine' / '1.0.0'}: train: 16, test: 4; 2 classes",
        "the images are of 8x8 pixels (height x width), grey",
    ]
    assert lines[2] == "to train on them, at 96x96 pixels, with the mean 0.45 and the deviation 0.23:"
    command = f"--config own_images --config.data.name=mine --config.data.data_dir={tmp_path / 'data'}"
    assert lines[3] == f"  jaxformer train {command} --workdir runs/mine"
    assert "train 16, test 4" in said("data", "list", *where)
    sheet = tmp_path / "sheet.png"
    assert said("data", "show", "mine", "--output", sheet, *where) == f"{sheet}\n"
    with Image.open(sheet) as picture:
        picture.load()
