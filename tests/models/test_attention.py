"""Attention against PyTorch's, and its maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_params

from jaxformer.models import attention as module_of_attention
from jaxformer.models import cudnn
from jaxformer.models.attention import Attention, attention, attention_weights
from jaxformer.models.gpt import GPT
from jaxformer.models.masks import Mask
from jaxformer.models.vit import ViT


def heads(*shapes):
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_pytorchs(biased):
    torch = pytest.importorskip("torch")
    query, key, value, bias = heads((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), (1, 3, 5, 7))
    bias[..., 2] = -np.inf  # a position that is left out
    bias = bias if biased else None
    expected = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.tensor, (query, key, value)), attn_mask=torch.tensor(bias) if biased else None
    )
    ours = jax.jit(partial(attention, scale=8**-0.5))(query, key, value, bias=bias)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias_shape", [None, (1, 3, 5, 7), (3, 1, 7), (2, 1, 5, 1)])
def test_the_gradients_are_pytorchs(bias_shape):
    torch = pytest.importorskip("torch")
    *arrays, weight = heads((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), (2, 3, 5, 8))
    arrays += heads(bias_shape) if bias_shape else []
    mask = np.ones((2, 1, 5, 7), bool)
    mask[1, :, :, 4:] = False
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    added = torch.zeros(2, 3, 5, 7).masked_fill(~torch.tensor(mask), -torch.inf)
    out = torch.nn.functional.scaled_dot_product_attention(
        *theirs[:3], attn_mask=added + (theirs[3] if bias_shape else 0)
    )
    (out * torch.tensor(weight)).sum().backward()

    def loss(query, key, value, bias=None):
        return jnp.sum(
            attention(query, key, value, bias=bias, mask=Mask(allowed=mask), scale=8**-0.5) * weight
        )

    for ours, their in zip(jax.jit(jax.grad(loss, argnums=range(len(arrays))))(*arrays), theirs):
        np.testing.assert_allclose(ours, their.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_float32_whatever_comes_in():
    query, key = (jnp.asarray(x, jnp.bfloat16) for x in heads((1, 2, 4, 8), (1, 2, 4, 8)))
    weights = jax.jit(partial(attention_weights, scale=8**-0.5))(query, key)
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(weights, axis=-1), 1.0, rtol=1e-5)


def test_qk_norm_normalises_heads_before_the_product():
    (x,) = heads((2, 6, 16))
    module = Attention(num_heads=4, qk_norm=True)
    params = random_params(module, x)
    assert params["query_norm"]["scale"].shape == params["key_norm"]["scale"].shape == (4,)

    def project(name):
        layer = {k: np.asarray(v, np.float64) for k, v in params[name].items()}
        return np.einsum("btd,dhk->bhtk", x, layer["kernel"]) + layer["bias"][:, None]

    def normalise(y, name):
        return y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True) + 1e-6) * np.asarray(params[name]["scale"])

    query, key = normalise(project("query"), "query_norm"), normalise(project("key"), "key_norm")
    weights = np.exp(np.einsum("bhtk,bhsk->bhts", query, key) / np.sqrt(4))
    attended = np.einsum("bhts,bhsk->bhtk", weights / weights.sum(-1, keepdims=True), project("value"))
    expected = np.einsum("bhtk,hkd->btd", attended, params["out"]["kernel"]) + np.asarray(
        params["out"]["bias"]
    )
    np.testing.assert_allclose(
        jax.jit(module.apply)({"params": params}, x)[0], expected, rtol=1e-4, atol=1e-4
    )


DECODER = {"vocab_size": 5, "context_length": 8, "width": 16, "depth": 3, "num_heads": 2, "mlp_dim": 24}
TINY = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 3, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_attention_maps_of_every_layer(scan, remat):
    model = ViT(**TINY, scan=scan, remat=remat)
    (image,) = heads((2, 8, 8, 3))
    assert set(jax.eval_shape(model.init, jax.random.key(0), image)) == {"params"}
    variables = {"params": random_params(model, image)}
    outputs, collections = jax.jit(lambda v, x: model.apply(v, x, mutable=["attention_maps"]))(
        variables, image
    )
    maps = jax.tree.leaves(collections["attention_maps"])
    assert len(maps) == (1 if scan else 3)
    maps = maps[0] if scan else jnp.stack(maps)
    assert maps.shape == (3, 2, 2, 5, 5)  # [layers, B, heads, T, T]
    assert maps.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(maps, axis=-1), 1.0, rtol=1e-5)
    assert float(jnp.max(jnp.abs(maps[0] - maps[2]))) > 1e-4  # layers are not one another's copies
    assert outputs.logits.shape == (2, 5)


def test_no_maps_by_default():
    model = ViT(**TINY)
    (image,) = heads((1, 8, 8, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    _, others = jax.eval_shape(lambda v, x: model.apply(v, x, mutable=["batch_stats"]), shapes, image)
    assert not jax.tree.leaves(others)


def plain(query, key, value, bias, mask, scale):
    """The formula, with keys and values repeated for every query head."""
    repeats = query.shape[1] // key.shape[1]
    key, value = jnp.repeat(key, repeats, axis=1), jnp.repeat(value, repeats, axis=1)
    logits = jnp.einsum("bhtd,bhsd->bhts", query, key) * scale
    logits = jnp.where(jnp.broadcast_to(mask, logits.shape), logits + bias, -jnp.inf)
    return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(logits, axis=-1), value)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("scale", [8**-0.5, 1.0])
def test_the_written_out_backward_pass_is_autodiffs(kv_heads, scale):
    *arrays, weight = heads(
        (2, 4, 5, 8), (2, kv_heads, 6, 8), (2, kv_heads, 6, 8), (1, 4, 5, 6), (2, 4, 5, 8)
    )
    mask = np.tri(5, 6, 1, bool)[None, None] & (np.arange(6) != 3)  # every query sees a key

    def both(function):
        loss = lambda *a: jnp.sum(function(*a) * weight)  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*arrays)

    ours = both(lambda q, k, v, b: attention(q, k, v, bias=b, mask=Mask(allowed=mask), scale=scale))
    theirs = both(lambda q, k, v, b: plain(q, k, v, b, mask, scale))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 1), (True, 3), (False, 3)])
def test_windows_and_groups_are_jaxs(kv_heads, causal, window):
    query, key, value = heads((2, 4, 6, 8), (2, kv_heads, 6, 8), (2, kv_heads, 6, 8))
    expected = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)),
        is_causal=causal,
        local_window_size=None if window is None else (window - 1, 0 if causal else window - 1),
        implementation="xla",
    ).swapaxes(1, 2)
    ours = jax.jit(partial(attention, scale=8**-0.5))(query, key, value, mask=Mask(causal, window))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_shared_key_heads_are_repeated_ones(kv_heads):
    (x,) = heads((2, 5, 16))
    grouped = Attention(4, num_kv_heads=kv_heads)
    params = random_params(grouped, x)
    repeated = dict(params)
    for name in ("key", "value"):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        assert kernel.shape == (16, kv_heads, 4)
        repeats = 4 // kv_heads
        repeated[name] = {"kernel": kernel.repeat(repeats, axis=1), "bias": bias.repeat(repeats, axis=0)}
    ours, kept = jax.jit(grouped.apply)({"params": params}, x, mask=Mask(True))
    theirs, _ = jax.jit(Attention(4).apply)({"params": repeated}, x, mask=Mask(True))
    assert kept.key.shape == (2, kv_heads, 5, 4)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_cross_attention_sees_the_context_alone():
    x, context = heads((2, 3, 16), (2, 5, 8))
    module = Attention(4)
    params = random_params(module, x, context)
    apply = jax.jit(module.apply)
    mask = Mask(keys=np.array([[True] * 5, [True, True, False, False, False]]))
    y, kept = apply({"params": params}, x, context, mask=mask)
    assert y.shape == x.shape
    assert kept.value.shape == (2, 4, 5, 4)
    again, _ = apply({"params": params}, x, None, mask=mask, cache=kept)  # from what was kept
    np.testing.assert_allclose(again, y, rtol=1e-6, atol=1e-6)
    context[1, 2:] += 1.0
    changed, _ = apply({"params": params}, x, context, mask=mask)
    np.testing.assert_allclose(changed, y, rtol=1e-6, atol=1e-6)
    context[0, 4] += 1.0
    assert np.abs(apply({"params": params}, x, context, mask=mask)[0] - y)[0].max() > 1e-2


def test_t5s_scale_starts_with_a_smaller_query():
    """So that logits are as with the usual scale (mesh_tensorflow, `attention.py`)."""
    (x,) = heads((1, 3, 64))
    usual, t5 = Attention(4), Attention(4, scale=1.0)
    one, other = (jax.jit(m.init)(jax.random.key(0), x)["params"] for m in (usual, t5))
    np.testing.assert_allclose(other["query"]["kernel"], one["query"]["kernel"] / 4, rtol=1e-6)
    np.testing.assert_array_equal(other["key"]["kernel"], one["key"]["kernel"])
    same = [jax.jit(m.apply)({"params": p}, x)[0] for m, p in ((usual, one), (t5, other))]
    np.testing.assert_allclose(*same, rtol=1e-4, atol=1e-5)


AMPERE, VOLTA = (8, 0), (7, 0)
BIAS, PADDING = np.zeros((1, 1, 4, 4)), Mask(keys=np.ones((1, 4), bool))
CASES = [
    ("bfloat16", 64, None, Mask(), AMPERE, None),
    ("float16", 128, None, Mask(causal=True, window=2), AMPERE, None),
    ("float32", 64, None, Mask(), AMPERE, "operands float32"),
    ("bfloat16", 256, None, Mask(), AMPERE, "head size 256"),
    ("bfloat16", 60, None, Mask(), AMPERE, "head size 60"),
    ("bfloat16", 64, BIAS, Mask(), AMPERE, "a bias"),
    ("bfloat16", 64, None, PADDING, AMPERE, None),
    ("bfloat16", 64, None, Mask(), VOLTA, "a GPU before Ampere"),
]


@pytest.mark.parametrize(("dtype", "head_dim", "bias", "mask", "gpu", "says"), CASES)
def test_when_cudnn_is_not_taken(monkeypatch, dtype, head_dim, bias, mask, gpu, says):
    monkeypatch.setattr(cudnn, "compute_capability", lambda: gpu)
    array = jax.ShapeDtypeStruct((1, 2, 4, head_dim), dtype)
    assert cudnn.cudnn_problems(array, array, bias, mask) == ([says] if says else [])


def test_cudnn_has_no_gradient_of_a_mask_of_odd_lengths(monkeypatch):
    monkeypatch.setattr(cudnn, "compute_capability", lambda: AMPERE)
    array = jax.ShapeDtypeStruct((1, 2, 5, 64), "bfloat16")
    says = "a mask of padding, segments or a cache with odd lengths, 5 and 5"
    assert cudnn.cudnn_problems(array, array, None, PADDING) == [says]
    assert cudnn.cudnn_problems(array, array, None, Mask(causal=True)) == []


PADDED = np.arange(6)[None] < np.array([[6], [3]])
DOCUMENTS = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 2, 2]])
TOLD = {
    "all": Mask(),
    "causal": Mask(True),
    "window": Mask(True, 3),
    "padding": Mask(keys=PADDED),
    "documents": Mask(True, segments=DOCUMENTS),
}


@pytest.mark.parametrize("mask", list(TOLD.values()), ids=list(TOLD))
def test_what_cudnn_is_told(monkeypatch, mask):
    """The same call under JAX's own implementation gives the same: axes, mask and scale are as it wants them."""
    asked = []

    def anywhere(*args, implementation, **kwargs):
        asked.append(implementation)
        return dot_product_attention(*args, implementation="xla", **kwargs)

    dot_product_attention = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", anywhere)
    query, key, value = heads((2, 4, 6, 8), (2, 2, 6, 8), (2, 2, 6, 8))
    told = cudnn.cudnn_attention(query, key, value, None, mask, 0.3)
    assert asked == ["cudnn"]
    expected = attention(query, key, value, mask=mask, scale=0.3)
    np.testing.assert_allclose(told, expected, rtol=1e-5, atol=1e-5)


def calls_of(monkeypatch, model, *args):
    """Whether the masks that a fused kernel is asked about are structural, while a model is traced."""
    asked = []

    def fused_attention(query, key, value, bias, mask, scale):
        asked.append(mask.is_structural)

    monkeypatch.setattr(module_of_attention, "fused_attention", fused_attention)
    jax.eval_shape(lambda: model.init(jax.random.key(0), *args))
    assert asked
    return asked


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_a_fused_kernel_may_take_a_decoders_mask(monkeypatch, scan):
    tokens = np.zeros((1, 6), np.int32)
    assert all(calls_of(monkeypatch, GPT(**DECODER, window=3, scan=scan), tokens))
    assert not any(calls_of(monkeypatch, GPT(**DECODER, scan=scan), tokens, np.ones((1, 6), bool)))
