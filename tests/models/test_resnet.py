"""ResNets: shapes, and running statistics that move in training alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import images, random_params

from jaxformer.models.resampling import max_pool_of_zeros, max_pool_same
from jaxformer.models.resnet import ResNet

TINY = {"stage_sizes": (1, 1), "width": 8, "num_classes": 5, "groups": 4}


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("block", "channels"), [("basic", 16), ("bottleneck", 64)])
@pytest.mark.parametrize(("stem", "size"), [("small", 8), ("imagenet", 2)])
def test_shapes(norm, version, block, channels, stem, size):
    model = ResNet(**TINY, norm=norm, version=version, block=block, stem=stem)
    image = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert outputs.logits.shape == (2, 5)
    assert outputs.features.shape == (2, channels)
    assert outputs.tokens.shape == (2, size, size, channels)
    assert ("batch_stats" in variables) == (norm == "batch")


def test_running_statistics_move_in_training_alone():
    model = ResNet(**TINY, stem="small", block="basic")
    params = random_params(model, images())
    shapes = jax.eval_shape(model.init, jax.random.key(0), images())["batch_stats"]
    stats = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
    variables = {"params": params, "batch_stats": stats}

    def run(deterministic):
        return jax.jit(lambda v, x: model.apply(v, x, deterministic, mutable=["batch_stats"]))(
            variables, images()
        )

    trained, moved = run(deterministic=False)
    evaluated, still = run(deterministic=True)
    jax.tree.map(np.testing.assert_array_equal, still["batch_stats"], stats)
    assert all(np.abs(leaf - 1).max() > 1e-4 for leaf in jax.tree.leaves(moved["batch_stats"]))
    assert np.abs(trained.logits - evaluated.logits).max() > 1e-3


def test_maps_and_no_head():
    """A map a stage, the finest first; of a stem alone its own."""
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    model = ResNet(stage_sizes=(1, 1, 1), width=8, num_classes=0)
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert outputs.logits is None
    assert "head" not in variables["params"]
    assert [m.shape for m in outputs.maps] == [(2, 16, 16, 32), (2, 8, 8, 64), (2, 4, 4, 128)]
    assert outputs.features.shape == (2, 128)
    for stem in ("imagenet", "bit", "deep"):
        outputs = jax.eval_shape(
            lambda x, s=stem: ResNet((), 8, 0, stem=s).init_with_output(jax.random.key(0), x)[0], image
        )
        assert [m.shape for m in outputs.maps] == [(2, 16, 16, 8)]


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (9, 5)])
def test_pools_of_stems(size):
    """What is "same" is XLA's own SAME window; "bit" has zeros around, which count where all else is negative."""
    x = np.random.default_rng(0).normal(-1, 1, size=(2, *size, 3)).astype(np.float32)
    window = {"window_dimensions": (1, 3, 3, 1), "window_strides": (1, 2, 2, 1)}
    same = jax.lax.reduce_window(x, -np.inf, jax.lax.max, padding="SAME", **window)
    np.testing.assert_array_equal(jax.jit(max_pool_same)(x), same)
    bordered = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    zeros = jax.lax.reduce_window(bordered, -np.inf, jax.lax.max, padding="VALID", **window)
    np.testing.assert_array_equal(jax.jit(max_pool_of_zeros)(x), zeros)
