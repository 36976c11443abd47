"""Interpolation by matrices is PyTorch's, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer.models.resampling import resized_maps

SIZES = {
    "enlarged": ((3, 5), (12, 10)),
    "by no whole number": ((4, 3), (7, 11)),
    "shrunk": ((9, 8), (4, 3)),
    "one way alone": ((5, 4), (5, 9)),
    "a single place": ((1, 1), (3, 2)),
}


@pytest.mark.parametrize("kind", SIZES)
def test_it_is_that_of_torch(kind):
    import torch

    old, new = SIZES[kind]
    rng = np.random.default_rng(0)
    x, weights = (rng.normal(size=(2, *size, 3)).astype(np.float32) for size in (old, new))
    given = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    theirs = torch.nn.functional.interpolate(given, size=new, mode="bilinear", align_corners=False)
    torch.sum(theirs * torch.from_numpy(weights.transpose(0, 3, 1, 2).copy())).backward()

    def total(x):
        resized = resized_maps(x, new)
        return jnp.sum(resized * weights), resized

    gradient, ours = jax.jit(jax.grad(total, has_aux=True))(x)
    np.testing.assert_allclose(ours, theirs.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, given.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_maps_of_the_right_size_are_left_alone():
    x = jnp.ones((1, 2, 3, 4))
    assert resized_maps(x, (2, 3)) is x


def test_it_keeps_the_dtype():
    assert resized_maps(jnp.ones((1, 2, 2, 1), jnp.bfloat16), (4, 4)).dtype == jnp.bfloat16
