"""The TPU's kernels of attention, interpreted on a CPU, against XLA's form: results and gradients."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxformer.models import fused
from jaxformer.models.attention import Attention, attention
from jaxformer.models.fused import Kernel
from jaxformer.models.masks import Mask
from jaxformer.models.placement import without_kernels
from jaxformer.models.short_attention import heads_of_a_step, short_attention, short_problems
from jaxformer.models.splash import blocks, splash_attention, splash_problems
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh

ATTEND = {"short": short_attention, "splash": splash_attention}
PROBLEMS = {"short": short_problems, "splash": splash_problems}


def documents(*lengths):
    """The segments of two packed texts, int32 [2, T]: the second has its documents the other way round."""
    return jnp.asarray([np.repeat(np.arange(3), ns) for ns in (lengths, lengths[::-1])], jnp.int32)


def first(total, *counts):
    """Bool [B, S]: which keys are no padding."""
    return jnp.arange(total)[None] < jnp.asarray(counts)[:, None]


# Heads H and Hkv, lengths T and S, the head's size, and the mask: none of the sizes is a multiple of 128.
VARIANTS = {
    "full": (2, 2, 69, 69, 16, Mask()),
    "causal": (4, 2, 300, 300, 16, Mask(causal=True)),
    "window": (4, 1, 300, 300, 16, Mask(causal=True, window=20)),
    "window both ways": (4, 1, 300, 300, 16, Mask(window=20, keys=first(300, 300, 290))),
    "segments": (2, 2, 150, 150, 24, Mask(causal=True, segments=documents(40, 70, 40))),
    "segments both ways": (2, 2, 150, 150, 24, Mask(segments=documents(40, 70, 40))),
    "segments and padding": (
        *(2, 2, 150, 150, 16),
        Mask(causal=True, segments=documents(40, 70, 40), keys=first(150, 150, 150).at[:, 30:35].set(False)),
    ),
    "padding": (2, 1, 70, 70, 16, Mask(keys=first(70, 70, 9))),
    "cross": (4, 2, 65, 140, 16, Mask(keys=first(140, 140, 100))),
    "cross without padding": (2, 2, 140, 65, 16, Mask()),
    "causal, more keys": (2, 2, 70, 140, 16, Mask(causal=True)),
    "causal, more queries": (2, 2, 140, 70, 16, Mask(causal=True)),
}
BIASES = {"one for all texts": 1, "one a text": 2}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def inputs(heads, kv_heads, queries, keys, size, batch=2):
    """Query, key and value."""
    rest = ((kv_heads, keys), (kv_heads, keys))
    return [normal(i, batch, *n, size) for i, n in enumerate([(heads, queries), *rest])]


def with_gradients(attend, arrays):
    """The result and the gradients of a function of arrays."""
    result, backward = jax.vjp(attend, *arrays)
    return result, *backward(normal(9, *result.shape))


def assert_the_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


SLOW = (
    "full",
    "segments both ways",
    "causal, more keys",
    "causal, more queries",
)  # others hold most of them, too


@pytest.mark.parametrize(
    ("kernel", "name"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] in SLOW)) for case in product(ATTEND, VARIANTS)],
)
def test_a_kernel_gives_what_xla_gives_forwards_and_backwards(kernel, name):
    *sizes, mask = VARIANTS[name]
    arrays = inputs(*sizes)
    kernel = partial(ATTEND[kernel], bias=None, mask=mask, scale=0.3, interpret=True)
    assert_the_same(
        with_gradients(kernel, arrays), with_gradients(partial(attention, mask=mask, scale=0.3), arrays)
    )


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("mask", [Mask(causal=True), Mask(keys=first(70, 70, 9))], ids=["causal", "padding"])
def test_a_bias_has_its_gradient_too(name, mask):
    arrays = [*inputs(8, 8, 70, 70, 16), normal(3, BIASES[name], 8, 70, 70)]
    ours = with_gradients(lambda q, k, v, b: short_attention(q, k, v, b, mask, 0.3, True), arrays)
    theirs = with_gradients(lambda q, k, v, b: attention(q, k, v, bias=b, mask=mask, scale=0.3), arrays)
    assert_the_same(ours, theirs)


def test_more_than_one_block_of_queries_and_of_keys():
    arrays, mask = inputs(1, 1, 1100, 1100, 8, batch=1), Mask(causal=True, window=700)
    for kernel in ATTEND.values():
        attend = partial(kernel, bias=None, mask=mask, scale=0.3, interpret=True)
        assert_the_same(
            with_gradients(attend, arrays), with_gradients(partial(attention, mask=mask, scale=0.3), arrays)
        )


def test_in_bfloat16_it_is_as_close_as_xla():
    *sizes, mask = VARIANTS["causal"]
    exact = attention(*inputs(*sizes), mask=mask, scale=0.3)
    for kernel in ATTEND.values():
        arrays = (x.astype(jnp.bfloat16) for x in inputs(*sizes))
        found = kernel(*arrays, None, mask, 0.3, interpret=True)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.05)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, (128, 127)), (197, (256, 59)), (1024, (1024, 0)), (1100, (384, 52)), (4096, (512, 0))],
)
def test_blocks_of_splash(length, expected):
    assert blocks(length) == expected


def test_a_step_fills_whole_registers():
    assert [heads_of_a_step(12, size) for size in (64, 128, 96, 80, 32)] == [2, 1, 4, 12, 4]


ONE = (1, 2, 128, 64)


@pytest.mark.parametrize(
    ("kernel", "query", "key", "mask", "bias", "says"),
    [
        ("splash", ONE, ONE, Mask(causal=True), None, None),
        ("splash", (1, 2, 197, 72), (1, 1, 99, 72), Mask(), None, None),
        ("splash", ONE, ONE, Mask(), (1, 2, 128, 128), "a bias"),
        ("splash", (1, 2, 1, 64), ONE, Mask(), None, "1 queries, fewer than 64"),
        ("splash", ONE, (1, 2, 256, 64), Mask(causal=True, window=3), None, "a window between texts of different"),
        ("splash", ONE, ONE, Mask(allowed=np.ones((1, 1, 1, 1), bool)), None, "the mask of a cache"),
        ("short", ONE, ONE, Mask(causal=True), (1, 2, 128, 128), None),
        ("short", (1, 8, 1024, 64), (1, 8, 1024, 64), Mask(), None, None),
        ("short", (1, 8, 2048, 64), (1, 8, 2048, 64), Mask(), None, "2048 queries and 2048 keys do not fit"),
        ("short", ONE, ONE, Mask(), (1, 1, 128, 128), "a bias that heads share"),
        ("short", (1, 2, 9, 64), ONE, Mask(), None, "9 queries, fewer than 32"),
        ("short", ONE, ONE, Mask(allowed=np.ones((1, 1, 1, 1), bool)), None, "the mask of a cache"),
    ],
)  # fmt: skip
def test_when_a_kernel_is_not_taken(kernel, query, key, mask, bias, says):
    query, key = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (query, key))
    bias = bias and jax.ShapeDtypeStruct(bias, jnp.float32)
    found = PROBLEMS[kernel](query, key, bias, mask)
    assert (found == []) if says is None else (len(found) == 1 and says in found[0])


def tpu_mesh(**axes):
    """A mesh of TPUs that are not there; enough for tracing."""
    sizes = {"data": 1, "fsdp": 1, "sequence": 1, "tensor": 1, **axes}
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    return jax.sharding.AbstractMesh(
        tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * 4, abstract_device=device
    )


def traced(mesh, query, key, **choices):
    """The program of attention on a mesh, as text."""

    def attend(query, key):
        with jax.sharding.use_abstract_mesh(mesh):
            return attention(query, key, key, **choices, scale=1.0)

    return str(jax.make_jaxpr(attend)(*(jnp.zeros(shape, jnp.bfloat16) for shape in (query, key))))


def test_a_tpu_takes_the_first_that_fits_and_the_log_says_why(caplog):
    fused.log.cache_clear()
    with caplog.at_level("INFO", "jaxformer"):
        assert "attended" in traced(tpu_mesh(), ONE, ONE)
        assert "splash" in traced(tpu_mesh(), (1, 1, 4096, 64), (1, 1, 4096, 64))
        assert "pallas_call" not in traced(tpu_mesh(), (1, 2, 1, 64), ONE)
        assert "pallas_call" not in traced(tpu_mesh(data=3), ONE, ONE)
        traced(tpu_mesh(), ONE, ONE)
    assert [record.getMessage() for record in caplog.records] == [
        "attention: short",
        "attention: splash (not short: 4096 queries and 4096 keys do not fit)",
        "attention: xla (not short: 1 queries, fewer than 32; not splash: 1 queries, fewer than 64)",
        "attention: xla (1 rows on 3 parts of the mesh)",
    ]


def test_dropout_of_the_weights_keeps_xlas_form(caplog):
    fused.log.cache_clear()
    layer, x = Attention(2, dropout=0.5), jnp.zeros((1, 64, 32))

    def apply(deterministic):
        with jax.sharding.use_abstract_mesh(tpu_mesh()):
            keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
            return layer.init_with_output(keys, x, deterministic=deterministic)[0][0]

    with caplog.at_level("INFO", "jaxformer"):
        assert "pallas_call" in str(jax.make_jaxpr(lambda: apply(True))())
        assert "pallas_call" not in str(jax.make_jaxpr(lambda: apply(False))())
    assert "dropout of the attention weights" in caplog.records[-1].getMessage()


def test_products_are_counted_where_no_kernel_hides_them():
    with jax.sharding.use_abstract_mesh(tpu_mesh()), without_kernels():
        query = jax.ShapeDtypeStruct(ONE, jnp.float32)
        text = str(jax.make_jaxpr(lambda q: attention(q, q, q, scale=1.0))(query))
    assert "pallas_call" not in text


EIGHT = (8, 4, 128, 64)


@pytest.mark.parametrize(
    ("axes", "query", "key", "taken"),
    [
        ({"data": 2, "fsdp": 2, "tensor": 2}, EIGHT, EIGHT, True),
        ({"data": 4, "tensor": 4}, EIGHT, (8, 1, 128, 64), True),
        ({"data": 4, "tensor": 4}, EIGHT, (8, 2, 128, 64), False),
        ({"data": 16}, EIGHT, EIGHT, False),
        ({"tensor": 8}, EIGHT, EIGHT, False),
    ],
)
def test_a_mesh_splits_it_over_rows_and_heads(axes, query, key, taken):
    text = traced(tpu_mesh(**axes), query, key, mask=Mask(causal=True))
    assert ("pallas_call" in text, "shard_map" in text) == (taken, taken)


THREE, LINES = {"data": 2, "fsdp": 2, "tensor": 2}, ({"data": 8}, {"tensor": 8})
ON_MESHES = {
    "causal": (8, 8, 40, 40, 16, Mask(causal=True)),
    "segments, shared keys": (8, 1, 40, 40, 16, Mask(causal=True, segments=documents(10, 20, 10))),
    "padding": (8, 8, 40, 70, 16, Mask(keys=first(70, 70, 9))),
}


@pytest.mark.parametrize("name", [*ON_MESHES, "bias"])
@pytest.mark.parametrize(
    "axes", [THREE, *(pytest.param(axes, marks=pytest.mark.slow) for axes in LINES)], ids=str
)
@pytest.mark.parametrize("kernel", ["short", pytest.param("splash", marks=pytest.mark.slow)])
def test_on_a_mesh_results_and_gradients_are_the_same(monkeypatch, kernel, name, axes):
    """Every device interprets the kernel on its own rows and heads; a bias's gradient adds up over devices."""
    if (kernel, name) == ("splash", "bias"):
        pytest.skip("splash takes no bias")
    *sizes, mask = ON_MESHES["padding" if name == "bias" else name]
    mask = jax.tree.map(lambda x: jnp.tile(x, (4, 1)), mask)
    arrays = inputs(*sizes, batch=8) + ([normal(3, 1, 8, 40, 70)] if name == "bias" else [])

    def step(query, key, value, bias=None):
        return attention(query, key, value, bias=bias, mask=mask, scale=0.3)

    expected = with_gradients(step, arrays)
    interpreted = partial(ATTEND[kernel], interpret=True)
    monkeypatch.setitem(fused.KERNELS, "cpu", (Kernel(kernel, lambda *a: [], interpreted),))
    layout = Layout("jit", make_mesh(axes | {"data": -1}))
    on_mesh = jax.jit(layout.on_mesh(partial(with_gradients, step)), out_shardings=layout.replicated)
    assert_the_same(on_mesh(arrays), expected)
