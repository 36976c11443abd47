"""The parsers that are fuzzed: for each, valid files, and what reads them. See tests/fuzz/test_every_parser.py."""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from PIL import Image

from helpers import hostile
from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.data.text.paraphrases import read_paraphrases
from jaxformer.data.text.thesaurus import load_thesaurus
from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot_task import read_task
from jaxformer.importing import import_dataset
from jaxformer.inference.inputs import readable
from jaxformer.inference.loaded import LoadedRun
from jaxformer.inference.texts import read_given, read_lines, read_text, text_inputs
from jaxformer.runs import Run
from jaxformer.verbs.options import OVERRIDE, override_values

RUNS = Path(__file__).parent.parent / "fixtures" / "runs_0_1"


@dataclass(frozen=True)
class Parser:
    """What reads files from outside."""

    files: Callable[[], Mapping[str, bytes]]
    """Valid files by their names; one of them is changed for each input."""
    read: Callable[[Path, Path], Any]
    """Reads the folder of the files; what it writes goes to another one. Raises UserError for what it refuses, or
    returns the exit code of the command line."""
    kinds: Mapping[str, hostile.Kind] = field(default_factory=dict)
    """The kind of edits by a file's name or its ending; of files that are not named here, "bytes"."""
    fixed: tuple[str, ...] = ()
    """Endings of files that stay as they are."""
    lists_all: bool = False
    """Whether all mistakes are said at once, a line each, as those of a config are; else two lines are the most."""


TEXT = {".csv": "text", ".txt": "text", ".jsonl": "json", ".json": "json", ".xml": "text", ".yaml": "text"}
WORDS = ["the cat saw a dog", "a dog saw Ann", "Ann is in Oslo", 'the dog, "it" said', "no: yes"]


def text(*lines: str) -> bytes:
    return "\n".join([*lines, ""]).encode()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def lines_of_json(values: Any) -> bytes:
    return b"\n".join(map(as_json, values)) + b"\n"


