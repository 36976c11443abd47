"""The parsers of configs, overrides and few-shot tasks; see fuzzed.py."""

from pathlib import Path

from helpers.fuzzed_files import TEXT, WORDS, Parser, lines_of_json, text
from helpers.fuzzed_imports import rows_of_csv
from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot_task import read_task
from jaxformer.importing import import_dataset
from jaxformer.verbs.options import OVERRIDE, override_values


def override(folder: Path, output: Path) -> None:
    words = (folder / "overrides").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    config = files.read("vit_digits", override_values([f"{OVERRIDE}{word}" for word in words if word]))
    resolve(config)


OVERRIDES = [
    "train.total=10 epochs",
    "optimizer=dict(name='sgd', learning_rate=0.1, no_decay=['bias$'], learning_rate_multipliers=[('head', 2.0)])",
    "data.transforms=[dict(name='flip'), {'name': 'pad_and_crop', 'padding': 1}]",
    "data.transforms[1].padding=2",
    "model.depth=2",
    "eval.every=25%",
    "schedule.warmup=1_000 steps",
    "data.name=mnist",
    "eval.split=train[5%:20%]+test[:10]",
    "parallel.mesh={'data': 2, 'fsdp': -1}",
    "train.ema_decay=None",
]
TASK = """task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: DATA, demos: DATA}}
output_type: multiple_choice
test_split: test
fewshot_split: demos
num_fewshot: 2
description: "Answer.\\n"
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
"""


def fewshot_files() -> dict[str, bytes]:
    docs = [{"question": w, "choices": ["a", "b"], "answer": n % 2} for n, w in enumerate(WORDS)]
    header = {"task": "t", "metric": "multiple_choice", "template": "{prompt}"}
    rows = [{"prompt": w, "choices": ["a", "b"], "answer": 0} for w in WORDS]
    return {
        "task.yaml": TASK.encode(),
        "data.jsonl": lines_of_json(docs),
        "old.jsonl": lines_of_json([header, *rows]),
    }


def read_fewshot(folder: Path, output: Path) -> None:
    task = folder / "task.yaml"
    task.write_bytes(task.read_bytes().replace(b"DATA", str(folder / "data.jsonl").encode()))
    refused = []
    for path in (task, folder / "old.jsonl"):
        try:
            found = read_task(path)
            found.questions() if hasattr(found, "questions") else None
        except UserError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def show_split(folder: Path, output: Path) -> int:
    """Shows a split of a dataset, which stands beside the files."""
    data, table = folder.parent / "data", folder.parent / "t.csv"
    if not data.exists():
        table.write_bytes(rows_of_csv()["t.csv"])
        import_dataset("csv", table, "mine", str(data))
    split = (folder / "split").read_text(encoding="utf-8", errors="surrogateescape")
    return cli.main(["data", "show", "mine", f"--split={split}", "--data-dir", str(data)])


CONFIG_FILE = """from ml_collections import ConfigDict


def get_config(arg=None):
    config = ConfigDict()
    config.model = {"name": "vit", "depth": 2}
    return config
"""
CONFIGS = {
    "overrides": Parser(
        lambda: {"overrides": text(*OVERRIDES)}, override, {"overrides": "text"}, lists_all=True
    ),
    "config file": Parser(
        lambda: {"c.py": CONFIG_FILE.encode()}, lambda folder, _: files.read(str(folder / "c.py")) and None
    ),
    "few-shot task": Parser(fewshot_files, read_fewshot, TEXT, lists_all=True),
    "split": Parser(lambda: {"split": b"train[0%:50%]+test[:1]+train[1:]"}, show_split, {"split": "text"}),
}
