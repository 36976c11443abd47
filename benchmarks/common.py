"""What benchmarks share: contenders that take turns, clocks, and the limit of the machine."""

import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

Step = Callable[[], object]

# PyPI's torchvision does not import beside a CPU build of PyTorch, and transformers would import it.
sys.modules.setdefault("torchvision", None)


def in_turns(contenders: dict[str, Step], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step, a median for each round; each turn begins with a step that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, take in contenders.items():
            take()
            seconds[name].append(statistics.median(timed(take) for _ in range(steps)))
    return seconds


def timed(take: Step) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    take()
    return time.perf_counter() - start


def product_rate(dtype: str, size: int = 2048, repeats: int = 7) -> float:
    """FLOP/s of one square matrix product: the limit for what consists of smaller ones."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    product(x).block_until_ready()
    return 2 * size**3 / min(timed(lambda: product(x).block_until_ready()) for _ in range(repeats))
