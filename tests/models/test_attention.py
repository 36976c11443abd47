"""Attention against PyTorch's, and its maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_params

from jaxformer.models.attention import Attention, attention, attention_weights
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
    ours = jax.jit(attention)(query, key, value, bias=bias)
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
        return jnp.sum(attention(query, key, value, bias=bias, mask=mask) * weight)

    for ours, their in zip(jax.jit(jax.grad(loss, argnums=range(len(arrays))))(*arrays), theirs):
        np.testing.assert_allclose(ours, their.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_float32_whatever_comes_in():
    query, key = (jnp.asarray(x, jnp.bfloat16) for x in heads((1, 2, 4, 8), (1, 2, 4, 8)))
    weights = jax.jit(attention_weights)(query, key)
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
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, x), expected, rtol=1e-4, atol=1e-4)


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
