"""What benchmarks share: devices, contenders that take turns, clocks, memory, and the limit of the machine."""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxformer.observe.device import peak_flops
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step

# Takes a step and gives a number of it, of which `float` waits until the device has it.
Step = Callable[[], Any]

# PyPI's torchvision does not import beside a CPU build of PyTorch, and transformers would import it.
sys.modules.setdefault("torchvision", None)

SIDES = ("jaxformer", "peer")


@dataclass(frozen=True)
class Work:
    """What one step of a comparison does."""

    name: str
    """What it is called in results."""
    flops: int
    """FLOPs of its products, forwards and backwards."""
    amount: int
    """How many items it works on."""
    unit: str
    """What these are, such as "tokens"."""


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """The options of benchmarks that also run on a GPU."""
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=SIDES,
        default=list(SIDES),
        help="on a GPU, each in a process of its own",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file to which a line a side is added")


def add_compile_option(parser: argparse.ArgumentParser) -> None:
    """How a peer's train step is compiled."""
    parser.add_argument(
        "--compile",
        metavar="BACKEND",
        help="torch.compile's backend for the peer (inductor); it is eager without",
    )


def use_device(arguments: argparse.Namespace) -> None:
    """Gives JAX the device, and leaves a GPU to the peer where ours does not run."""
    on_gpu = arguments.device == "gpu"
    if on_gpu and len(arguments.sides) > 1:  # JAX would take three quarters of the memory at once
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_platforms", "cuda,cpu" if on_gpu and "jaxformer" in arguments.sides else "cpu")


def our_step(model: Any, task: Any, batch: Any, optimizer: Any) -> Step:
    """The package's own train step, jitted, its state donated: a function that takes a step and returns the loss."""
    on_device = jax.device_put(batch)
    variables = jax.jit(lambda: init_variables(model, task.inputs(on_device), jax.random.key(0)))()
    state = init_state(variables, optimizer)
    step = jax.jit(make_train_step(model, task, optimizer, seed=0), donate_argnums=0)

    def take() -> jax.Array:
        nonlocal state
        state, metrics = step(state, on_device)
        return metrics["loss"]

    return take


def torch_device(arguments: argparse.Namespace) -> str:
    """PyTorch's name of the device; products of float32 are TensorFloat-32 on GPUs, as JAX has them."""
    import torch

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    return "cuda" if arguments.device == "gpu" else "cpu"


def torch_step(
    network: Any, loss_of: Step, optimizer: Any, clip: float | None, dtype: str, backend: str
) -> Step:
    """A train step of PyTorch, mixed precision by autocast.

    Args:
      loss_of: the loss, of nothing.
      clip: the largest norm of the gradients.
      backend: torch.compile's for the loss; None: eager.
    """
    import torch

    device = next(network.parameters()).device.type
    loss_of = torch.compile(loss_of, backend=backend) if backend else loss_of

    def take() -> Any:
        mixed = torch.autocast(device, torch.bfloat16) if dtype == "bfloat16" else nullcontext()
        with mixed:
            loss = loss_of()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return take


def compare(
    work: Work, builders: dict[str, Callable[[str], Step]], arguments: argparse.Namespace
) -> Iterator[str]:
    """Lines of a comparison as they are measured, for each dtype; `arguments.json` gets all figures.

    Args:
      builders: a side -> a dtype -> its step.
    """
    for dtype in arguments.dtype:
        contenders = {side: builders[side](dtype) for side in arguments.sides}
        first = {side: timed(in_a_row(take, 1)) for side, take in contenders.items()}
        together = (
            arguments.steps if arguments.device == "gpu" else 1
        )  # a host that waits would leave it idle
        turns = {side: in_a_row(take, together) for side, take in contenders.items()}
        taken = in_turns(turns, arguments.rounds, arguments.steps // together)
        seconds = {side: [each / together for each in values] for side, values in taken.items()}
        limit = product_rate(dtype) if "jaxformer" in contenders else None
        for side, values in seconds.items():
            median = statistics.median(values)
            device, peak_bytes = device_of(side, arguments)
            stated = peak_flops(device, dtype)
            yield (
                f"{dtype} {side:9}: {1000 * median:.1f} ms a step ({1000 * min(values):.1f} to "
                f"{1000 * max(values):.1f}), {work.amount / median:,.0f} {work.unit}/s, "
                f"{work.flops / median / 1e9:,.0f} GFLOP/s"
                + (f" of {limit / 1e9:,.0f} in one large product" if limit else "")
                + (f", {work.flops / median / stated:.1%} of the peak" if stated else "")
                + (f", {peak_bytes / 2**30:.2f} GiB" if peak_bytes else "")
                + f"; the first step took {first[side]:.1f} s"
            )
            record(
                arguments.json,
                work=work.name,
                side=side,
                dtype=dtype,
                device=device,
                compile=arguments.compile,
                seconds=values,
                rate=work.amount / median,
                unit=f"{work.unit}/s",
                flops=work.flops,
                mfu=stated and work.flops / median / stated,
                product_rate=limit,
                peak_bytes=peak_bytes,
                first_seconds=first[side],
            )
        if len(seconds) == 2:
            ours, theirs = (statistics.median(seconds[side]) for side in SIDES)
            yield f"{dtype}: ours is {theirs / ours:.2f} times as fast as its peer"


def in_turns(contenders: dict[str, Step], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step, a median for each round; each turn begins with a step that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, take in contenders.items():
            take()
            seconds[name].append(statistics.median(timed(take) for _ in range(steps)))
    return seconds


def in_a_row(take: Step, steps: int) -> Step:
    """Several steps that start one after the other, as in training; the last is waited for."""

    def take_all() -> float:
        for _ in range(steps):
            number = take()
        return float(number)

    return take_all


def timed(take: Step) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    take()
    return time.perf_counter() - start


def product_rate(dtype: str, repeats: int = 7) -> float:
    """FLOP/s of one large square matrix product: the limit for what consists of smaller ones."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)  # GPUs are faster on zeros and ones
    product = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    product(x).block_until_ready()
    return 2 * size**3 / min(timed(lambda: product(x).block_until_ready()) for _ in range(repeats))


def device_of(side: str, arguments: argparse.Namespace) -> tuple[str, int | None]:
    """The name of a side's device, and the most bytes that it has had there; None on a CPU."""
    if arguments.device == "cpu":
        return "cpu", None
    if side == "jaxformer":
        device = jax.local_devices()[0]
        return device.device_kind, device.memory_stats()["peak_bytes_in_use"]
    import torch

    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()


def record(path: Path | None, **values: Any) -> None:
    """Adds a line of JSON to a file, if there is one."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(values) + "\n")
