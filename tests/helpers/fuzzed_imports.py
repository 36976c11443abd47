"""The parsers of files that become datasets; see fuzzed.py."""

import datetime
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.ipc
import pyarrow.parquet
from PIL import Image

from helpers.fuzzed_files import TEXT, WORDS, Parser, as_json, image, lines_of_json, text
from jaxformer import cli


def image_folders() -> dict[str, bytes]:
    forms = {"a/0.png": "PNG", "a/1.jpg": "JPEG", "a/2.tif": "TIFF", "a/3.gif": "GIF"}
    forms |= {"b/0.bmp": "BMP", "b/1.ppm": "PPM", "b/2.webp": "WEBP", "b/3.png": "PNG"}
    return {name: image(form, seed, turned=True) for seed, (name, form) in enumerate(forms.items())}


def image_table() -> dict[str, bytes]:
    rows = [f"{n}.png,{'ab'[n % 2]},{'train' if n < 4 else 'test'}" for n in range(6)]
    return {f"{n}.png": image("PNG", n) for n in range(6)} | {"i.csv": text("path,label,split", *rows)}


def captions() -> dict[str, bytes]:
    rows = [f"{n % 4}.png,{WORDS[n % len(WORDS)]},{'train' if n % 4 < 3 else 'test'}" for n in range(6)]
    return {f"{n}.png": image("PNG", n) for n in range(4)} | {"i.csv": text("path,caption,split", *rows)}


def coco_captions() -> dict[str, bytes]:
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(3)]
    said = [{"id": n, "image_id": n % 3, "caption": WORDS[n % len(WORDS)]} for n in range(5)]
    pictures = {f"{n}.png": image("PNG", n) for n in range(3)}
    return pictures | {"labels.json": as_json({"images": images, "annotations": said})}


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


def table() -> pyarrow.Table:
    """Texts, labels and columns of other types, as the rows of the other tables."""
    columns = {"text": WORDS, "label": list("xyxyx"), "n": range(5), "score": [0.5, 1.0, 1.5, 2.0, 3.0]}
    day = datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC)
    return pyarrow.table(columns | {"day": [day] * 5, "list": [[1], [2, 3], [], None, [4]]})


def rows_of_parquet() -> dict[str, bytes]:
    small, plain = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table(), small)
    pyarrow.parquet.write_table(table(), plain, compression="none", use_dictionary=False)
    return {"small.parquet": small.getvalue(), "plain.parquet": plain.getvalue()}


def rows_of_arrow() -> dict[str, bytes]:
    found = {}
    for name, new in (("file.arrow", pyarrow.ipc.new_file), ("stream.arrow", pyarrow.ipc.new_stream)):
        buffer = io.BytesIO()
        with new(buffer, table().schema) as writer:
            writer.write_table(table())
        found[name] = buffer.getvalue()
    return found


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
    "image-text": Parser(captions, import_by_command("image-text", "--skip-broken", source="i.csv"), TEXT),
    "image-text coco": Parser(coco_captions, import_by_command("image-text", source="labels.json"), TEXT),
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
    "parquet": Parser(rows_of_parquet, import_by_command("parquet", "--label", "label")),
    "parquet arrow": Parser(rows_of_arrow, import_by_command("parquet", "--label", "label")),
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
