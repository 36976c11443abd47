"""A whole train step, ours against PyTorch eager on the same model: the same work, in turns.

    python benchmarks/train_step.py [--model vit-ti16] [--quick] [--batch 8] [--rounds 7] [--steps 4]
                                    [--dtype float32 bfloat16]

Forward pass, backward pass and AdamW on the same images (224 px, 1000 classes) on the CPU. Ours is the package's
own train step with its metrics (norms of gradients, parameters and updates), jitted, its state donated. The peer of
vit-ti16 is transformers' ViTForImageClassification with its default attention (scaled_dot_product_attention); that of
the others is timm's model; all have fused AdamW, and torch.autocast is their bfloat16. The two take turns, `--rounds`
times `--steps` steps each after a step that is not counted; the figures are medians over the rounds. FLOPs are those
of matrix products and convolutions, three times the forward pass's; the limit is the rate of one large matrix product
in the same process.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import in_turns, product_rate
from flax import linen as nn

from jaxformer.analysis.flops import count_flops, training_flops
from jaxformer.config import schema
from jaxformer.models import MODELS
from jaxformer.models.presets import preset
from jaxformer.precision import in_precision
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.classification import Classification

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.timm_reference import timm

LEARNING_RATE, WEIGHT_DECAY, CLASSES, SIZE = 1e-3, 0.05, 1000, 224
Step = Callable[[], float]

# A preset -> fields that make it what the peer is, and timm's name of it; None: transformers' ViT.
PEERS = {
    "vit-ti16": ({"activation": "gelu_erf", "norm_epsilon": 1e-12}, None),
    "r26-vit-s32": ({}, "vit_small_r26_s32_224"),
    "coatnet-0": ({}, "coatnet_0_224"),
    "resnet-50": ({}, "resnet50"),
}


def model_of(name: str, dtype: str) -> nn.Module:
    """The preset, as the peer has it."""
    return in_precision(schema.build(MODELS, preset(name, **PEERS[name][0]), "model"), dtype)


def ours(name: str, images: np.ndarray, labels: np.ndarray, dtype: str) -> Step:
    """Our train step, as a function that takes a step and returns the loss."""
    model, task = model_of(name, dtype), Classification()
    batch = jax.device_put({"image": images, "labels": labels})
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    variables = jax.jit(lambda: init_variables(model, task.inputs(batch), jax.random.key(0)))()
    state = init_state(variables, optimizer)
    step = jax.jit(make_train_step(model, task, optimizer, seed=0), donate_argnums=0)

    def take() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    return take


def torch_vit():
    """transformers' ViT in the shape of our preset, from images to logits."""
    from transformers import ViTConfig, ViTForImageClassification

    model = model_of("vit-ti16", "float32")
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


def peer(name: str, images: np.ndarray, labels: np.ndarray, dtype: str) -> Step:
    """The same in PyTorch, eager."""
    import torch

    torch.manual_seed(0)
    if PEERS[name][1]:
        network = logits_of = timm().create_model(PEERS[name][1], num_classes=CLASSES)
    else:
        network, logits_of = torch_vit()
    network.train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1).contiguous()
    targets = torch.from_numpy(labels).long()

    def take() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = logits_of(pixels)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return take


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the comparison, as they are measured."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (arguments.batch, SIZE, SIZE, 3), dtype=np.uint8)
    labels = random.integers(0, CLASSES, arguments.batch).astype(np.int32)
    name, model = arguments.model, model_of(arguments.model, "float32")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image=jnp.zeros(images.shape)))
    forward = count_flops(lambda v: model.apply(v, image=jnp.zeros(images.shape)), shapes)
    flops = training_flops(forward)
    load = os.getloadavg()[0]
    yield f"{name}, batch {arguments.batch}: {flops / 1e9:.1f} GFLOP a step; {os.cpu_count()} cores, load {load:.1f}"
    for dtype in arguments.dtype:
        contenders = {side.__name__: side(name, images, labels, dtype) for side in (ours, peer)}
        seconds = in_turns(contenders, arguments.rounds, arguments.steps)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        limit = product_rate(dtype)
        for side, values in seconds.items():
            yield (
                f"{dtype} {side:4}: {medians[side]:.3f} s a step ({min(values):.3f} to {max(values):.3f}), "
                f"{flops / medians[side] / 1e9:.0f} GFLOP/s of {limit / 1e9:.0f} in one large product"
            )
        yield f"{dtype}: ours takes {medians['ours'] / medians['peer']:.2f} of PyTorch's time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=PEERS, default="vit-ti16")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 step, batch 2: does it run?")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="counted steps in a turn")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batch, arguments.rounds, arguments.steps = 2, 2, 1
    for line in report(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
