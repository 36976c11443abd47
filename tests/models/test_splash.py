"""The TPU's kernel, interpreted on a CPU, against XLA's form: results and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxformer.models import fused
from jaxformer.models.attention import attention
from jaxformer.models.fused import Kernel
from jaxformer.models.masks import Mask
from jaxformer.models.splash import splash_attention, splash_problems
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh

BATCH, HEADS, KV_HEADS, TOKENS, SIZE = 2, 2, 1, 256, 128
SEGMENTS = np.repeat([[1, 2, 3], [1, 1, 2]], [100, 100, 56], axis=1).astype(np.int32)
KEYS = np.arange(TOKENS)[None] < np.array([[256], [130]])
MASKS = {
    "full": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(causal=True, window=50),
    "segments": Mask(causal=True, segments=jnp.asarray(SEGMENTS)),
    "padding": Mask(keys=jnp.asarray(KEYS)),
}


def heads(seed, count):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, count, TOKENS, SIZE)).astype(np.float32)


@pytest.mark.parametrize("name", MASKS)
def test_the_kernel_gives_what_xla_gives(name):
    mask, scale = MASKS[name], 0.05
    query, key, value = heads(0, HEADS), heads(1, KV_HEADS), heads(2, KV_HEADS)
    ours = splash_attention(query, key, value, None, mask, scale, interpret=True)
    np.testing.assert_allclose(
        ours, attention(query, key, value, mask=mask, scale=scale), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_so_are_its_gradients():
    arrays = heads(0, HEADS), heads(1, KV_HEADS), heads(2, KV_HEADS)
    mask = MASKS["segments"]

    def loss(attend):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(attend(*a))), argnums=(0, 1, 2))(*arrays)

    ours = loss(lambda q, k, v: splash_attention(q, k, v, None, mask, 0.05, interpret=True))
    theirs = loss(lambda q, k, v: attention(q, k, v, mask=mask, scale=0.05))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)


ONE = (1, 2, 128, 128)


@pytest.mark.parametrize(
    ("query", "key", "mask", "bias", "says"),
    [
        (ONE, ONE, Mask(causal=True), None, None),
        (ONE, ONE, Mask(), np.zeros((1, 1, 1, 1)), "a bias"),
        ((1, 2, 100, 128), ONE, Mask(), None, "100 queries and 128 keys, not multiples of 128"),
        ((1, 2, 128, 64), (1, 2, 128, 64), Mask(), None, "head size 64, not a multiple of 128"),
        (ONE, (1, 2, 256, 128), Mask(causal=True), None, "a causal mask or segments"),
        (ONE, ONE, Mask(allowed=np.ones((1, 1, 1, 1), bool)), None, "of a cache"),
    ],
)
def test_when_it_is_not_taken(query, key, mask, bias, says):
    query, key = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (query, key))
    found = splash_problems(query, key, bias, mask)
    assert (found == []) if says is None else (len(found) == 1 and says in found[0])


def tpu_mesh(**axes):
    """A mesh of TPUs that are not there; enough for tracing."""
    sizes = {"data": 1, "fsdp": 1, "tensor": 1, **axes}
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    return jax.sharding.AbstractMesh(
        tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * 3, abstract_device=device
    )


def kernels_of(mesh, query, key, **choices):
    """The shapes of the queries that the kernel gets, on each device of a mesh."""

    def traced(query, key):
        with jax.sharding.use_abstract_mesh(mesh):
            return attention(query, key, key, **choices, scale=1.0)

    text = str(jax.make_jaxpr(traced)(*(jnp.zeros(shape, jnp.bfloat16) for shape in (query, key))))
    return text.count("pallas_call"), text.count("shard_map")


def test_a_tpu_takes_it_where_it_fits():
    assert kernels_of(tpu_mesh(), ONE, ONE) == (1, 0)
    assert kernels_of(tpu_mesh(), (1, 2, 100, 128), (1, 2, 100, 128)) == (0, 0)


EIGHT = (8, 4, 128, 128)


@pytest.mark.parametrize(
    ("axes", "query", "key", "taken"),
    [
        ({"data": 2, "fsdp": 2, "tensor": 2}, EIGHT, EIGHT, True),
        ({"data": 4, "tensor": 4}, EIGHT, (8, 1, 128, 128), True),
        ({"data": 4, "tensor": 4}, EIGHT, (8, 2, 128, 128), False),
        ({"data": 16}, EIGHT, EIGHT, False),
        ({"tensor": 8}, EIGHT, EIGHT, False),
    ],
)
def test_a_mesh_splits_it_over_rows_and_heads(axes, query, key, taken):
    found = kernels_of(tpu_mesh(**axes), query, key, mask=Mask(causal=True))
    assert (found[0] > 0, found[1] > 0) == (taken, taken)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 8}, {"tensor": 8}], ids=str)
def test_on_a_mesh_it_is_the_same(monkeypatch, name, axes):
    """Every device interprets the kernel on its own rows and heads."""
    monkeypatch.setitem(
        fused.KERNELS, "cpu", Kernel("splash", splash_problems, partial(splash_attention, interpret=True))
    )
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(8, heads, 128, 128)).astype(np.float32) for heads in (8, 1, 1)]
    mask = jax.tree.map(lambda x: jnp.tile(x, (4, 1))[:, -128:], MASKS[name])
    layout = Layout("jit", make_mesh(axes | {"data": -1}))
    ours = jax.jit(
        layout.on_mesh(partial(attention, mask=mask, scale=0.05)), out_shardings=layout.batch_sharding
    )(*arrays)
    monkeypatch.undo()
    np.testing.assert_allclose(ours, attention(*arrays, mask=mask, scale=0.05), rtol=1e-4, atol=1e-5)
