"""The devices, their peak FLOP/s and their memory, and model FLOPs utilisation."""

import functools
import os
import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxformer.errors import counted

# Peak dense FLOP/s of one JAX device: (a pattern for words of its `device_kind`, 16-bit operands, float32 operands).
# The first line that matches counts. Sparsity, which doubles the vendors' headlines, is taken out. Products of
# float32 arrays count as JAX computes them by default: TensorFloat-32 on NVIDIA GPUs from Ampere on, one
# bfloat16 pass on TPUs. V100 and T4 have no bfloat16 units: their 16-bit figure is for float16.
PEAK_FLOPS: tuple[tuple[str, float, float], ...] = (
    # NVIDIA data sheets: HGX B200; H100, H200 (SXM, NVL) and GH200
    ("B200", 2250e12, 1125e12),
    ("H[12]00 NVL", 835.5e12, 417.5e12),
    ("H100 PCIe", 756e12, 378e12),
    ("H100|G?H200", 989.5e12, 494.5e12),
    # NVIDIA data sheets: A100, A10, L4, L40S, T4, V100 (SXM2)
    ("A100", 312e12, 156e12),
    ("A10G", 70e12, 35e12),  # AWS's variant of the A10
    ("A10", 125e12, 62.5e12),
    ("L40S", 362e12, 183e12),
    ("L4", 121e12, 60e12),
    ("T4", 65e12, 8.1e12),
    ("V100", 125e12, 15.7e12),
    # NVIDIA Ada (appendix A) and GA102 whitepapers; with accumulation in float32
    ("RTX 4090", 165.2e12, 82.6e12),
    ("RTX 3090", 71e12, 35.6e12),
    # Google Cloud TPU documentation, "System architecture", a page a version. A device is a chip, but one
    # of a chip's two cores on v2, v3 and TPU7x.
    ("TPU v2", 45e12 / 2, 45e12 / 2),
    ("TPU v3", 123e12 / 2, 123e12 / 2),
    ("TPU v4", 275e12, 275e12),
    ("TPU v5 lite|TPU v5e", 197e12, 197e12),
    ("TPU v5p?", 459e12, 459e12),
    ("TPU v6 lite|TPU v6e", 918e12, 918e12),
    ("TPU7x", 2307e12 / 2, 2307e12 / 2),
)

CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use of the machine's memory, or "max"
MFU_FORMULA = "model FLOPs per example (forward + backward) x examples/s / (devices x peak FLOP/s)"


class DeviceMemory(NamedTuple):
    """Memory of the fullest device of this process, in bytes."""

    used: int
    """In use now."""
    limit: int
    """All that may be used."""


class Peak(NamedTuple):
    """The peak rate of a device."""

    flops: float
    """FLOP/s of one device."""
    source: str
    """The source of the figure, in words."""


def is_first_process() -> bool:
    """Whether this is the one process of a run that logs and writes."""
    import jax

    return jax.process_index() == 0


def device_line(devices: Sequence[Any] | None = None) -> str:
    """One line on the devices: "2 x NVIDIA H100 80GB HBM3 (gpu), 1 process, jax 0.10.2"."""
    import jax

    devices = jax.devices() if devices is None else devices
    name, backend = " / ".join(sorted({device.device_kind for device in devices})), devices[0].platform
    if backend == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name = f"CPU ({cpu_model()}, {cores} cores)"
    elif backend.lower() not in name.lower():
        name = f"{name} ({backend})"
    processes = counted(len({device.process_index for device in devices}), "process", "processes")
    return f"{len(devices)} x {name}, {processes}, jax {jax.__version__}"


def cpu_model() -> str:
    """The processor's name, as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: *(.*)", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def device_memory(devices: Sequence[Any] | None = None) -> DeviceMemory | None:
    """Memory of the fullest local device; None where the backend does not say (CPU)."""
    import jax

    reports = [device.memory_stats() for device in (jax.local_devices() if devices is None else devices)]
    fullest = max((report for report in reports if report), key=lambda r: r["bytes_in_use"], default=None)
    if fullest is None or "bytes_limit" not in fullest:
        return None
    return DeviceMemory(fullest["bytes_in_use"], fullest["bytes_limit"])


def memory_limit() -> int | None:
    """Bytes that a local device may use; CPU devices share the machine's. None where the backend does not say."""
    import jax

    if (reported := device_memory()) is not None:
        return reported.limit
    if jax.default_backend() != "cpu":
        return None
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if CGROUP.exists() and (limit := CGROUP.read_text().strip()).isdecimal():
        limits.append(int(limit))
    return min(limits) // jax.local_device_count()


def peak_flops(device_kind: str, dtype: str = "bfloat16") -> float | None:
    """A device's peak for matrix products with operands of `dtype`, in FLOP/s; None if not known."""
    for kind, half, single in PEAK_FLOPS:
        if re.search(rf"\b({kind})\b", device_kind, re.IGNORECASE):
            return single if dtype == "float32" else half
    return None


@functools.cache
def measured_matmul_flops(dtype: str = "float32", size: int | None = None, seconds: float = 0.2) -> float:
    """The rate of a large square matrix product on one device, accumulated in float32, in FLOP/s.

    The peak to compare with where no vendor states one: the fastest of the products in about `seconds`, after
    a compilation. A process measures it once. `size` is that of the matrices; None: 1024 on a CPU, 8192 elsewhere.
    """
    import jax
    import jax.numpy as jnp

    size = size or (1024 if jax.default_backend() == "cpu" else 8192)
    operand = jnp.ones((size, size), dtype)
    product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    product(operand, operand).block_until_ready()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(operand, operand).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def find_peak(dtype: str = "bfloat16", devices: Sequence[Any] | None = None) -> Peak:
    """The peak rate of one device: the vendor's figure, or a measured one where there is none.

    Args:
      dtype: of the operands of matrix products, "bfloat16", "float16" or "float32".
      devices: those that are used; all there are if None.
    """
    import jax

    devices = jax.devices() if devices is None else devices
    first, kind = devices[0], devices[0].device_kind
    stated = peak_flops(kind, dtype)
    if stated is not None:
        return Peak(stated, f"{kind}, {dtype}, vendor's dense peak")
    rate = measured_matmul_flops(dtype)
    if first.platform == "cpu":  # virtual devices share the cores of their process
        rate /= sum(device.process_index == first.process_index for device in devices)
    return Peak(rate, f"measured here with a large matrix product in {dtype}")


def mfu(flops_per_example: float, examples_per_second: float, device_count: int, peak: float) -> float:
    """Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B), a share of 1; see MFU_FORMULA.

    Args:
      flops_per_example: of forward and backward pass, without recomputation to save memory.
      examples_per_second: over all devices.
      peak: FLOP/s of one device, see `find_peak`.
    """
    return flops_per_example * examples_per_second / (device_count * peak)
