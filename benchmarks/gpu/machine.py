"""What the machine has: versions, the card, whether everything imports, and the rates of products and of memory.

python benchmarks/gpu/machine.py [--device cpu|gpu] [--json FILE]
"""

import argparse
import platform
import sys
import traceback
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "tests")]
from common import add_device_options, product_rate, record, timed, use_device
from helpers.timm_reference import timm

PACKAGES = """
jax jaxlib jax-cuda13-plugin nvidia-cudnn-cu13 flax optax orbax-checkpoint numpy tokenizers opencv-python-headless
torch triton timm transformers ml_collections tensorflow-datasets grain array-record tensorboardX pytest
"""
MODULES = """
jaxformer.models jaxformer.models.gpt jaxformer.step jaxformer.tasks.language jaxformer.tasks.classification
jaxformer.parallel.compile jaxformer.inference.writers torch timm transformers
"""


def version(package: str) -> str | None:
    """That of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def result_or_error(find: Callable[[], Any]) -> Any:
    """What a function gives; the last line of a failure, whose traceback is printed."""
    try:
        return find()
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def imported(name: str) -> str:
    """ "ok", once a module has been imported."""
    timm() if name == "timm" else import_module(name)
    return "ok"


def jax_devices() -> list[str]:
    """JAX's devices, by name."""
    import jax

    return [device.device_kind for device in jax.devices()]


def copy_rate(bytes_moved: int) -> float:
    """Bytes a second that are read and written where an array is copied with 1 added."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(bytes_moved // 8, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy(x).block_until_ready()
    return bytes_moved / min(timed(lambda: copy(x).block_until_ready()) for _ in range(7))


def torch_device_name() -> str:
    """PyTorch's card."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_device_options(parser)
    arguments = parser.parse_args()
    use_device(arguments)
    large = 2**33 if arguments.device == "gpu" else 2**26
    found = {
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES.split()},
        "imports": {name: result_or_error(lambda name=name: imported(name)) for name in MODULES.split()},
        "jax_devices": result_or_error(jax_devices),
        "torch_device": result_or_error(torch_device_name),
        "product_rate_bfloat16": result_or_error(lambda: product_rate("bfloat16")),
        "product_rate_float32": result_or_error(lambda: product_rate("float32")),
        "copy_bytes_per_second": result_or_error(lambda: copy_rate(large)),
    }
    for name, value in found.items():
        print(f"{name}: {value}", flush=True)
    record(arguments.json, work="machine", **found)
    rates = [found[name] for name in ("product_rate_bfloat16", "copy_bytes_per_second")]
    works = all(isinstance(rate, float) for rate in rates) and set(found["imports"].values()) == {"ok"}
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
