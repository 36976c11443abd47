"""Tables of vectors and the way back, against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer.models.dense import Embedding, unembed

ROWS, FEATURES = 7, 6


def arrays():
    generator = np.random.default_rng(0)
    shapes = ((2, 3, FEATURES), (ROWS, FEATURES), (2, 3, ROWS))
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


def both(function, x, table, weight):
    """The value and the gradients of x and the table."""
    return jax.jit(jax.value_and_grad(lambda x, t: jnp.sum(function(x, t) * weight), argnums=(0, 1)))(
        x, table
    )


def test_the_written_out_backward_pass_is_autodiffs():
    ours, theirs = (both(f, *arrays()) for f in (unembed, lambda x, t: jnp.einsum("btd,vd->btv", x, t)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


def test_half_precision_adds_up_in_float32():
    x, table, weight = arrays()
    half = jnp.asarray(x, jnp.bfloat16)
    assert unembed(half, table).dtype == jnp.float32
    _, (of_x, of_table) = both(unembed, half, table, weight)
    assert (of_x.dtype, of_table.dtype) == (jnp.bfloat16, jnp.float32)
    _, expected = both(unembed, x, table, weight)
    for ours, theirs in zip((of_x, of_table), expected):
        error = np.abs(np.asarray(ours, np.float32) - theirs).max() / np.abs(theirs).max()
        assert 0 < error < 0.02


def test_a_number_takes_its_row_and_those_out_of_range_the_nearest():
    _, table, _ = arrays()
    module = Embedding(ROWS, FEATURES)
    apply = jax.jit(module.apply)
    vectors = apply({"params": {"embedding": table}}, np.array([[0, 3], [ROWS + 5, -2]]))
    np.testing.assert_array_equal(vectors, table[[[0, 3], [ROWS - 1, 0]]])


def test_rows_that_are_taken_often_add_up_their_gradients():
    _, table, _ = arrays()
    module = Embedding(ROWS, FEATURES)
    ids = np.array([[1, 1, 4]])
    gradient = jax.jit(jax.grad(lambda t: jnp.sum(module.apply({"params": {"embedding": t}}, ids))))(table)
    np.testing.assert_array_equal(gradient[:, 0], [0, 2, 0, 0, 1, 0, 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_same_table_both_ways(dtype):
    x, table, _ = arrays()
    module = Embedding(ROWS, FEATURES, dtype=dtype)
    variables = {"params": {"embedding": table}}
    logits = module.apply(variables, x, method="logits")
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, x @ table.T, atol=1e-5 if dtype == jnp.float32 else 0.1)
    assert module.apply(variables, np.array([1])).dtype == dtype
