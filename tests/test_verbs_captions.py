"""`train`, `generate --image` and `predict` with a captioner, from a dataset of questions about pictures."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer import cli
from jaxformer.data.writing import write_dataset
from jaxformer.decoding.sampling import Sampling
from jaxformer.inference.loaded import LoadedRun
from jaxformer.paths import leaves_by_path

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
QUESTIONS = ["which colour?", "is it red?"]
BACKBONE = {
    "name": "resnet",
    "width": 8,
    "stage_sizes": [1],
    "norm": "group",
    "stem": "small",
    "num_classes": 0,
}
SIZES = {"width": 16, "num_heads": 2, "depth": 1}


def png(path, colour):
    Image.fromarray(np.full((8, 8, 3), COLOURS[colour], np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was trained for a few steps, so that it writes words, and the folder with a picture of each colour."""
    root = tmp_path_factory.mktemp("captions")
    pictures = {colour: png(root / f"{colour}.png", colour) for colour in COLOURS}
    text = tfds.features.Sequence(tfds.features.Text())
    features = {"image": tfds.features.Image(shape=(8, 8, 3)), "caption": text, "question": text}
    examples = [
        {"image": str(path), "caption": [colour, "yes" if colour == "red" else "no"], "question": QUESTIONS}
        for colour, path in pictures.items()
    ]
    write_dataset(root / "data", "colours", "1.0.0", features, {"train": examples * 4, "test": examples})
    config = {
        "task": {"name": "captioning", "beams": 2},
        "model": {"name": "captioner", "backbone": BACKBONE, "context_length": 32, **SIZES},
        "data": {
            "name": "colours",
            "data_dir": str(root / "data"),
            "batch_size": 8,
            "examples": {"name": "captions", "length": 24, "prompt_feature": "question"},
            "tokenizer": {"name": "characters", "template": "seq2seq"},
        },
        "eval": {"split": "test", "every": "30 steps", "monitor": "exact_match"},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "schedule": {"name": "constant"},
        "train": {"total": "30 steps"},
    }  # fmt: skip
    file = root / "config.py"
    literal = json.dumps(config)
    file.write_text(
        f"import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({literal})\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(root / "cache"))
        assert cli.main(["train", "--config", str(file), "--run", str(root / "run")]) == 0
        yield root / "run"


@pytest.fixture
def said(capsys):
    """What a command line prints to stdout, and what to stderr."""

    def ask(*argv, code=0):
        capsys.readouterr()
        assert cli.main([str(a) for a in argv]) == code
        return capsys.readouterr()

    return ask


def test_generating_about_a_picture(run, said):
    red, blue = run.parent / "red.png", run.parent / "blue.png"
    asked = ("--prompt", QUESTIONS[0], "--prompt", QUESTIONS[1], "--max-new-tokens", "6")
    printed = said("generate", run, "--image", red, "--image", blue, *asked, "--greedy").out
    lines = [json.loads(line) for line in printed.splitlines()]
    pairs = [(str(image), question) for image in (red, blue) for question in QUESTIONS]
    assert [(line["image"], line["prompt"]) for line in lines] == pairs
    trained = LoadedRun(run)
    for line in lines:
        (alone,) = trained.generate(line["prompt"], image=line["image"], max_new_tokens=6, temperature=0)
        assert {"image": line["image"], **alone} == line
    one = said("generate", run, "--image", red, *asked[:2], *asked[4:])
    assert (one.out, "give it one with" in one.err) == (lines[0]["text"] + "\n", False)
    none = said("generate", run, "--image", red, *asked[4:], "--beams", "2")
    assert none.out
    assert "learnt texts behind prompts, such as questions; give it one with --prompt TEXT" in none.err
    # As much is written as the context holds behind the prompt.
    long = trained.about(red).generate([trained.about(red).encode("is it red?" * 3)], _greedy(50))
    assert next(long).tokens <= 2


def _greedy(count):
    from jaxformer.inference.writing import Generation

    return Generation(count, Sampling(temperature=0))


def test_predictions_are_captions(run, said, tmp_path):
    red = run.parent / "red.png"
    (line,) = said("predict", run, red, "--output", tmp_path / "out").out.splitlines()
    found = json.loads(line)
    assert (found["file"], set(found)) == (str(red), {"file", "caption"})
    assert (tmp_path / "out" / "red.png").exists()


def test_the_report_shows_what_was_written_and_what_is_true(run):
    shown = json.loads((run / "samples" / "samples" / "samples.json").read_text())["samples"]
    assert {one["true"] for one in shown} <= {*COLOURS, "yes", "no"}
    page = (run / "report.html").read_text()
    for one in shown:  # each word with its map, and no attention among words over the picture
        assert [word["word"] for word in one.get("words", [])] == one["written"].split()
        assert all((run / "samples" / "samples" / word["picture"]).exists() for word in one.get("words", []))
        assert "rollout" not in one
    assert page.count("<figcaption") == sum(len(one.get("words", [])) for one in shown) * 2
    assert all(one["written"] in one["caption"] for one in shown)
    assert any(question in page for question in QUESTIONS)
    metrics = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert {"exact_match", "bleu4", "rouge_l", "cider"} <= set(metrics)


def test_an_explanation_has_a_map_for_each_word(run, said, tmp_path):
    """The same text as the report's, whose first sample is of this picture and question."""
    asked = ("--prompt", QUESTIONS[0], "--output", tmp_path / "out")
    (line,) = said("explain", run, run.parent / "red.png", *asked).out.splitlines()
    (drawn,) = json.loads(line)["images"]
    first = json.loads((run / "samples" / "samples" / "samples.json").read_text())["samples"][0]
    words = first["written"].split()
    said = f"where the model looked for each word of “{' '.join(words)}”"
    assert drawn["shows"] == f"{said}, asked “{QUESTIONS[0]}”"
    with Image.open(tmp_path / "out" / drawn["image"]) as sheet:
        assert sheet.width > (1 + len(words)) * 160  # the picture and the words, side by side


def test_mistakes_are_named(run, said, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert str(broken) in said("generate", run, "--image", broken, code=2).err
    assert "nothing.png" in said("generate", run, "--image", tmp_path / "nothing.png", code=2).err
    assert "is a folder; name an image in it" in said("generate", run, "--image", tmp_path, code=2).err
    assert "writes about images" in said("generate", run, "--prompt", "a", code=2).err
    long = said("generate", run, "--image", run.parent / "red.png", "--prompt", "is it red?" * 4, code=2).err
    assert "the model's context is 32" in long
    long = said("explain", run, run.parent / "red.png", "--prompt", "is it red?" * 4, code=2).err
    assert "the model's context is 32" in long


def test_its_backbone_is_a_model_of_its_own(run):
    from jaxformer.models.resnet import ResNet
    from jaxformer.weights.pretrained import load_pretrained

    tower = load_pretrained(f"{run}#backbone")
    assert isinstance(tower.model, ResNet)
    whole = leaves_by_path(LoadedRun(run).variables["params"]["backbone"])
    assert whole.keys() == {name.removeprefix("backbone/") for name in tower.tensors}
    for name, array in tower.tensors.items():
        np.testing.assert_array_equal(array, whole[name.removeprefix("backbone/")])