@cache
def image(form: str, seed: int = 0, turned: bool = False) -> bytes:
    """A small image; a turned one says so in its EXIF."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 6, 3), np.uint8)
    buffer, picture = io.BytesIO(), Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(
        buffer, form, **({"exif": exif} if turned and form in ("JPEG", "TIFF", "PNG", "WEBP") else {})
    )
    return buffer.getvalue()


# Datasets


def image_folders() -> dict[str, bytes]:
    forms = {"a/0.png": "PNG", "a/1.jpg": "JPEG", "a/2.tif": "TIFF", "a/3.gif": "GIF"}
    forms |= {"b/0.bmp": "BMP", "b/1.ppm": "PPM", "b/2.webp": "WEBP", "b/3.png": "PNG"}
    return {name: image(form, seed, turned=True) for seed, (name, form) in enumerate(forms.items())}


def image_table() -> dict[str, bytes]:
    rows = [f"{n}.png,{'ab'[n % 2]},{'train' if n < 4 else 'test'}" for n in range(6)]
    return {f"{n}.png": image("PNG", n) for n in range(6)} | {"i.csv": text("path,label,split", *rows)}


def coco() -> dict[str, bytes]:
    images = [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 6} for n in range(4)]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [1, 2, 3, 4.5], "iscrowd": 0}
        for n in range(4)
    ]
    boxes[1] |= {"segmentation": {"counts": [1, 2], "size": [8, 6]}, "iscrowd": 1}
    content = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    return {f"{n}.png": image("PNG", n) for n in range(4)} | {"labels.json": as_json(content)}


def voc() -> dict[str, bytes]:
    found = {}
    for n in range(4):
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>7</ymax></bndbox>"
        size = "<size><width>6</width><height>8</height><depth>3</depth></size>"
        thing = f"<object><name>{'ab'[n % 2]}</name><difficult>0</difficult>{box}</object>"
        found[f"Annotations/{n}.xml"] = (
            f"<annotation><filename>{n}.png</filename>{size}{thing}</annotation>".encode()
        )
        found[f"JPEGImages/{n}.png"] = image("PNG", n)
    return found | {"ImageSets/Main/train.txt": text("0", "1", "2"), "ImageSets/Main/val.txt": text("3")}


def yolo() -> dict[str, bytes]:
    found = {
        "data.yaml": text("path: .", "train: images/train", "val: images/val", "names:", "  0: a", "  1: b")
    }
    for n in range(4):
        split = "train" if n < 3 else "val"
        found[f"labels/{split}/{n}.txt"] = text(f"{n % 2} 0.5 0.5 0.25 0.25", "0 0.1 0.1 0.9 0.1 0.9 0.9")
        found[f"images/{split}/{n}.png"] = image("PNG", n)
    return found


def segmentation() -> dict[str, bytes]:
    found = {"classes.txt": text("a", "b", "c")}
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 3, (8, 6)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        found |= {f"images/{n}.png": image("PNG", n), f"masks/{n}.png": buffer.getvalue()}
    return found


def squad() -> dict[str, bytes]:
    context = "the cat saw a dog in Oslo"
    asked = [
        {"id": f"q{n}", "question": f"who {n}?", "answers": [{"text": "a dog", "answer_start": 12}]}
        for n in range(4)
    ]
    paragraphs = [
        {"context": context, "qas": asked},
        {"context": f"{context}.", "qas": [{**asked[0], "id": "x"}]},
    ]
    return {"train.json": as_json({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})}


def rows_of_csv() -> dict[str, bytes]:
    return {
        "t.csv": text(
            "text,label,n",
            *(f'"{w.replace(chr(34), chr(34) * 2)}",{"xy"[i % 2]},{i}' for i, w in enumerate(WORDS)),
        )
    }


def rows_of_json() -> dict[str, bytes]:
    return {"t.jsonl": lines_of_json({"text": w, "label": "xy"[i % 2], "n": i} for i, w in enumerate(WORDS))}


def import_by_command(kind: str, *options: str, source: str = "") -> Callable[[Path, Path], Any]:
    def read(folder: Path, output: Path) -> int:
        argv = [
            "data",
            "import",
            kind,
            str(folder / source),
            "--name",
            "mine",
            "--data-dir",
            str(output),
            *options,
        ]
        return cli.main(argv)

    return read


IMPORTS = {
    "images": Parser(image_folders, import_by_command("images")),
    "images csv": Parser(image_table, import_by_command("images", "--skip-broken", source="i.csv"), TEXT),
    "coco": Parser(coco, import_by_command("coco"), TEXT, (".png",)),
    "voc": Parser(voc, import_by_command("voc"), TEXT, (".png",)),
    "yolo": Parser(yolo, import_by_command("yolo"), TEXT, (".png",)),
    "detection": Parser(coco, import_by_command("detection", "--skip-broken"), TEXT),
    "segmentation": Parser(segmentation, import_by_command("segmentation"), TEXT),
    "text": Parser(
        lambda: {"a.txt": text(*WORDS), "b.md": text(*WORDS)},
        import_by_command("text", "--unit", "line"),
        TEXT | {".md": "text"},
    ),
    "csv": Parser(rows_of_csv, import_by_command("csv", "--label", "label"), TEXT),
    "jsonl": Parser(rows_of_json, import_by_command("jsonl", "--label", "label"), TEXT),
    "pairs": Parser(
        lambda: {"train.tsv": text(*(f"{w}\t{w} {w}" for w in WORDS))},
        import_by_command("pairs", source="train.tsv"),
        {".tsv": "text"},
    ),
    "conll": Parser(
        lambda: {"t.conll": text(*(f"{w} B-x\nin O\nit I-x\n" for w in WORDS[0].split()))},
        import_by_command("conll"),
        {".conll": "text"},
    ),
    "squad": Parser(squad, import_by_command("squad"), TEXT),
}


# Configs


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


# The folder of a run


@cache
def loaded(name: str) -> LoadedRun:
    """A run that was trained before."""
    return LoadedRun(RUNS / "runs" / name)


def run_files(name: str, *wanted: str) -> dict[str, bytes]:
    folder = RUNS / "runs" / name
    paths = [path for pattern in wanted for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def short_run() -> dict[str, bytes]:
    """A run with few curves, of which a report is made quickly."""
    found = run_files("vit", "*.json", "samples/*/samples.json", "samples/samples/000.png")
    records = [{"step": n, "time": 0.5, "train/loss": 1 / n} for n in range(1, 4)]
    scores = [{"name": name, "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3} for name in "ab"]
    evaluation = {"step": 3, "metrics": {"accuracy": 0.5, "loss": "NaN"}, "class_names": ["a", "b"]}
    evaluation |= {"confusion": [[3, 1], [0, 2]], "per_class": scores, "notes": ["a note"]}
    return found | {"metrics.jsonl": lines_of_json(records), "evaluation.json": as_json(evaluation)}


def report(folder: Path, output: Path) -> int:
    return cli.main(["report", str(folder)])


def compare(folder: Path, output: Path) -> int:
    other = folder.parent / "other"
    if not other.exists():
        shutil.copytree(folder, other)
        for name in ("config.json", "metrics.jsonl", "result.json", "evaluation.json"):
            (other / name).write_bytes(short_run()[name])
    return cli.main(["report", str(folder), str(other), "--output", str(output / "comparison.html")])


class WithoutCheckpoint(LoadedRun):
    """A run as far as the other files of its folder go."""

    def _restore(self, checkpoint: str) -> tuple[int, dict[str, Any]]:
        return 0, {}


def open_run(folder: Path, output: Path) -> None:
    run = WithoutCheckpoint(folder)
    assert isinstance(run.class_names, list)
    assert isinstance(run.batch_size, int)
    assert isinstance(run.metrics, dict)


def restore(folder: Path, output: Path) -> None:
    """Reads a checkpoint into the shapes of the run that it is of."""
    run, known = LoadedRun.__new__(LoadedRun), loaded("vit")
    run.__dict__ |= known.__dict__ | {"run": Run(folder)}
    run._restore("best")


JSONS = {".json": "json", ".jsonl": "json"}
RUN_FILES = {
    "report": Parser(short_run, report, JSONS, (".png",)),
    "comparison": Parser(short_run, compare, JSONS, (".png",)),
    "run of images": Parser(partial(run_files, "vit", "*.json"), open_run, JSONS, lists_all=True),
    "run of texts": Parser(partial(run_files, "bert", "*.json"), open_run, JSONS, lists_all=True),
    "checkpoint": Parser(
        partial(run_files, "vit", "config.json", "checkpoints/**/*"),
        restore,
        {
            ".json": "json",
            "metadata": "json",
            "metrics": "json",
            "_CHECKPOINT_METADATA": "json",
            "_METADATA": "json",
        },
        ("config.json",),
    ),
}


# What is given to `predict`, `generate` and `perplexity`


def predict_images(folder: Path, output: Path) -> None:
    for name in ("vit", "segmenter"):
        readable([folder], loaded(name).example, skip_broken=False)


def predict_texts(form: str) -> Callable[[Path, Path], Any]:
    def read(folder: Path, output: Path) -> None:
        given = read_given(form, [], [folder / "texts.txt"])
        if form == "text":
            text_inputs(loaded("bert"), given)

    return read


def prompts(folder: Path, output: Path) -> None:
    for prompt, _ in read_lines(str(folder / "texts.txt")):
        loaded("gpt").writer.encode(prompt)
    read_text(str(folder / "texts.txt"))


TEXTS = partial(dict, {"texts.txt": text(*WORDS)})
QUESTIONS = {"texts.txt": lines_of_json({"question": w, "context": f"{w} {w}"} for w in WORDS)}
INPUTS = {
    "predict images": Parser(
        lambda: {name.replace("/", ""): content for name, content in image_folders().items()}, predict_images
    ),
    "predict texts": Parser(TEXTS, predict_texts("text"), TEXT),
    "predict pairs": Parser(
        lambda: {"texts.txt": text(*(f"{w}\t{w}" for w in WORDS))}, predict_texts("texts"), TEXT
    ),
    "predict questions": Parser(lambda: QUESTIONS, predict_texts("question"), {".txt": "json"}),
    "prompts": Parser(lambda: {"texts.txt": text(*WORDS[:3])}, prompts, TEXT),
}


# Tokenizers, and other files that a config names


@cache
def sentencepiece_model(kind: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20), model_writer=model, vocab_size=28, model_type=kind, minloglevel=2
    )
    return model.getvalue()


def byte_level_files() -> dict[str, bytes]:
    from jaxformer.data.text.tokenizer_templates import byte_alphabet

    vocabulary = {token: n for n, token in enumerate([*byte_alphabet(), "th", "the", "<|endoftext|>"])}
    return {"vocab.json": as_json(vocabulary), "merges.txt": text("#version: 0.2", "t h", "th e")}


def wordpiece_files() -> dict[str, bytes]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(WORDS[:3]).split(), "##s", "a"]
    return {
        "vocab.txt": text(*dict.fromkeys(words)),
        "tokenizer_config.json": as_json({"do_lower_case": False}),
    }


def characters_file() -> dict[str, bytes]:
    return run_files("gpt", "tokenizer.json")


def show_tokenizer(folder: Path, output: Path) -> int:
    return cli.main(["data", "tokenizer", "show", str(folder), "--text", "the cat saw"])


def train_tokenizer(folder: Path, output: Path) -> int:
    argv = [
        "data",
        "tokenizer",
        "train",
        str(folder / "texts.txt"),
        "--kind",
        "wordpiece",
        "--vocab-size",
        "60",
    ]
    return cli.main([*argv, "--output", str(output / "tokenizer.json")])


def thesaurus(folder: Path, output: Path) -> None:
    load_thesaurus(str(folder / "words.txt"))
    load_thesaurus(str(folder / "words.jsonl"))


PARAPHRASES = [{"text": w, "paraphrases": [w, f"{w}!"]} for w in WORDS]
SYNONYMS = {
    "words.txt": text("big: large, huge", "# a note", "cat: kitty"),
    "words.jsonl": lines_of_json(
        [{"word": "big", "synonyms": ["large"]}, {"word": "cat", "synonyms": ["kitty"]}]
    ),
}
OTHERS = {
    "tokenizer.json": Parser(partial(run_files, "bert", "tokenizer.json"), show_tokenizer, JSONS),
    "byte-level tokenizer.json": Parser(characters_file, show_tokenizer, JSONS),
    "vocab.txt": Parser(wordpiece_files, show_tokenizer, TEXT),
    "vocab.json": Parser(byte_level_files, show_tokenizer, TEXT),
    "sentencepiece unigram": Parser(lambda: {"spiece.model": sentencepiece_model("unigram")}, show_tokenizer),
    "sentencepiece bpe": Parser(lambda: {"spiece.model": sentencepiece_model("bpe")}, show_tokenizer),
    "texts for a tokenizer": Parser(TEXTS, train_tokenizer, TEXT),
    "paraphrases": Parser(
        lambda: {"p.jsonl": lines_of_json(PARAPHRASES)},
        lambda folder, _: read_paraphrases(folder / "p.jsonl") and None,
        TEXT,
    ),
    "thesaurus": Parser(lambda: SYNONYMS, thesaurus, TEXT),
}

PARSERS = {**IMPORTS, **CONFIGS, **RUN_FILES, **INPUTS, **OTHERS}
