"""A whole train step of a GPT, ours against PyTorch eager: the same work, in turns.

    python benchmarks/gpt_step.py [--quick] [--shape medium|nano] [--rounds 7] [--steps 4] [--dtype float32 bfloat16]
                                  [--nanogpt FOLDER]

Forward pass, backward pass, clipping and AdamW on the same tokens on the CPU. "medium" is 4 layers of 384 with 6 heads,
a vocabulary of 8,192, 8 texts of 256 tokens; "nano" is nanoGPT's setting for a CPU, 4 layers of 128, 65 characters, 12
texts of 64. Ours is the package's own train step with its metrics, jitted, its state donated. The peer is transformers'
GPT2LMHeadModel (scaled_dot_product_attention, fused AdamW), or with --nanogpt the model of a nanoGPT checkout, stepped
as its train.py does; bfloat16 is torch.autocast. See train_step.py for how time is taken.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Step, in_turns, product_rate

from jaxformer.analysis.flops import count_flops, training_flops
from jaxformer.models.gpt import GPT
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.language import CausalLM

LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-3, 0.1, 1.0


@dataclass(frozen=True)
class Shape:
    """What is trained."""

    width: int
    depth: int
    heads: int
    vocabulary: int
    batch: int
    length: int


SHAPES = {
    "medium": Shape(384, 4, 6, 8192, 8, 256),
    "nano": Shape(128, 4, 4, 65, 12, 64),
}


def gpt(shape: Shape, dtype: str) -> GPT:
    """Our model."""
    return GPT(
        vocab_size=shape.vocabulary,
        context_length=shape.length,
        width=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        dtype=jnp.dtype(dtype),
    )


def ours(shape: Shape, tokens: np.ndarray, dtype: str) -> Step:
    """Our train step, as a function that takes a step and returns the loss."""
    model, task = gpt(shape, dtype), CausalLM()
    batch = jax.device_put({"tokens": tokens[:, :-1], "targets": tokens[:, 1:]})
    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP), optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    )
    variables = jax.jit(lambda: init_variables(model, task.inputs(batch), jax.random.key(0)))()
    state = init_state(variables, optimizer)
    step = jax.jit(make_train_step(model, task, optimizer, seed=0), donate_argnums=0)

    def take() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    return take


def peer(shape: Shape, tokens: np.ndarray, dtype: str, nanogpt: Path | None) -> Step:
    """The same in PyTorch, eager."""
    import torch

    torch.manual_seed(0)
    network, loss_of = nanogpt_model(shape, nanogpt) if nanogpt else transformers_model(shape)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    inputs, targets = (torch.from_numpy(x.copy()).long() for x in (tokens[:, :-1], tokens[:, 1:]))

    def take() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return take


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
    network = GPT2LMHeadModel(config).train()

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
    network = nanogpt.GPT(config).train()
    return network, lambda inputs, targets: network(inputs, targets)[1]


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the comparison, as they are measured."""
    shape = SHAPES[arguments.shape]
    random = np.random.default_rng(0)
    tokens = random.integers(0, shape.vocabulary, (shape.batch, shape.length + 1), dtype=np.int32)
    model = gpt(shape, "float32")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens[:, :-1]))
    flops = training_flops(count_flops(lambda v: model.apply(v, tokens[:, :-1]), shapes))
    each = shape.batch * shape.length
    yield (
        f"GPT {shape}: {flops / 1e9:.1f} GFLOP a step, causal attention counted whole; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    other = "nanoGPT" if arguments.nanogpt else "PyTorch"
    for dtype in arguments.dtype:
        contenders = {
            "jaxformer": ours(shape, tokens, dtype),
            other: peer(shape, tokens, dtype, arguments.nanogpt),
        }
        seconds = in_turns(contenders, arguments.rounds, arguments.steps)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        limit = product_rate(dtype)
        for name, values in seconds.items():
            yield (
                f"{dtype} {name:9}: {1000 * medians[name]:.1f} ms a step ({1000 * min(values):.1f} to "
                f"{1000 * max(values):.1f}), {each / medians[name]:,.0f} tokens/s, "
                f"{flops / medians[name] / 1e9:.0f} GFLOP/s of {limit / 1e9:.0f} in one large product"
            )
        yield f"{dtype}: ours is {medians[other] / medians['jaxformer']:.2f} times as fast as {other}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds of 1 step of the small shape: does it run?"
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="medium")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="counted steps in a turn")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument(
        "--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT, to compare with its model"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.rounds, arguments.steps = "nano", 2, 1
    for line in report(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
