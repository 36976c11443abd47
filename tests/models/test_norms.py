"""Normalisation layers against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import images, random_params
from helpers.tiny_models import TINY

from jaxformer.config.schema import build
from jaxformer.models import CONTRACT, MODELS
from jaxformer.models.base import Layer
from jaxformer.models.norms import GroupNorm, LayerNorm, RMSNorm, image_norm

torch = pytest.importorskip("torch")


@pytest.fixture
def arrays():
    """Features [2, 4, 5, 12] with a mean that is not zero, scale [12] and bias [12]."""
    generator = np.random.default_rng(0)
    x = generator.normal(1.5, 2.0, (2, 4, 5, 12)).astype(np.float32)
    return x, generator.normal(size=12).astype(np.float32), generator.normal(size=12).astype(np.float32)


def apply(module, x, **params):
    return jax.jit(module.apply)({"params": params}, x)


def test_layer_norm(arrays):
    x, scale, bias = arrays
    expected = torch.nn.functional.layer_norm(
        *map(torch.tensor, (x,)), (12,), *map(torch.tensor, (scale, bias)), 1e-3
    )
    ours = apply(LayerNorm(1e-3), x, scale=scale, bias=bias)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_rms_norm(arrays):
    x, scale, _ = arrays
    expected = torch.nn.functional.rms_norm(torch.tensor(x), (12,), torch.tensor(scale), 1e-3)
    np.testing.assert_allclose(apply(RMSNorm(1e-3), x, scale=scale), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (4, 4), (8, 6), (32, 12)])
def test_group_norm(arrays, asked, taken):
    """The number of groups is the largest that divides the channels, up to the one that is asked for."""
    x, scale, bias = arrays
    nchw = torch.tensor(x).permute(0, 3, 1, 2)
    expected = torch.nn.functional.group_norm(nchw, taken, torch.tensor(scale), torch.tensor(bias), 1e-5)
    ours = apply(GroupNorm(asked), x, scale=scale, bias=bias)
    np.testing.assert_allclose(ours, expected.permute(0, 2, 3, 1).numpy(), rtol=1e-5, atol=1e-5)


def test_statistics_are_float32_when_the_input_is_bfloat16():
    x = jnp.asarray(100.0 + np.random.default_rng(0).normal(size=(1, 2, 2, 64)), jnp.bfloat16)
    for module in (LayerNorm(dtype=jnp.bfloat16), GroupNorm(4, dtype=jnp.bfloat16)):
        params = {"scale": jnp.ones(64), "bias": jnp.zeros(64)}
        exact = apply(type(module)(**({"groups": 4} if isinstance(module, GroupNorm) else {})), x, **params)
        ours = apply(module, x, **params)
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=1e-2, atol=1e-2)


def test_batch_norm_and_its_running_statistics(arrays):
    """As PyTorch's, but for the running variance: PyTorch averages the unbiased one, n / (n - 1) times ours."""
    x, scale, bias = arrays
    reference = torch.nn.BatchNorm2d(12)  # momentum 0.1 of the new is our 0.9 of the old
    with torch.no_grad():
        reference.weight.copy_(torch.tensor(scale))
        reference.bias.copy_(torch.tensor(bias))
    train = image_norm(Layer(), "batch", 1e-5, deterministic=False)()
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": np.zeros(12, np.float32), "var": np.ones(12, np.float32)},
    }
    nchw = torch.tensor(x).permute(0, 3, 1, 2)
    expected = reference(nchw).detach().permute(0, 2, 3, 1).numpy()
    ours, updates = jax.jit(lambda v, x: train.apply(v, x, mutable=["batch_stats"]))(variables, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], reference.running_mean.numpy(), rtol=1e-5, atol=1e-6)
    n = x.size // 12
    unbiased = 0.9 + (stats["var"] - 0.9) * n / (n - 1)
    np.testing.assert_allclose(unbiased, reference.running_var.numpy(), rtol=1e-5)

    reference.eval()
    with torch.no_grad():
        reference.running_var.copy_(torch.tensor(np.asarray(stats["var"])))
        expected = reference(nchw).permute(0, 2, 3, 1).numpy()
    evaluate = image_norm(Layer(), "batch", 1e-5, deterministic=True)()
    variables = {"params": variables["params"], "batch_stats": stats}
    np.testing.assert_allclose(jax.jit(evaluate.apply)(variables, x), expected, rtol=1e-5, atol=1e-5)

    frozen = image_norm(Layer(), "frozen", 1e-5, deterministic=False)()
    ours, updates = jax.jit(lambda v, x: frozen.apply(v, x, mutable=["batch_stats"]))(variables, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], stats)


def test_frozen_norms_of_an_efficientnet_train_as_they_evaluate():
    fields = {"name": "efficientnet", **TINY["efficientnet"], "num_classes": 3, "norm": "frozen"}
    model, x = build(MODELS, fields, "model", CONTRACT), images()
    variables = {"params": random_params(model, x)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["batch_stats"]
    variables["batch_stats"] = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.7, np.float32), shapes)
    train = jax.jit(lambda v: model.apply(v, x, deterministic=False, mutable=["batch_stats"]))
    outputs, updates = train(variables)
    np.testing.assert_allclose(outputs.logits, jax.jit(model.apply)(variables, x).logits, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_batch_norm_on_8_devices_equals_1_on_the_whole_batch(mode):
    """Result, gradient and running statistics, of shares of the batch whose means lie apart."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8, 2, 3, 12)) + np.arange(8).reshape(8, 1, 1, 1)
    x, weights = x.astype(np.float32), generator.normal(size=x.shape).astype(np.float32)
    variables = {
        "params": {"scale": np.full(12, 2, np.float32), "bias": np.ones(12, np.float32)},
        "batch_stats": {"mean": np.zeros(12, np.float32), "var": np.ones(12, np.float32)},
    }

    def step(x, weights, axis):
        norm = image_norm(Layer(axis_name=axis), "batch", 1e-5, deterministic=False)()

        def loss(x):
            y, updates = norm.apply(variables, x, mutable=["batch_stats"])
            return jnp.sum(y * weights), (y, updates["batch_stats"])

        return jax.grad(loss, has_aux=True)(x)

    expected = jax.jit(lambda x, w: step(x, w, None))(x, weights)
    if mode == "jit":
        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        found = jax.jit(lambda x, w: step(x, w, None))(*jax.device_put((x, weights), split))
    else:
        of_x, (y, stats) = jax.pmap(
            lambda x, w: step(x, w, "batch"), axis_name="batch", out_axes=(0, (0, None))
        )(x[:, None], weights[:, None])
        found = of_x[:, 0], (y[:, 0], stats)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
