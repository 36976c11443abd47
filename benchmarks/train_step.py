"""A whole train step, ours against PyTorch on the same model: the same work, in turns.

    python benchmarks/train_step.py [--model vit-ti16] [--quick] [--batch 8] [--rounds 7] [--steps 4] [--depth N]
                                    [--dtype float32 bfloat16] [--channels-last]
                                    [--device cpu|gpu] [--sides jaxformer peer] [--compile BACKEND] [--json FILE]

Forward pass, backward pass and AdamW on the same images (224 px, 1000 classes). Ours is the package's
own train step with its metrics (norms of gradients, parameters and updates), jitted, its state donated. The peer of
vit-ti16 is transformers' ViTForImageClassification with its default attention (scaled_dot_product_attention); that of
the others is timm's model; all have fused AdamW, and torch.autocast is their bfloat16. The two take turns, `--rounds`
times `--steps` steps each after a step that is not counted; the figures are medians over the rounds. FLOPs are those
of matrix products and convolutions, three times the forward pass's; the limit is the rate of one large matrix product
in the same process. On a GPU the steps of a turn follow each other, and the last is waited for.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import (
    Step,
    Work,
    add_compile_option,
    add_device_options,
    compare,
    our_step,
    torch_device,
    torch_step,
    use_device,
)
from flax import linen as nn

from jaxformer.analysis.flops import count_flops, training_flops
from jaxformer.config import schema
from jaxformer.models import MODELS
from jaxformer.models.presets import preset
from jaxformer.precision import in_precision
from jaxformer.tasks.classification import Classification

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.timm_reference import timm

LEARNING_RATE, WEIGHT_DECAY, CLASSES, SIZE = 1e-3, 0.05, 1000, 224

# A preset -> fields that make it what the peer is, and timm's name of it; None: transformers' ViT.
PEERS = {
    "vit-ti16": ({"activation": "gelu_erf", "norm_epsilon": 1e-12}, None),
    "vit-b16": ({"activation": "gelu_erf"}, "vit_base_patch16_224"),
    "r50-vit-b16": ({"activation": "gelu_erf"}, "vit_base_r50_s16_224"),
    "r26-vit-s32": ({}, "vit_small_r26_s32_224"),
    "coatnet-0": ({}, "coatnet_0_224"),
    "resnet-50": ({}, "resnet50"),
}


def model_of(name: str, dtype: str, depth: int | None) -> nn.Module:
    """The preset, as the peer has it."""
    fields = PEERS[name][0] | ({"depth": depth} if depth else {})
    return in_precision(schema.build(MODELS, preset(name, **fields), "model"), dtype)


def ours(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> Step:
    """Our train step, as a function that takes a step and returns the loss."""
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    return our_step(model, Classification(), {"image": images, "labels": labels}, optimizer)


def torch_vit():
    """transformers' ViT in the shape of our preset, from images to logits."""
    from transformers import ViTConfig, ViTForImageClassification

    model = model_of("vit-ti16", "float32", None)
    config = ViTConfig(
        image_size=model.image_size,
        patch_size=model.patch_size,
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
        intermediate_size=model.mlp_dim,
        num_labels=CLASSES,
    )
    network = ViTForImageClassification(config)
    return network, lambda pixels: network(pixels).logits


def peer(images: np.ndarray, labels: np.ndarray, dtype: str, arguments: argparse.Namespace) -> Step:
    """The same in PyTorch."""
    import torch

    device, name = torch_device(arguments), PEERS[arguments.model][1]
    if name:
        depth = {"depth": arguments.depth} if arguments.depth else {}
        network = logits_of = timm().create_model(name, num_classes=CLASSES, **depth)
    else:
        network, logits_of = torch_vit()
    order = torch.channels_last if arguments.channels_last else torch.contiguous_format
    network.to(device, memory_format=order).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
    pixels = pixels.to(device).contiguous(memory_format=order)
    targets = torch.from_numpy(labels).long().to(device)

    def loss_of() -> Any:
        return torch.nn.functional.cross_entropy(logits_of(pixels).float(), targets)

    return torch_step(network, loss_of, optimizer, None, dtype, arguments.compile)


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the comparison, as they are measured."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (arguments.batch, SIZE, SIZE, 3), dtype=np.uint8)
    labels = random.integers(0, CLASSES, arguments.batch).astype(np.int32)
    name, pixels = arguments.model, jax.ShapeDtypeStruct(images.shape, jnp.float32)
    model = model_of(name, "float32", arguments.depth)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), image=x), pixels)
    flops = training_flops(count_flops(lambda v, x: model.apply(v, image=x), shapes, pixels))
    load = os.getloadavg()[0]
    yield (
        f"{name}, batch {arguments.batch}: {flops / 1e9:.1f} GFLOP a step; {os.cpu_count()} cores, load {load:.1f}; "
        f"compile={arguments.compile}, channels last: {arguments.channels_last}"
    )
    builders: dict[str, Callable[[str], Step]] = {
        "jaxformer": lambda dtype: ours(model_of(name, dtype, arguments.depth), images, labels),
        "peer": lambda dtype: peer(images, labels, dtype, arguments),
    }
    work = Work(f"{name}, {arguments.batch} images", flops, arguments.batch, "images")
    yield from compare(work, builders, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=PEERS, default="vit-ti16")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 step, batch 2: does it run?")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--depth", type=int, help="blocks of a ViT, where not the preset's: does it run?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="counted steps in a turn")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--channels-last", action="store_true", help="the peer's images lie as ours do")
    add_device_options(parser)
    add_compile_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batch, arguments.rounds, arguments.steps = 2, 2, 1
    use_device(arguments)
    for line in report(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
