"""Products and activations whose backward passes or formulas are our own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.errors import NameInUseError, ScopeParamShapeError

from jaxformer.models import dense
from jaxformer.models.base import Layer
from jaxformer.models.dense import Dense, product
from jaxformer.models.mlp import ACTIVATIONS


def arrays(dtype=np.float32):
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.normal(size=s), dtype) for s in ((2, 3, 8), (8, 5), (5,), (2, 3, 5))]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_gradients_of_a_product_are_autodiffs(with_bias, platform, monkeypatch):
    monkeypatch.setattr(dense, "platform", lambda: platform)
    x, kernel, bias, weight = arrays()

    def ours(x, kernel, bias):
        return jnp.sum(jnp.sin(product(x, kernel, bias if with_bias else None, jnp.float32)) * weight)

    def plain(x, kernel, bias):
        y = jnp.einsum("btd,df->btf", x, kernel)
        return jnp.sum(jnp.sin(y + bias[None, None, :] if with_bias else y) * weight)

    found, expected = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(x, kernel, bias) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_product_in_bfloat16_has_gradients_that_were_added_up_in_float32(platform, monkeypatch):
    monkeypatch.setattr(dense, "platform", lambda: platform)
    rows, ones = 4096, jnp.ones((1, 1))
    gradient = jax.grad(
        lambda k, b: jnp.sum(product(jnp.ones((rows, 1)), k, b, jnp.bfloat16)), argnums=(0, 1)
    )
    of_kernel, of_bias = jax.jit(gradient)(ones, jnp.ones(1))
    # Added up one by one in bfloat16, ones stop growing at 256.
    assert of_kernel.dtype == of_bias.dtype == jnp.float32
    assert of_kernel.item() == of_bias.item() == rows


def test_parameters_that_are_there_have_the_shapes_and_names_of_the_layer():
    """What linen says of any module, although its own look at them is left out."""
    with pytest.raises(ScopeParamShapeError, match=r"kernel.*\(4, 3\).*\(5, 3\)"):
        Dense(3).apply({"params": {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(3)}}, jnp.ones((2, 1, 4)))

    class Twice(Layer):
        @nn.compact
        def __call__(self):
            return [self.param("kernel", nn.initializers.ones, (2,)) for _ in range(2)]

    with pytest.raises(NameInUseError):
        Twice().apply({"params": {"kernel": jnp.ones(2)}})

    class Own(Layer):
        """Its initializer takes something else than a shape."""

        @nn.compact
        def __call__(self):
            return self.param("kernel", lambda key, count: jnp.ones(count), 2)

    np.testing.assert_array_equal(Own().apply({"params": {"kernel": jnp.arange(2.0)}}), [0, 1])
    with pytest.raises(ScopeParamShapeError):
        Own().apply({"params": {"kernel": jnp.ones(3)}})


def test_a_product_is_in_the_dtype_that_was_asked_for():
    x, kernel, bias, _ = arrays()
    y = product(x, kernel, bias, jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    expected = np.einsum("btd,df->btf", x, kernel) + np.asarray(bias)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("gelu_erf", lambda torch, x: torch.nn.functional.gelu(x)),
        ("gelu_tanh", lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh")),
        ("relu", lambda torch, x: torch.relu(x)),
        ("silu", lambda torch, x: torch.nn.functional.silu(x)),
    ],
)
def test_activations_and_their_slopes_are_pytorchs(name, theirs):
    torch = pytest.importorskip("torch")
    points = np.linspace(-9, 9, 1001, dtype=np.float32)
    x = torch.tensor(points, requires_grad=True)
    expected = theirs(torch, x)
    expected.sum().backward()
    activation = ACTIVATIONS[name]
    np.testing.assert_allclose(activation(points), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    slopes = jax.vmap(jax.grad(activation))(points)
    np.testing.assert_allclose(slopes[points != 0], x.grad.numpy()[points != 0], rtol=1e-4, atol=1e-5)
    assert activation(jnp.asarray(points, jnp.bfloat16)).dtype == jnp.bfloat16
