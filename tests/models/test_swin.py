"""Swin's windows: who sees whom, for feature maps of any size."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_params

from jaxformer.models import fused
from jaxformer.models.fused import Kernel
from jaxformer.models.short_attention import short_attention, short_problems
from jaxformer.models.swin import Swin, SwinBlock, joined_in_fours
from jaxformer.parallel.mesh import make_mesh


def block(shifted):
    fields = {"mlp_ratio": 2, "activation": "gelu_erf", "norm_epsilon": 1e-5, "merges": False}
    return SwinBlock(2, 4, "shifted" if shifted else "block", **fields)


def seen(model, shape):
    """bool [H, W, H, W]: whether what comes out at the first place depends on what goes in at the second."""
    x = np.random.default_rng(0).normal(size=(1, *shape, 4)).astype(np.float32)
    params = random_params(model, x, True)
    places = jnp.eye(shape[0] * shape[1]).reshape(-1, *shape)

    def gradient(place):
        def at(x):
            return jnp.sum(model.apply({"params": params}, x, True)[0].sum(-1) * place)

        return jnp.abs(jax.grad(at)(x)[0]).sum(-1)

    return np.asarray(jax.jit(jax.vmap(gradient))(places)).reshape(*shape, *shape) > 0


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (3, 9), (4, 4)])
def test_places_see_their_own_window_and_nothing_else(shape, shifted):
    """Windows are of 4x4; shifted ones begin at -2. A side of at most 4 places is one window."""
    rows, columns = (np.zeros(n) if n <= 4 else (np.arange(n) + (2 if shifted else 0)) // 4 for n in shape)
    same_rows = rows[:, None, None, None] == rows[None, None, :, None]
    expected = same_rows & (columns[None, :, None, None] == columns[None, None, None, :])
    np.testing.assert_array_equal(seen(block(shifted), shape), np.broadcast_to(expected, (*shape, *shape)))


def test_merging_joins_columns_first_and_pads_odd_sides():
    x = np.arange(2 * 3 * 3).reshape(2, 3, 3, 1).astype(np.float32)
    joined = np.asarray(joined_in_fours(x))
    assert joined.shape == (2, 2, 2, 4)
    np.testing.assert_array_equal(joined[0, 0, 0], [0, 3, 1, 4])
    np.testing.assert_array_equal(joined[0, 1, 1], [8, 0, 0, 0])


def test_parameters_are_the_same_for_images_of_any_size():
    model = Swin(stage_sizes=(2, 2), num_heads=(1, 2), width=8, window=4, num_classes=5)
    shapes = [
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))
        for size in ((32, 32), (52, 20))
    ]
    assert shapes[0] == shapes[1]


def test_the_tpus_kernel_takes_shifted_windows_too(monkeypatch):
    """Interpreted, against XLA's form: two windows of 36 places along each side of a map, the last ones padded."""
    model, x = SwinBlock(2, 6, "shifted", mlp_ratio=2, activation="gelu_erf", merges=False), (2, 11, 12, 8)
    x = np.random.default_rng(0).normal(size=x).astype(np.float32)
    params = random_params(model, x, True)

    def loss(params, x):
        return jnp.sum(jnp.sin(model.apply({"params": params}, x, True)[0]))

    expected = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)
    monkeypatch.setitem(
        fused.KERNELS, "cpu", (Kernel("short", short_problems, partial(short_attention, interpret=True)),)
    )
    mesh = make_mesh({"data": 1}, jax.devices()[:1])  # says that there is one device
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), fused.choices() as taken:
        found = jax.jit(jax.grad(lambda *given: loss(*given), argnums=(0, 1)))(params, x)
    assert taken == {"short"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
