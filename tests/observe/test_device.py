"""The device line, peaks and MFU."""

import jax
import pytest

from jaxformer.observe import device
from jaxformer.observe.device import device_line, find_peak, mfu, peak_flops


@pytest.mark.parametrize(
    ("kind", "half", "single"),
    [  # as `device_kind` is spelled
        ("NVIDIA H100 80GB HBM3", 989.5e12, 494.5e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA H200", 989.5e12, 494.5e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, 156e12),
        ("NVIDIA A10G", 70e12, 35e12),
        ("NVIDIA A10", 125e12, 62.5e12),
        ("NVIDIA L4", 121e12, 60e12),
        ("Tesla V100-SXM2-16GB", 125e12, 15.7e12),
        ("Tesla T4", 65e12, 8.1e12),
        ("TPU v3", 61.5e12, 61.5e12),
        ("TPU v4", 275e12, 275e12),
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5", 459e12, 459e12),
        ("TPU v5p", 459e12, 459e12),
        ("TPU v6 lite", 918e12, 918e12),
    ],
)
def test_peaks_by_device_kind(kind, half, single):
    assert peak_flops(kind, "bfloat16") == half
    assert peak_flops(kind, "float32") == single


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40", "NVIDIA GeForce GTX 1080", "TPU v55"])
def test_unknown_devices_have_no_stated_peak(kind):
    assert peak_flops(kind) is None


def test_mfu_is_one_when_the_peak_is_reached():
    assert mfu(flops_per_example=1e9, examples_per_second=2e3, device_count=4, peak=5e11) == 1.0


def test_the_cpus_virtual_devices_share_its_measured_peak(monkeypatch):
    monkeypatch.setattr(device, "measured_matmul_flops", lambda dtype: 80e9)
    assert find_peak("float32").flops == 80e9 / jax.device_count()
    assert "measured" in find_peak("float32").source


def test_the_measured_peak_is_plausible_and_not_exceeded_by_a_slower_product():
    import time

    peak = device.measured_matmul_flops(size=512, seconds=0.1)
    operand = jax.numpy.ones((512, 512))
    product = jax.jit(jax.numpy.dot)
    product(operand, operand).block_until_ready()
    start = time.perf_counter()
    product(operand, operand).block_until_ready()
    assert 0.2 * 2 * 512**3 / (time.perf_counter() - start) <= peak
    assert 1e8 < peak < 1e15


def test_the_device_line_names_count_platform_and_version():
    line = device_line()
    assert line.startswith(f"{jax.device_count()} x CPU (")
    assert line.endswith(f"1 process, jax {jax.__version__}")


def test_memory_of_the_fullest_device():
    class Device:
        def __init__(self, stats):
            self.stats = stats

        def memory_stats(self):
            return self.stats

    full = {"bytes_in_use": 7, "bytes_limit": 10}
    idle = {"bytes_in_use": 1, "bytes_limit": 10}
    assert device.device_memory([Device(idle), Device(full)]) == device.DeviceMemory(7, 10)
    assert device.device_memory([Device(None)]) is None
    assert device.device_memory() is None  # the CPU does not say
