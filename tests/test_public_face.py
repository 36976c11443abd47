"""`import jaxformer as jf`: importing loads nothing, the functions do what they say, mistakes name fields."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import jaxformer as jf
from jaxformer.runs import Run

TINY = {
    "data.name": "digits",
    "data.batch_size": 32,
    "model.width": 16,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.mlp_dim": 16,
    "train.total": "4 steps",
    "eval.split": "test[:64]",
}


def loaded_by(code):
    """The modules that a new process has loaded after some code."""
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_the_package_loads_nothing_heavy():
    found = loaded_by("import jaxformer as jf; dir(jf); jf.UserError; jf.__version__")
    assert not found & {"jax", "flax", "numpy", "optax", "tensorflow_datasets", "matplotlib", "cv2"}
    assert {name for name in found if name.startswith("jaxformer.")} == {"jaxformer.errors"}


def test_the_names_are_functions_whatever_was_imported_before():

    assert set(jf.__all__) <= set(dir(jf))
    assert all(callable(getattr(jf, name)) for name in jf.__all__)
    assert jf.train is sys.modules["jaxformer.train"].train
    assert Path(jf.__file__).with_name("py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        jf.trian  # noqa: B018


def test_models_by_name():
    assert {"vit", "vit-b16"} <= set(jf.list_models("vit*"))
    assert all(name.startswith("resnet") for name in jf.list_models("resnet*"))
    assert jf.list_models() == sorted(jf.list_models())
    assert jf.create_model("vit-b16", num_classes=10).num_classes == 10
    model = jf.create_model("vit", width=8, depth=1, num_heads=2, mlp_dim=8, patch_size=4, num_classes=3)
    variables = jf.init(model, image=(2, 8, 8, 1), seed=1)
    again = jf.init(model, image=np.zeros((1, 8, 8, 1), np.float32), seed=1)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    image = np.ones((2, 8, 8, 1), np.float32)
    assert model.apply(variables, image=image, deterministic=True).logits.shape == (2, 3)
    gpt = jf.create_model("gpt", vocab_size=11, context_length=8, width=8, depth=1, num_heads=2, mlp_dim=8)
    assert jf.init(gpt, tokens=(1, 8))["params"]


MISTAKES = {
    "a model": (lambda: jf.create_model("vit-b17"), "there is no model 'vit-b17'; did you mean 'vit-b1"),
    "a field": (lambda: jf.create_model("vit-b16", widht=64), "model.widht: .* did you mean 'width'"),
    "a value": (lambda: jf.create_model("vit-b16", width=-1), "model.width=-1: expected"),
    "an input": (
        lambda: jf.init(jf.create_model("vit-b16", num_classes=2), imge=(1, 224, 224, 3)),
        "imge: ViT",
    ),
    "a shape": (
        lambda: jf.init(jf.create_model("vit-b16", num_classes=2), image=(1, 224, 224)),
        r"image of shape \(1, 224, 224\): ViT does not take it .*\[B, H, W, C\]",
    ),
    "a size": (
        lambda: jf.init(jf.create_model("vit-b16", num_classes=2), image=(1, 225, 224, 3)),
        r"image of shape \(1, 225, 224, 3\): ViT does not take it",
    ),
    "no batch": (
        lambda: jf.init(jf.create_model("vit-b16", num_classes=2), image=(224, 224, 3)),
        r"image of shape \(224, 224, 3\): ViT does not take it",
    ),
    "no model": (
        lambda: jf.init("vit-b16", image=(1, 224, 224, 3)),
        "model='vit-b16': expected a linen module",
    ),
    "no seed": (lambda: jf.init(jf.create_model("vit-b16"), seed="a"), "seed='a': expected an int"),
    "no name": (lambda: jf.create_model(None), "name=None: expected a name of"),
    "no class of ours": (lambda: jf.create_model("flax.linen:Dense"), "'flax.linen:Dense' lacks"),
    "no folder": (lambda: jf.load_run(None), "folder=None: expected the path"),
    "no mapping": (
        lambda: jf.experiment("vit_digits", ["seed"]),
        r"overrides=\['seed'\]: expected values by",
    ),
    "no input": (
        lambda: jf.init(jf.create_model("vit-b16", num_classes=2)),
        "image: ViT needs this argument",
    ),
    "a config": (lambda: jf.experiment("vit_digit"), "config=vit_digit: there is no such file.*'vit_digits'"),
    "a leaf": (
        lambda: jf.experiment("vit_digits", {"model.widht": 8}),
        "model.widht: .*did you mean 'width'",
    ),
    "no leaf": (
        lambda: jf.experiment("vit_digits", {"seed.of": 8}),
        "seed.of=8: seed is 0, which has no field",
    ),
    "no config": (lambda: jf.experiment(3), "config=3: expected the name of a config"),
    "a name that is a field": (lambda: jf.create_model("vit-b16", name="x"), "model.name"),
    "no experiment": (
        lambda: jf.train("vit_digits", "runs/x"),
        "experiment='vit_digits': expected the result of",
    ),
    "a run": (lambda: jf.load_run("nowhere"), "nowhere: not a run's folder"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_name_fields_and_arguments(case):
    call, message = MISTAKES[case]
    with pytest.raises(jf.UserError, match=message) as error:
        call()
    assert "--" not in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that a custom experiment trained."""
    folder = tmp_path_factory.mktemp("face") / "run"
    result = jf.train(jf.experiment("vit_digits", TINY), str(folder))
    assert result["status"] == "completed"
    return folder


