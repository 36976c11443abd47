"""A small dataset of scenes: rectangles of three colours on grey, with their boxes, a mask, and texts about them."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer.data.writing import write_dataset

NAME, SIDE = "scenes", 32
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
CLASSES = (*COLOURS, "ground")  # of the masks
TEXTS = dict.fromkeys(("caption", "question", "answer"), tfds.features.Text())


def png(pixels):
    """Pixels as a file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def scene(rng):
    """A picture with one or two rectangles; the later one lies above."""
    image = rng.integers(110, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.full((SIDE, SIDE), len(COLOURS), np.uint8)  # the ground
    objects = []
    for _ in range(rng.integers(1, 3)):
        top, left = rng.integers(0, SIDE // 2, 2)
        height, width = rng.integers(8, SIDE // 2, 2)
        label = int(rng.integers(len(COLOURS)))
        place = np.s_[top : top + height, left : left + width]
        image[place], mask[place] = list(COLOURS.values())[label], label
        corners = (top, left, top + height, left + width)
        objects.append({"bbox": tfds.features.BBox(*(float(c / SIDE) for c in corners)), "label": label})
    label = objects[-1]["label"]
    colours = [list(COLOURS)[one["label"]] for one in objects]
    texts = {"caption": " under ".join(colours), "question": "what is in front?", "answer": colours[-1]}
    return {"image": png(image), "label": label, "objects": objects, "segmentation_mask": png(mask), **texts}


def write_scenes(folder, train=24, test=8):
    """Writes the dataset into a TFDS folder, and returns the folder."""
    label = tfds.features.ClassLabel(names=list(COLOURS))
    features = {
        "image": tfds.features.Image(shape=(SIDE, SIDE, 3)),
        "label": label,
        "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": label}),
        "segmentation_mask": tfds.features.Image(shape=(SIDE, SIDE, 1)),
        **TEXTS,
    }
    rng = np.random.default_rng(0)
    splits = {name: [scene(rng) for _ in range(n)] for name, n in (("train", train), ("test", test))}
    write_dataset(folder, NAME, "1.0.0", features, splits)
    return folder


def images_config(task, folder):
    """The config of a tiny model for a task over the scenes in a folder."""
    kinds = {"classification": "images", **dict.fromkeys(("captioning", "coca", "contrastive"), "captions")}
    examples = {"name": kinds.get(task, task), "broken": "skip"}
    backbone = {
        "name": "resnet",
        "stage_sizes": [1, 1],
        "width": 8,
        "block": "basic",
        "stem": "small",
        "num_classes": 0,
    }
    words = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16, "context_length": 24}
    models = {
        "classification": {**backbone, "num_classes": 3},
        "detection": {
            "name": "detr", "num_queries": 5, "width": 16, "num_heads": 2, "mlp_dim": 16, "encoder_depth": 0,
            "decoder_depth": 1, "backbone": backbone,
        },
        "segmentation": {"name": "segmenter", "backbone": backbone, "decoder": {"name": "linear"}},
        "captioning": {"name": "captioner", "backbone": backbone, **words},
        "coca": {"name": "coca", "backbone": backbone, "unimodal_depth": 1, "queries": 3, "embedding": 8, **words},
        "contrastive": {"name": "two_towers", "image": backbone, "text": {"name": "gpt", **words}, "embedding": 8},
    }  # fmt: skip
    if task in ("detection", "segmentation"):
        examples["size"] = 32
    if task == "detection":
        examples["max_objects"] = 5
    if task == "segmentation":
        examples["class_names"] = list(CLASSES)
    data = {"name": "scenes", "data_dir": str(folder), "batch_size": 8, "examples": examples}
    if examples["name"] == "captions":
        examples["length"] = 24
        data["tokenizer"] = {"name": "bytes", "template": "seq2seq"}
    monitor = {"classification": "accuracy", "detection": "ap", "segmentation": "mean_iou"}.get(task, "loss")
    return {
        "task": {"name": task},
        "model": models[task],
        "data": data,
        "eval": {"split": "test", "monitor": monitor},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "schedule": {"name": "constant"},
        "train": {"total": "1 step"},
    }
