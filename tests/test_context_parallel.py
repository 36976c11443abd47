"""Texts that a mesh splits along their tokens: attention, the train step, and what devices exchange."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.stepping import assert_close, gradient_of, take_steps

from jaxformer.analysis.hlo import Module
from jaxformer.data.base import NominalBatches
from jaxformer.data.config import DataConfig
from jaxformer.models import fused
from jaxformer.models.attention import attention
from jaxformer.models.bert import BERT
from jaxformer.models.fused import Kernel
from jaxformer.models.gpt import GPT
from jaxformer.models.masks import Mask
from jaxformer.models.resnet import ResNet
from jaxformer.models.short_attention import short_attention, short_problems
from jaxformer.models.splash import splash_attention, splash_problems
from jaxformer.models.vit import ViT
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh, undivided_tokens
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.language import CausalLM, MaskedLM

MESHES = [{"data": 2, "sequence": 4}, {"fsdp": 2, "sequence": 4}, {"sequence": 4, "tensor": 2}]
KERNELS = {
    "splash": Kernel("splash", splash_problems, partial(splash_attention, interpret=True), skips=True),
    "short": Kernel("short", short_problems, partial(short_attention, interpret=True)),
}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def documents(tokens):
    """The segments of two packed texts, int32 [2, T], whose borders are nobody's borders."""
    rows = [np.repeat([1, 2, 0], [n, tokens - n - 5, 5]) for n in (tokens // 3, tokens - 9)]
    return jnp.asarray(np.stack(rows), jnp.int32)


def first(total, *counts):
    """Bool [B, S]: which keys are no padding."""
    return jnp.arange(total)[None] < jnp.asarray(counts)[:, None]


def with_gradients(attend, arrays):
    """The result and the gradients of a function of arrays."""
    result, backward = jax.vjp(attend, *arrays)
    return result, *backward(normal(9, *result.shape))


def check_on_a_mesh(axes, sizes, mask, bias=False):
    """Compares attention of two texts on a mesh with that on one device."""
    heads, kv_heads, queries, keys = sizes
    arrays = [normal(i, 2, *n, 16) for i, n in enumerate([(heads, queries), *[(kv_heads, keys)] * 2])]
    arrays += [normal(3, 1, heads, queries, keys)] * bias

    def attend(query, key, value, bias=None):
        return attention(query, key, value, bias=bias, mask=mask, scale=0.3)

    layout = Layout("jit", make_mesh(axes))
    on_mesh = jax.jit(layout.on_mesh(partial(with_gradients, attend)), out_shardings=layout.replicated)
    found = on_mesh(arrays)
    with pytest.MonkeyPatch.context() as without_kernels:
        without_kernels.setattr(fused, "KERNELS", {})
        expected = with_gradients(attend, arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


VARIANTS = {
    "full": (4, 4, 64, 64, Mask()),
    "causal": (4, 2, 64, 64, Mask(causal=True)),
    "window": (4, 1, 64, 64, Mask(causal=True, window=20)),
    "segments": (4, 2, 64, 64, Mask(causal=True, segments=documents(64))),
    "segments both ways": (4, 4, 64, 64, Mask(segments=documents(64))),
    "padding": (4, 2, 64, 64, Mask(keys=first(64, 64, 9))),
    "cross": (4, 2, 64, 36, Mask(keys=first(36, 36, 30))),
    "cross, keys that do not divide": (4, 2, 64, 35, Mask(keys=first(35, 35, 30))),
    "queries that do not divide": (4, 2, 33, 64, Mask()),
}


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("axes", [MESHES[2], *slow(MESHES[:1], MESHES[1:2])], ids=str)
def test_xlas_form_is_split(axes, name):
    *sizes, mask = VARIANTS[name]
    check_on_a_mesh(axes, sizes, mask)


BOTH_WAYS = {
    "segments": (128, Mask(segments=documents(128))),
    "cross": (36, Mask(keys=first(36, 36, 30))),
    "cross, keys that do not divide": (35, Mask(keys=first(35, 35, 30))),
    "bias": (64, Mask()),
}


@pytest.mark.parametrize("name", BOTH_WAYS)
@pytest.mark.parametrize("axes", [MESHES[2], *slow(MESHES[1:2])], ids=str)
def test_the_short_kernel_takes_parts_of_texts_that_see_both_ways(monkeypatch, axes, name):
    monkeypatch.setitem(fused.KERNELS, "cpu", (KERNELS["short"],))
    keys, mask = BOTH_WAYS[name]
    with fused.choices() as taken:
        check_on_a_mesh(axes, (4, 4, 128, keys), mask, bias=name == "bias")
    assert taken == {"short"}


def test_backwards_keys_and_values_are_gathered_again_and_not_kept():
    query, key = (jax.ShapeDtypeStruct((2, 4, 64, 16), jnp.float32) for _ in range(2))
    layout = Layout("jit", make_mesh(MESHES[0]))

    def attend(query, key, value):
        return jnp.sum(attention(query, key, value, mask=Mask(causal=True), scale=0.3))

    program = jax.make_jaxpr(layout.on_mesh(jax.grad(attend, argnums=(0, 1, 2))))(query, key, key)
    assert str(program).count("all_gather[") == 2 * 2


LONG = {
    "causal": (Mask(causal=True), 1024),
    "causal, in as many parts as devices": (Mask(causal=True), 512),
    "window": (Mask(causal=True, window=200), 512),
    "segments": (Mask(causal=True, segments=documents(1024)), 1024),
}


@pytest.mark.parametrize(
    "name", ["segments", "window", *slow(["causal"], ["causal, in as many parts as devices"])]
)
def test_splash_takes_parts_of_causal_texts(monkeypatch, name):
    (mask, tokens), swaps = LONG[name], name in ("causal", "segments")
    monkeypatch.setitem(fused.KERNELS, "cpu", (replace(KERNELS["splash"], skips=swaps),))
    with fused.choices() as taken:
        check_on_a_mesh(MESHES[2], (2, 2, tokens, tokens), mask)
    assert taken == {"splash"}


TOKENS, VOCAB = 16, 32
SIZES = {"vocab_size": VOCAB, "width": 16, "num_heads": 4, "depth": 2, "dropout": 0.0}
MODELS = {
    "gpt": (GPT(**SIZES, context_length=TOKENS, num_kv_heads=2, positions="rotary"), CausalLM(z_loss=0.01)),
    "gpt, scanned": (GPT(**SIZES, context_length=TOKENS, scan=True, remat="full"), CausalLM()),
    "gpt, alibi": (GPT(**SIZES, context_length=TOKENS, positions="alibi"), CausalLM()),
    "bert": (BERT(**SIZES, max_positions=TOKENS, head="mlm"), MaskedLM(label_smoothing=0.1)),
}


@cache
def case(name):
    """A model with its task, a batch of eight rows and variables: packed documents, or padded texts."""
    (model, task), rng = MODELS[name], np.random.default_rng(0)
    tokens = rng.integers(3, VOCAB, (8, TOKENS)).astype(np.int32)
    ends = rng.integers(2, TOKENS + 1, (8, 1))
    places = np.broadcast_to(np.arange(TOKENS), tokens.shape)
    targets = np.where((places < ends) & (rng.random(tokens.shape) < 0.7), tokens, -1)
    batch = {"tokens": tokens, "targets": targets, "example_mask": rng.random(8) < 0.8}
    if name == "bert":
        batch |= {"token_mask": places < ends}
    else:
        borders = rng.integers(1, TOKENS, (8, 1))
        segments = np.where(places < ends, 1 + (places >= borders), 0).astype(np.int32)
        starts = np.where(places >= borders, borders, 0)
        batch |= {"segment_ids": segments, "positions": (places - starts).astype(np.int32)}
    variables = init_variables(model, task.inputs({k: x[:1] for k, x in batch.items()}), jax.random.key(0))
    return model, task, batch, variables


@cache
def on_one_device(name):
    model, task, batch, variables = case(name)
    before, after, metrics = take_steps(batch, model=model, task=task, variables=variables, devices=1)
    return gradient_of(before, after), metrics


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("gpt", MESHES[0]),
        *slow(("gpt", MESHES[2]), ("gpt, scanned", MESHES[1]), ("gpt, alibi", MESHES[0])),
        *slow(("bert", MESHES[1]), ("bert", MESHES[2])),
    ],
    ids=str,
)
def test_a_step_is_that_of_one_device(name, axes):
    model, task, batch, variables = case(name)
    before, after, metrics = take_steps(batch, model=model, task=task, variables=variables, mesh=axes)
    gradient, expected = on_one_device(name)
    assert_close(gradient_of(before, after), gradient, 1e-5)
    for each, value in expected.items():
        np.testing.assert_allclose(metrics[each], value, rtol=1e-5, err_msg=each)


def test_devices_exchange_keys_and_values_and_no_activations():
    """Of texts that are larger than the parameters, nothing but keys and values [B, T, Hkv Dh] is gathered."""
    model = GPT(**SIZES | {"width": 64}, context_length=512, num_kv_heads=1, positions="rotary")
    task, layout = CausalLM(), Layout("jit", make_mesh({"data": 2, "sequence": 4}))
    names = dict.fromkeys(("tokens", "targets", "segment_ids", "positions"), ((512,), np.dtype(np.int32)))
    shapes = layout.batch_shapes(names | {"example_mask": ((), np.dtype(bool))}, 4)
    inputs = task.inputs({name: np.zeros((1, *x.shape[1:]), x.dtype) for name, x in shapes.items()})
    optimizer = optax.with_extra_args_support(optax.sgd(1.0))
    state = layout.abstract(
        jax.eval_shape(lambda: init_state(init_variables(model, inputs, jax.random.key(0)), optimizer))
    )
    step = layout.train_step(make_train_step(model, task, optimizer, seed=0), state)
    module = Module.read(step.lower(state, shapes).compile().as_text())
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    of_keys = 4 * 2 * 512 * 16  # of one device's rows, in float32
    found = module.collectives(layout.mesh.shape)
    gathered = [one.size for one in found if one.kind == "all-gather"]
    once = [of_keys] * 2 * SIZES["depth"]
    # Backwards again: XLA of jax 0.10 merges both on CPUs, that of 0.12 does not.
    assert gathered in (once, 2 * once)
    assert [one.size for one in found if one.kind == "reduce-scatter"] == once
    assert max(one.size for one in found if one.kind == "all-reduce") <= parameters * 1.01
    assert {one.kind for one in found} == {"all-gather", "reduce-scatter", "all-reduce"}


def text(length):
    return {"tokens": ((length,), np.dtype(np.int32))}


@pytest.mark.parametrize(
    ("model", "spec", "buckets", "lines"),
    [
        (GPT(**SIZES), text(64), (), []),
        (GPT(**SIZES), text(62), (), ["does not divide data.examples.length, 62: use one that does, such as 2"]),
        (BERT(**SIZES), text(64), (30, 32), ["does not divide data.buckets, 30: use one that does, such as 2"]),
        (BERT(**SIZES), text(64), (27, 32), ["does not divide data.buckets, 27: use 1, or other lengths"]),
        (ViT(image_size=32, patch_size=4, pool="average"), {}, (), []),
        (ViT(image_size=32, patch_size=4), {}, (), ["does not divide the number of an image's tokens, 65: use"]),
        (ResNet(stage_sizes=(1,)), {}, (), ["ResNet has no tokens to split; use another axis"]),
    ],
)  # fmt: skip
def test_what_does_not_split_is_refused_before_anything_runs(model, spec, buckets, lines):
    batches = NominalBatches(8, 8, spec)
    data = DataConfig(name="x", batch_size=8, buckets=buckets)
    found = list(undivided_tokens(model, batches, data, {"data": 2, "sequence": 4}))
    assert len(found) == len(lines)
    assert all(line in each and "parallel.mesh.sequence=4" in each for line, each in zip(lines, found))
    assert list(undivided_tokens(model, batches, data, {"data": 8, "sequence": 1})) == []
