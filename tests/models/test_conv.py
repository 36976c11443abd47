"""Convolutions against PyTorch's, with their gradients; depthwise ones, padding, standardised weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer.models.conv import Conv, depthwise_by_shifts

torch = pytest.importorskip("torch")
CHANNELS = 6


def gradients_of(module, kernel, bias, x, weights):
    """The result, and the gradients of kernel and x under a random loss; `kernel` is laid out as ours."""
    params = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}

    def loss(params, x):
        y = module.apply({"params": params}, x)
        return jnp.sum(y.astype(jnp.float32) * weights), y

    (of_params, of_x), y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    return y, of_params, of_x


def to_torch(x, axes):
    return torch.tensor(np.transpose(x, axes).copy(), requires_grad=True)


@pytest.mark.parametrize(
    ("fields", "groups"),
    [
        ({"kernel_size": 3}, 1),
        ({"kernel_size": 3, "stride": 2, "use_bias": True}, 1),
        ({"kernel_size": 1, "stride": 2, "use_bias": True}, 1),
        ({"kernel_size": (5, 1)}, 1),
        ({"kernel_size": 3, "groups": 2}, 2),
        ({"kernel_size": 3, "depthwise": True, "use_bias": True}, CHANNELS),
        ({"kernel_size": 3, "stride": 2, "depthwise": True}, CHANNELS),
        ({"kernel_size": 7, "depthwise": True}, CHANNELS),
        ({"kernel_size": 1, "depthwise": True}, CHANNELS),
    ],
)
def test_convolution_and_gradients(fields, groups):
    generator = np.random.default_rng(0)
    module = Conv(CHANNELS, **fields)
    x = generator.normal(size=(2, 7, 8, CHANNELS)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    kernel = generator.normal(size=shapes["kernel"].shape).astype(np.float32)
    bias = generator.normal(size=CHANNELS).astype(np.float32) if fields.get("use_bias") else None
    their_x, their_kernel = to_torch(x, (0, 3, 1, 2)), to_torch(kernel, (3, 2, 0, 1))
    pads = tuple(n // 2 for n in kernel.shape[:2])
    expected = torch.nn.functional.conv2d(
        their_x,
        their_kernel,
        None if bias is None else torch.tensor(bias),
        fields.get("stride", 1),
        pads,
        groups=groups,
    )
    expected = expected.permute(0, 2, 3, 1)
    weights = generator.normal(size=expected.shape).astype(np.float32)
    torch.sum(expected * torch.tensor(weights)).backward()

    y, of_params, of_x = gradients_of(module, kernel, bias, x, weights)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(y, expected.detach().numpy(), **close)
    np.testing.assert_allclose(of_x, their_x.grad.permute(0, 2, 3, 1).numpy(), **close)
    np.testing.assert_allclose(of_params["kernel"], their_kernel.grad.permute(2, 3, 1, 0).numpy(), **close)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel_size", "stride"), [(8, 3, 2), (7, 3, 2), (8, 7, 2), (8, 2, 2), (6, 3, 1)]
)
def test_same_padding_is_more_at_the_end(depthwise, size, kernel_size, stride):
    """As TensorFlow's documentation has it: ceil(n / stride) results, an odd pixel of padding behind."""
    generator = np.random.default_rng(0)
    module = Conv(4, kernel_size, stride, depthwise=depthwise, padding="same")
    x = generator.normal(size=(1, size, size, 4)).astype(np.float32)
    shape = (kernel_size, kernel_size, 1 if depthwise else 4, 4)
    kernel = generator.normal(size=shape).astype(np.float32)
    results = -(-size // stride)
    total = max((results - 1) * stride + kernel_size - size, 0)
    before, after = total // 2, total - total // 2
    padded = torch.nn.functional.pad(to_torch(x, (0, 3, 1, 2)), (before, after, before, after))
    expected = torch.nn.functional.conv2d(
        padded, to_torch(kernel, (3, 2, 0, 1)), stride=stride, groups=4 if depthwise else 1
    )
    ours = jax.jit(module.apply)({"params": {"kernel": kernel}}, x)
    assert ours.shape == (1, results, results, 4)
    np.testing.assert_allclose(ours, expected.permute(0, 2, 3, 1).detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "denominator"),
    [
        ("bit", lambda w: np.sqrt(w.var((0, 1, 2), keepdims=True) + 1e-10)),
        ("timm", lambda w: np.sqrt(w.var((0, 1, 2), keepdims=True) + 1e-8)),
        ("vit_jax", lambda w: w.std((0, 1, 2), keepdims=True) + 1e-5),
    ],
)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_standardised_weights(form, denominator, kernel_size):
    """Weights as small as the epsilons, so that the three forms differ."""
    generator = np.random.default_rng(0)
    kernel = 3e-5 * generator.normal(0.5, 1.0, size=(kernel_size, kernel_size, 4, 5))
    x = generator.normal(size=(2, 4, 4, 4)).astype(np.float32)
    standardised = (kernel - kernel.mean((0, 1, 2), keepdims=True)) / denominator(kernel)
    params = {"params": {"kernel": standardised.astype(np.float32)}}
    expected = jax.jit(Conv(5, kernel_size).apply)(params, x)
    params = {"params": {"kernel": kernel.astype(np.float32)}}
    ours = jax.jit(Conv(5, kernel_size, standardize=form).apply)(params, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_depthwise_convolution_of_bfloat16_adds_up_in_float32():
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, 9, 9, 4)), jnp.bfloat16)
    kernel = jnp.asarray(generator.normal(size=(7, 7, 4)), jnp.bfloat16)
    ours = jax.jit(depthwise_by_shifts, static_argnums=2)(x, kernel, 1)
    exact = jax.jit(depthwise_by_shifts, static_argnums=2)(
        x.astype(jnp.float32), kernel.astype(jnp.float32), 1
    )
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, exact.astype(jnp.bfloat16))
