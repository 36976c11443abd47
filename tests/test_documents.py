"""Every command and every block of code in the documents is executed, in little time, as a reader would do it.

    launch/test.sh -m slow tests/test_documents.py

Datasets are real: those of TFDS_DATA_DIR, or of `shared/tensorflow_datasets` beside the checkout. Commands on datasets
that are not there are skipped by name. Training takes two steps of a command's own shapes.
"""

import ast
import json
import re
import shlex
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers import text_runs
from helpers.documents import DATASETS, ROOT, commands_of, parts, run, shortened, succeeds
from PIL import Image
from sklearn.datasets import load_digits

import jaxformer as jf
from jaxformer.config import files
from jaxformer.models.presets import preset

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
OF_CONFIGS = [commands for path in CONFIGS for commands in commands_of(path)]
BENCHMARKS = [part.command for part in parts((ROOT / "benchmarks" / "README.md").read_text()) if part.command]

# What is not executed, by some of its words, and why.
NOT_EXECUTED = {
    "launch/test.sh": "this is what runs the tests",
    "git clone": "needs a network",
    "python3.11 -m venv": "needs a network, and takes minutes",
    "/tmp/clean/bin/pip freeze": "goes on with the line before",
    ".venv/bin/ruff": "the test command runs it",
    "export GLIBC_TUNABLES": "the next commands have it",
    "width: PositiveInt = 256": "two lines of a class",
    "benchmarks/gpt_step.py --shape nano": "needs a checkout of nanoGPT",
    "looking for faults in configs": "is what the command before prints",
    "jaxformer launch ": "is for other machines; tests/launching/ renders them",
    "pretrained(": "needs weights of another project; tests/weights/ has what these lines do",
    "model.pretrained": "needs them, too",
    "predict runs/reviews": "needs the run that they begin",
    "configs/minilm_sst2.py": "needs the weights of a package, too",
    "configs/minilm_wnut17.py": "needs them, too",
    "configs/vit_s14_cifar10.py": "needs them, too",
    "configs/lit_minilm_emoji.py": "needs the weights of two packages",
    "configs/vqa_shapes.py": "needs a run of captioner_shapes",
    "dataclasses.replace(run.config": "needs a run of two towers, of emoji",
    '"a text of several words" --features': "needs a run; tests/weights/test_transfer.py has one",
    "runs/resnet50": "needs weights of another project; tests/weights/test_weights_import.py has some",
    'name="captions"': "lines of a config with texts; tests/data/test_captions.py has such",
    'name="two_towers"': "lines of such a config; tests/helpers/tiny_tasks.py has one",
    '"name": "text_pairs"': "lines of such a config; tests/tasks/test_text_pairs.py has one",
    "weights import hf:": "needs a network; tests/weights/test_two_towers.py has a folder",
    "generate RUN --image": "needs a run of a captioner; tests/test_verbs_captions.py has one",
    "predict RUN folder_of_pictures/": "needs it, too",
    "--zero-shot": "needs a run of two towers; tests/weights/test_two_towers.py has one",
    "--hours 2": "takes two hours",
    "weights soup": "needs several runs; tests/inference/test_soup.py has some",
    "jf.ensemble(": "needs several runs; tests/inference/test_ensemble.py has some",
    "weights export": "needs a run of a text model; tests/weights/test_export.py has one",
    "configs/gpt2_124m.py": "OpenWebText is not at hand",
    "imagenet.py": "ImageNet is not at hand",
}


def excused(text):
    """Why a command or text is not executed; None if it is."""
    return next((why for words, why in NOT_EXECUTED.items() if words in text), None)


def test_what_is_not_executed_still_stands_in_a_document():
    texts = [
        path.read_text()
        for path in [ROOT / "benchmarks" / "README.md", *(ROOT / d for d in DOCUMENTS), *CONFIGS]
    ]
    assert [start for start in NOT_EXECUTED if not any(start in text for text in texts)] == []


def save(path, pixels, scale=4, mode="RGB"):
    """Writes a digit as an image, enlarged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(pixels * 15.9, np.ones((scale, scale))).astype(np.uint8)).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """A working folder with the checkout's configs, and files of a user's own as the documents name them."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    digits = load_digits()
    save(tmp_path / "image.png", digits.images[0], 1, "L")
    for name in ("image.jpg", "another_image.jpg"):
        save(tmp_path / name, digits.images[1])
    for i in range(100):
        save(tmp_path / "my_images" / str(digits.target[i] % 2) / f"{i}.png", digits.images[i])
        if i < 3:
            save(tmp_path / "folder_of_images" / f"{i}.png", digits.images[i], 1, "L")
        if i < 8:
            save(tmp_path / "annotations" / f"{i}.png", digits.images[i])
            save(tmp_path / "streets" / "images" / f"{i}.png", digits.images[i])
            save(tmp_path / "streets" / "masks" / f"{i}.png", (digits.images[i] > 8) / 15.9, 4, "L")
    box = {"bbox": [4, 4, 20, 20], "category_id": 1, "area": 400, "iscrowd": 0}
    annotations = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 32, "height": 32} for i in range(8)],
        "categories": [{"id": 1, "name": "digit"}],
        "annotations": [box | {"id": i, "image_id": i} for i in range(8)],
    }
    (tmp_path / "annotations" / "annotations.json").write_text(json.dumps(annotations))
    (tmp_path / "streets" / "classes.txt").write_text("paper\nink\n")
    text = "ROMEO:\n" + re.sub(r"[^a-z \n]", "", (ROOT / "LICENSE").read_text().lower())
    (tmp_path / "my_book.txt").write_text(text)
    (tmp_path / "another_text.txt").write_text(text[:2000])
    rng = np.random.default_rng(0)
    rows = [f"{i % 2},{' '.join(rng.choice(text_runs.SENTENCE.split(), 3))}" for i in range(100)]
    (tmp_path / "reviews.csv").write_text("label,text\n" + "\n".join(rows) + "\n")
    question = {"question": "What is the capital of France?", "choices": ["Paris", "Rome"], "answer": 0}
    (tmp_path / "capitals.jsonl").write_text(json.dumps(question) + "\n")
    return tmp_path