def test_a_loop_of_ones_own():
    experiment = jf.experiment("vit_digits", TINY)
    state, step = experiment.init_state(), experiment.train_step()
    for batch in experiment.train_batches(state, stop=2):
        state, metrics = step(state, batch)
    assert int(state.step) == 2
    assert np.isfinite(metrics["loss"])
    for batch in experiment.train_batches(state):
        state, metrics = step(state, batch)
    assert int(state.step) == experiment.total_steps == 4
    assert 0 <= experiment.evaluate(state).metrics["accuracy"] <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jf.list_models(3), 'pattern=3: expected a text, such as "vit*"'),
        (lambda: jf.create_model(3), "name=3: expected a name"),
        (
            lambda: jf.create_model("no_such_module:Model"),
            "'no_such_module:Model' cannot be imported (No module",
        ),
        (lambda: stepped(stop="5 steps"), "stop='5 steps': expected the number of a step, such as 100"),
        (lambda: stepped(stop=2.5), "stop=2.5: expected the number of a step"),
        (lambda: jf.experiment("vit_digits", TINY).evaluate(None), "state=None: expected a train state"),
        (lambda: next(jf.experiment("vit_digits", TINY).train_batches(None)), "state=None: expected a train"),
    ],
)
def test_arguments_of_other_kinds_are_named(call, message):
    with pytest.raises(jf.UserError) as error:
        call()
    assert message in str(error.value)


def stepped(stop):
    experiment = jf.experiment("vit_digits", TINY)
    return next(experiment.train_batches(experiment.init_state(), stop=stop))


def test_a_loop_of_ones_own_computes_what_training_does(folder):
    experiment = jf.experiment("vit_digits", TINY)
    state, step = experiment.init_state(), experiment.train_step()
    for batch in experiment.train_batches(state):
        state, _ = step(state, batch)
    trained = jf.load_run(folder, "latest")
    assert experiment.evaluate(state).metrics == pytest.approx(trained.metrics, rel=1e-6)
    assert trained.evaluate().metrics == pytest.approx(trained.metrics, rel=1e-6)


def test_an_experiment_is_a_name_a_file_or_a_mapping(folder):
    from jaxformer.config import files

    nested = Run.open(folder).config
    from_mapping = jf.experiment(nested)
    assert from_mapping.config == jf.experiment("vit_digits", TINY).config
    assert jf.experiment(files.find("vit_digits"), TINY).config == from_mapping.config
    changed = jf.experiment(nested, {"train.total": "2 steps"})
    assert (changed.total_steps, nested["train"]["total"]) == (2, "4 steps")


def test_a_run_predicts_evaluates_and_explains_from_its_folder(folder, tmp_path, monkeypatch):
    run = jf.load_run(str(folder))
    assert run.config.model.width == 16
    assert run.metrics["accuracy"] == Run.open(folder).result["final"]["accuracy"]
    image = (load_digits().images[0] * 15).astype(np.uint8)
    path = tmp_path / "digit.png"
    Image.fromarray(image).save(path)
    (one,) = run.predict([path], top=3)
    assert one["file"] == str(path)
    assert len(one["predictions"]) == 3
    (same,) = run.predict([image[..., None]], top=3)
    assert same["predictions"] == one["predictions"]
    assert run.predict(path, top=3) == [one]
    logits = run.model.apply(
        run.variables, **run.task.inputs({"image": image[None, ..., None]}), deterministic=True
    )
    assert one["predictions"][0]["index"] == int(np.argmax(logits.logits[0]))
    (shown,) = run.explain([path], tmp_path / "shown")
    assert shown["file"] == str(path)
    assert list((tmp_path / "shown").rglob("*.png"))
    assert set(run.evaluate(split="test[:32]").metrics) == set(run.metrics)
    with pytest.raises(jf.UserError, match="writes no texts"):
        run.generate("ROMEO:")
    with pytest.raises(jf.UserError, match="checkpoint='newest': expected"):
        jf.load_run(folder, "newest")


def test_opening_a_run_reads_no_dataset(folder, monkeypatch):
    from jaxformer.data import batches

    monkeypatch.setattr(batches, "open_source", lambda *_: pytest.fail("a dataset was opened"))
    assert len(jf.load_run(folder).predict(np.zeros((2, 8, 8, 1), np.uint8))) == 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: jf.experiment("vit_digits", {5: 1}), "5: is no path of a leaf"),
        (
            lambda: jf.init(jf.create_model("vit-ti16"), seed=-1, image=(1, 8, 8, 3)),
            "seed=-1: expected an int, 0 or more",
        ),
        (lambda: jf.experiment("configs"), "config=configs: is no file of Python code"),
        (lambda: jf.load_run(__file__), "not a run's folder (it is a file)"),
    ],
)
def test_what_cannot_be_taken_is_named(call, says):
    with pytest.raises(jf.UserError) as error:
        call()
    assert says in str(error.value)
