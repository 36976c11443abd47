"""A whole train step of a GPT, ours against PyTorch: the same work, in turns.

    python benchmarks/gpt_step.py [--quick] [--shape medium|nano|gpt2] [--rounds 7] [--steps 4]
                                  [--dtype float32 bfloat16] [--peer transformers|plain|logits|FOLDER]
                                  [--device cpu|gpu] [--sides jaxformer peer] [--compile BACKEND] [--json FILE]

Forward pass, backward pass, clipping and AdamW on the same tokens. "medium" is 4 layers of 384 with 6 heads, a
vocabulary of 8,192, 8 texts of 256 tokens; "nano" is nanoGPT's setting for a CPU, 4 layers of 128, 65 characters, 12
texts of 64; "gpt2" is GPT-2 124M with 16 texts of 1,024. Ours is the package's own train step with its metrics, jitted,
its state donated. The peer is transformers' GPT2LMHeadModel (scaled_dot_product_attention, fused AdamW), "plain" the
GPT-2 of torch_gpt.py, or that of a checkout of nanoGPT, stepped as its train.py does; bfloat16 is torch.autocast.
"logits" is ours again, with a loss that takes an array of all logits rather than the head in one pass. See
train_step.py for how time is taken; on a GPU the steps of a turn follow each other, and the last is waited for.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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

from jaxformer.analysis.flops import count_flops, training_flops
from jaxformer.models.gpt import GPT
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.language import CausalLM

LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-3, 0.1, 1.0
NEXT_TOKEN = CausalLM()


@dataclass(frozen=True)
class Shape:
    """What is trained."""

    width: int
    depth: int
    heads: int
    vocabulary: int
    batch: int
    length: int
    scan: bool = False


SHAPES = {
    "medium": Shape(384, 4, 6, 8192, 8, 256),
    "nano": Shape(128, 4, 4, 65, 12, 64),
    "gpt2": Shape(768, 12, 12, 50_304, 16, 1024),  # 50,257 tokens, rounded up as nanoGPT does
}


def gpt(shape: Shape, dtype: str) -> GPT:
    """Our model."""
    return GPT(
        vocab_size=shape.vocabulary,
        context_length=shape.length,
        width=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        scan=shape.scan,
        dtype=jnp.dtype(dtype),
    )


@dataclass(frozen=True)
class FromLogits(CausalLM):
    """The loss of an array of all logits."""

    def loss(self, outputs: TextOutputs, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return super().loss(outputs.replace(head=None), batch)


def ours(shape: Shape, tokens: np.ndarray, dtype: str, task: CausalLM = NEXT_TOKEN) -> Step:
    """Our train step, as a function that takes a step and returns the loss."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP), optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    )
    return our_step(gpt(shape, dtype), task, {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}, optimizer)


def peer(shape: Shape, tokens: np.ndarray, dtype: str, arguments: argparse.Namespace) -> Step:
    """The same in PyTorch, or with all logits."""
    if arguments.peer == "logits":
        return ours(shape, tokens, dtype, FromLogits())
    import torch

    device = torch_device(arguments)
    if arguments.peer == "transformers":
        network, loss_of = transformers_model(shape)
    elif arguments.peer == "plain":
        network = loss_of = plain_model(shape)
    else:
        network, loss_of = nanogpt_model(shape, Path(arguments.peer))
    network.to(device).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    inputs, targets = (torch.from_numpy(x.copy()).long().to(device) for x in (tokens[:, :-1], tokens[:, 1:]))
    return torch_step(network, lambda: loss_of(inputs, targets), optimizer, CLIP, dtype, arguments.compile)


def plain_model(shape: Shape) -> Any:
    """The GPT-2 of torch_gpt.py, from tokens and targets to the loss."""
    from torch_gpt import GPT as PlainGPT

    return PlainGPT(shape.vocabulary, shape.length, shape.width, shape.depth, shape.heads)


def transformers_model(shape: Shape) -> tuple[Any, Any]:
    """transformers' GPT-2 without dropout, and its loss."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.length,
        n_embd=shape.width,
        n_layer=shape.depth,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    network = GPT2LMHeadModel(config)

    def loss_of(inputs: Any, targets: Any) -> Any:
        logits = network(inputs).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return network, loss_of


def nanogpt_model(shape: Shape, folder: Path) -> tuple[Any, Any]:
    """nanoGPT's model without dropout, and its loss."""
    sys.path.insert(0, str(folder))
    import model as nanogpt

    config = nanogpt.GPTConfig(
        block_size=shape.length,
        vocab_size=shape.vocabulary,
        n_layer=shape.depth,
        n_head=shape.heads,
        n_embd=shape.width,
        dropout=0.0,
        bias=False,
    )
    network = nanogpt.GPT(config)
    return network, lambda inputs, targets: network(inputs, targets)[1]


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the comparison, as they are measured."""
    shape = SHAPES[arguments.shape]
    shape = replace(shape, batch=arguments.batch or shape.batch, scan=arguments.scan)
    random = np.random.default_rng(0)
    tokens = random.integers(0, shape.vocabulary, (shape.batch, shape.length + 1), dtype=np.int32)
    model = gpt(shape, "float32")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens[:, :-1]))
    flops = training_flops(count_flops(lambda v: model.apply(v, tokens[:, :-1]), shapes))
    yield (
        f"GPT {shape}: {flops / 1e9:.1f} GFLOP a step, causal attention counted whole; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; the peer is {arguments.peer}, compile={arguments.compile}"
    )
    name = f"gpt {arguments.shape}, {shape.batch} x {shape.length}" + ", scanned" * shape.scan
    builders: dict[str, Callable[[str], Step]] = {
        "jaxformer": lambda dtype: ours(shape, tokens, dtype),
        "peer": lambda dtype: peer(shape, tokens, dtype, arguments),
    }
    yield from compare(Work(name, flops, shape.batch * shape.length, "tokens"), builders, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds of 1 step of the small shape: does it run?"
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="medium")
    parser.add_argument("--batch", type=int, help="texts, where not those of the shape")
    parser.add_argument("--scan", action="store_true", help="ours scans over its layers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="counted steps in a turn")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument(
        "--peer",
        default="transformers",
        help="transformers, plain, logits, or a checkout of karpathy/nanoGPT",
    )
    add_device_options(parser)
    add_compile_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.rounds, arguments.steps = "nano", 2, 1
    use_device(arguments)
    for line in report(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
