"""The whole suite runs on 8 virtual CPU devices, with strict ranks and a compilation cache."""

import gc
import os
import signal
import sys
from importlib.metadata import version

# Tests compile much and compute little: the compiler's costly passes are off, and its older emitters, in one thread,
# need half the time (a detector's train step: 9.9 s of processor time instead of 21.4).
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
FLAGS += " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):  # later ones end a process for a flag that they do not know
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

# PyPI's torchvision does not import beside a CPU build of PyTorch, and transformers would:
# helpers/timm_reference.py knows how.
sys.modules.setdefault("torchvision", None)

import jax
import pytest

# Tracing makes millions of objects, which Python looks at again and again for cycles; so it does that less often.
gc.freeze()
gc.set_threshold(50_000, 20, 20)
jax.config.update("jax_numpy_rank_promotion", "raise")
CACHE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".jax_cache")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(autouse=True, scope="session")
def usual_signals():
    """Without what nohup and shells' background jobs leave: signals that are ignored, here and in what tests start."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    found = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in found.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def key():
    """A random key."""
    return jax.random.key(0)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A TFDS folder that holds nothing but the digits, once they are asked for."""
    return tmp_path_factory.mktemp("tensorflow_datasets")