# What a document takes for granted.
BEFORE = {
    "docs/own_texts.md": [
        "data import csv reviews.csv --label label --name reviews",
        "data import text my_book.txt --name bytes",
        "train --config configs/gpt_shakespeare.py --workdir runs/bytes --config.data.name=bytes"
        " --config.eval.split=test --config.data.tokenizer.name=bytes",
    ],
    "docs/restarts.md": ["train --config vit_digits"],
    "docs/configs.md": ["train --config vit_digits --config.checkpoint.keep=3"],
    "docs/debugging.md": ["train --config vit_digits"],
    "docs/python.md": [
        "data import text my_book.txt --name book",
        "train --config configs/gpt_shakespeare.py --workdir runs/gpt --config.data.name=book --config.eval.split=test",
    ],
}


@pytest.fixture
def translators(folder, monkeypatch):
    """Random runs that translate, under the names that the documents use."""
    task, model, examples, _, monitor = text_runs.RUNS["translation"]
    tokenizer = {"name": "characters", "template": "seq2seq"}
    turned = {**examples, "source_feature": "other", "target_feature": "text"}
    text_runs.write_texts(folder / "tiny")
    for name in ("en_de", "de_en", "transformer_multi30k"):
        row = (task, model, turned if name == "de_en" else examples, tokenizer, monitor)
        monkeypatch.setitem(text_runs.RUNS, name, row)
        text_runs.random_run(name, folder / "tiny", folder / "runs" / name)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_a_document_runs(document, folder, translators, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "tensorflow_datasets"))
    script = ""
    for command in BEFORE.get(document, ()):
        succeeds(shortened(f"jaxformer {command}"), folder)
    for part in parts((ROOT / document).read_text()):
        if excused(part.command or part.text):
            continue
        if part.printed:
            done = run(shlex.split(part.command.replace("jaxformer", "-m jaxformer", 1)), folder)
            assert (done.returncode, done.stderr.strip()) == (2, part.printed.strip())
        elif part.command:
            succeeds(shortened(part.command), folder)
        elif part.text.startswith("task: "):
            (folder / "task.yaml").write_text(part.text)
            succeeds(["-m", "jaxformer", "fewshot", "runs/bytes", "task.yaml", "--shots", "0"], folder)
        elif part.text.startswith("c.model"):
            build_models(part.text)
        elif "class " in part.text:
            with (folder / "my_models.py").open("a") as module:
                module.write(part.text)
            succeeds(["-c", "import my_models"], folder)
        else:
            script += part.text
    succeeds(["-c", script], folder)


def build_models(text):
    """Executes the lines of a config, and shapes the parameters of each of its models."""
    for statement in ast.parse(text).body:
        c = SimpleNamespace()
        exec(ast.unparse(statement), {"c": c, "preset": preset})
        fields = {"num_classes": 3} | c.model
        model = jf.create_model(fields.pop("name"), **fields)
        shapes = jax.eval_shape(partial(jf.init, model, image=(1, 224, 224, 3)))
        assert jax.tree.leaves(shapes["params"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "commands", OF_CONFIGS, ids=lambda commands: commands[0].split("configs/")[1].split()[0]
)
def test_the_commands_of_a_config_run(commands, folder, monkeypatch):
    if excused(commands[0]):
        pytest.skip(excused(commands[0]))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(DATASETS))
    config = re.search(r"configs/\S+", commands[0])[0].split(":")[0]
    name = files.read(config)["data"]["name"]
    if " train " in commands[0] and name != "digits" and not (DATASETS / name).is_dir():
        pytest.skip(f"the dataset {name} is not in {DATASETS}")
    if "deit" in config:
        succeeds(shortened("jaxformer train --config configs/resnet_cifar10.py"), folder)
    for command in commands:
        succeeds(shortened(command.replace("TEACHER_RUN", "runs/resnet_cifar10")), folder)


@pytest.mark.slow
@pytest.mark.parametrize("command", BENCHMARKS)
def test_the_benchmarks_run(command):
    if excused(command):
        pytest.skip(excused(command))
    if "input_pipeline" in command and not (DATASETS / "cifar10").is_dir():
        pytest.skip(f"CIFAR-10 is not in {DATASETS}")
    if "tpu_compiled" in command and find_spec("libtpu") is None:
        pytest.skip("libtpu, the TPU's compiler, is not installed")
    printed = succeeds(shortened(command), ROOT, TFDS_DATA_DIR=str(DATASETS), JAX_PLATFORMS="cpu")
    assert re.search(r"\d", printed)
