"""A whole train step of CLIP, ours against transformers with PyTorch: the same work, in turns.

    python benchmarks/clip_step.py [--quick] [--preset clip-vit-b32] [--batch 16] [--rounds 7] [--steps 2]
                                   [--dtype float32 bfloat16] [--device cpu|gpu] [--sides jaxformer peer]
                                   [--compile BACKEND] [--json FILE]

Forward pass, backward pass and AdamW on the same pairs of a picture of 224 pixels and a text of 77 tokens, under the
softmax loss over the batch. Ours is the package's own train step with its metrics (the batch's accuracy; norms of
gradients, parameters and updates), jitted, its state donated. The peer is transformers' CLIPModel with its default
attention (scaled_dot_product_attention), its own loss and fused AdamW; torch.autocast is its bfloat16. See
train_step.py for how time is taken.
"""

import argparse
import os
from collections.abc import Callable, Iterator
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
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.contrastive import Contrastive
from jaxformer.weights.towers_config import CLIP

LEARNING_RATE, WEIGHT_DECAY = 1e-5, 0.05


def model_of(name: str, dtype: str) -> nn.Module:
    """The preset."""
    return in_precision(schema.build(MODELS, preset(name), "model"), dtype)


def ours(model: nn.Module, batch: dict[str, np.ndarray]) -> Step:
    """Our train step, as a function that takes a step and returns the loss."""
    task = Contrastive()
    on_device = jax.device_put(batch)
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    variables = jax.jit(lambda: init_variables(model, task.inputs(on_device), jax.random.key(0)))()
    state = init_state(variables, optimizer)
    step = jax.jit(make_train_step(model, task, optimizer, seed=0), donate_argnums=0)

    def take() -> jax.Array:
        nonlocal state
        state, metrics = step(state, on_device)
        return metrics["loss"]

    return take


def peer(model: nn.Module, batch: dict[str, np.ndarray], dtype: str, arguments: argparse.Namespace) -> Step:
    """The same in PyTorch."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    device = torch_device(arguments)
    network = CLIPModel(CLIPConfig(**CLIP.config_of(model, ()))).to(device).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    pixels = torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1).to(device)
    tokens = torch.from_numpy(batch["tokens"]).long().to(device)
    mask = torch.from_numpy(batch["token_mask"]).long().to(device)

    def loss_of() -> Any:
        return network(
            input_ids=tokens, pixel_values=pixels, attention_mask=mask, return_loss=True
        ).loss.float()

    return torch_step(network, loss_of, optimizer, None, dtype, arguments.compile)


def pairs(model: nn.Module, count: int) -> dict[str, np.ndarray]:
    """A batch: noise, and texts of 8 to all tokens that end with the last token of the vocabulary."""
    random = np.random.default_rng(0)
    length, side = model.context_length, model.image_size
    mask = np.arange(length) < random.integers(8, length + 1, count)[:, None]
    tokens = np.where(mask, random.integers(0, model.vocab_size - 2, mask.shape), 0)
    tokens[np.arange(count), mask.sum(1) - 1] = model.vocab_size - 1
    numbers = np.arange(count, dtype=np.int32)
    return {
        "image": random.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        "tokens": tokens.astype(np.int32),
        "token_mask": mask,
        "picture": numbers,
        "caption": numbers,
    }


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the comparison, as they are measured."""
    model = model_of(arguments.preset, "float32")
    batch = pairs(model, arguments.batch)
    inputs = {
        "image": jax.ShapeDtypeStruct(batch["image"].shape, jnp.float32),
        "tokens": jax.ShapeDtypeStruct(batch["tokens"].shape, jnp.int32),
    }
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), **x), inputs)
    flops = training_flops(count_flops(lambda v, x: model.apply(v, **x), shapes, inputs))
    yield (
        f"{arguments.preset}, batch {arguments.batch}: {flops / 1e9:.1f} GFLOP a step; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; compile={arguments.compile}"
    )
    builders: dict[str, Callable[[str], Step]] = {
        "jaxformer": lambda dtype: ours(model_of(arguments.preset, dtype), batch),
        "peer": lambda dtype: peer(model, batch, dtype, arguments),
    }
    work = Work(f"{arguments.preset}, {arguments.batch} pairs", flops, arguments.batch, "pairs")
    yield from compare(work, builders, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="clip-vit-b32")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 step, batch 2: does it run?")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="counted steps in a turn")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
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
