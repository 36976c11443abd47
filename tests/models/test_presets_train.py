"""The smallest preset of every family of image models learns a batch by heart, at its published size."""

import jax
import numpy as np
import optax
import pytest

from jaxformer.config import schema
from jaxformer.models import MODELS
from jaxformer.models.presets import PRESETS, preset
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.detection import Detection
from jaxformer.tasks.segmentation import Segmentation

# Pixels a side: as few as its windows and tables allow.
PRESET_SIZES = {
    "bit-r50x1": 64, "botnet-50": 224, "cbam-resnet-50": 64, "cct-7-3x1-32": 32, "coatnet-0": 224, "convnext-t": 64,
    "cvt-13": 64, "deit-ti16-distilled": 224, "detr-r50": 64, "eca-resnet-50": 64, "efficientnet-lite0": 64,
    "maxvit-t": 224, "mit-b0": 64, "mixer-s32": 224, "nonlocal-resnet-50": 64, "r-vit-ti16": 224, "r26-vit-s32": 224,
    "r50-vit-b16": 224, "resnet-50": 64, "resnetv2-50": 64, "se-resnet-50": 64, "segmenter-ti16": 224, "swin-t": 64,
    "vit-c-1gf": 224, "vit-ti16": 224,
}  # fmt: skip
TASKS = {"detr": Detection(), "segmenter": Segmentation()}


def a_batch(name, size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    if name == "segmenter":
        return {"image": image, "segmentation": rng.integers(0, 5, (2, size, size)).astype(np.int32)}
    if name == "detr":
        boxes = np.array([[[0.5, 0.5, 0.2, 0.4], [0.3, 0.4, 0.2, 0.2]]] * 2, np.float32)
        extent = np.full((2, 2), size, np.int32)
        return {
            "image": image,
            "boxes": boxes,
            "labels": np.array([[1, 2], [3, -1]], np.int32),
            "extent": extent,
        }
    return {"image": image, "labels": np.array([3, 5], np.int32)}


def test_no_family_is_left_out():
    images = {name for name in MODELS if any(f["name"] == name for f in PRESETS.values())} - {
        "bert",
        "gpt",
        "seq2seq",
        "two_towers",
    }
    assert {PRESETS[name]["name"] for name in PRESET_SIZES} == images


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESET_SIZES)
def test_it_learns_a_batch_by_heart(name):
    fields, size = preset(name), PRESET_SIZES[name]
    model = schema.build(MODELS, fields, "model")
    task, batch = TASKS.get(fields["name"], Classification()), a_batch(fields["name"], size)
    optimizer = optax.adam(1e-4)
    variables = jax.jit(lambda: init_variables(model, task.inputs(batch), jax.random.key(0)))()
    state = init_state(variables, optimizer)
    step = jax.jit(make_train_step(model, task, optimizer, seed=0), donate_argnums=0)
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        assert not float(metrics["skipped"])
    assert losses[-1] < losses[0], losses
