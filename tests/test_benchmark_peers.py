"""The peers that benchmarks bring themselves are the models that ours are: their parameters and results are as many."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.documents import ROOT

from jaxformer.config import schema
from jaxformer.models import MODELS
from jaxformer.models.presets import preset

TOKENS = np.zeros((2, 32), np.int32)
IMAGES = np.zeros((2, 32, 32, 3), np.float32)
SMALL = {"width": 48, "depth": 3, "num_heads": 4}


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a file of benchmarks/ by name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def built(name, **fields):
    return schema.build(MODELS, preset(name, **SMALL, **fields), "model")


def count(model, example):
    """How many parameters, and the shape and dtype of the result."""
    result, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), example)
    logits = getattr(result, "logits", result)
    return sum(x.size for x in jax.tree.leaves(variables["params"])), logits.shape


GPT2 = {"vocab_size": 96, "context_length": 32}
VIT = {"mlp_dim": 192, "image_size": 32, "num_classes": 10}


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_the_tutorials_gpt_2_is_ours(benchmark, scan):
    theirs = benchmark("linen_peers").GPT(96, 32, 48, 3, 4, scan, jnp.float32)
    assert count(theirs, TOKENS) == count(built("gpt2", **GPT2), TOKENS)


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_the_tutorials_vit_is_ours(benchmark, scan):
    theirs = benchmark("linen_peers").ViT(16, 48, 3, 4, 192, 10, scan, jnp.float32)
    assert count(theirs, IMAGES) == count(built("vit-b16", **VIT), IMAGES)


def test_the_plain_pytorch_gpt_2_is_ours(benchmark):
    torch = pytest.importorskip("torch")
    theirs = benchmark("torch_gpt").GPT(96, 32, 48, 3, 4)
    assert sum(x.numel() for x in theirs.parameters()) == count(built("gpt2", **GPT2), TOKENS)[0]
    with torch.no_grad():
        loss = theirs(torch.from_numpy(TOKENS).long(), torch.ones(TOKENS.shape, dtype=torch.long))
    assert loss.item() == pytest.approx(np.log(96), rel=0.1)  # fresh weights know nothing


def test_kernels_count_as_cycles_of_their_products(benchmark):
    found = {"temporaries_bytes": 2**21, "memory_bytes": 2**31, "sent_bytes": 2**20, "collectives": 3}
    found |= {"estimated_cycles": 3_000_000, "compile_seconds": 7.2}
    row, cycles = benchmark("tpu_compiled").row, {}
    with_kernels = {"kernels": 2, "kernel_flops": 4e10}  # at 40% of 100,000 FLOPs a cycle: a million cycles
    first = row("jaxformer", found | with_kernels, cycles, 1e5)
    assert first == "| jaxformer | 4.0 | 1.0 (2) | 1.00 | 2 | 2.0 | 1 (3) | 7 |"
    without = row("tutorial", found | {"kernels": 0, "kernel_flops": 0}, cycles, 1e5)
    assert without == "| tutorial | 3.0 | none | 0.75 | 2 | 2.0 | 1 (3) | 7 |"
