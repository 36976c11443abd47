"""The head and its loss in one pass are the logits and their loss by autodiff, and never hold all logits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxformer.analysis.collectives import KINDS
from jaxformer.analysis.hlo import Module
from jaxformer.models.gpt import GPT
from jaxformer.models.outputs import TextOutputs, TokenHead
from jaxformer.parallel import topologies
from jaxformer.parallel.compile import Layout, compiled
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.topologies import topology_devices
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks import token_loss
from jaxformer.tasks.language import CausalLM

BATCH, LENGTH, WIDTH, ROWS = 8, 12, 16, 24
MESHES = [None, {"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 2, "sequence": 4}]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Texts of 12 tokens in 8 parts on one device, so that the last one is padded."""
    monkeypatch.setattr(token_loss, "PART_BYTES", {"cpu": 4 * BATCH * 2 * ROWS})


@pytest.fixture(scope="module")
def case():
    """Seen, table, bias and targets, of which a quarter is missing."""
    rng = np.random.default_rng(0)
    shapes = (BATCH, LENGTH, WIDTH), (ROWS, WIDTH), (ROWS,)
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    targets = rng.integers(0, ROWS, (BATCH, LENGTH))
    return *arrays, jnp.asarray(np.where(rng.random(targets.shape) < 0.25, -1, targets))


def plain(seen, table, bias, targets, smoothing, z_loss):
    """Cross-entropy with smoothed labels, and the z-loss, as they are written (Szegedy et al.; Chowdhery et al.)."""
    logits = jnp.einsum("btd,vd->btv", seen, table, precision="highest")
    logits = logits if bias is None else logits + bias[None, None]
    smooth = (1 - smoothing) * jax.nn.one_hot(targets, ROWS) + smoothing / ROWS
    each = -jnp.sum(smooth * jax.nn.log_softmax(logits), axis=-1)
    z = z_loss * jnp.square(jax.nn.logsumexp(logits, axis=-1))
    return tuple(jnp.sum(jnp.where(targets >= 0, x, 0)) for x in (each + z, z))


def in_one_pass(seen, table, bias, targets, smoothing, z_loss):
    outputs = TextOutputs(jnp.full((), jnp.nan), seen, head=TokenHead(seen, table, bias))
    return token_loss.summed_losses(outputs, targets, smoothing, z_loss)


def gradients_of(loss, arrays, targets, mesh=None, **settings):
    """Both sums, and the gradients of a multiple of the first, under a mesh."""

    def scaled(*arrays):
        total, of_z = loss(*arrays, targets, **settings)
        return 0.3 * total, (total, of_z)

    run = jax.jit(jax.grad(scaled, argnums=tuple(range(len(arrays))), has_aux=True))
    if mesh is None:
        return run(*arrays)
    specs = [(("data", "fsdp"),), ("tensor", "fsdp"), ("tensor",)]
    arrays = [
        x if x is None else jax.device_put(x, NamedSharding(mesh, PartitionSpec(*s)))
        for x, s in zip(arrays, specs)
    ]
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return run(*arrays)


@pytest.mark.parametrize("axes", MESHES, ids=str)
@pytest.mark.parametrize(
    ("biased", "settings"),
    [(True, {"smoothing": 0.1, "z_loss": 1e-2}), (False, {"smoothing": 0.0, "z_loss": 0.0})],
    ids=["all", "plain"],
)
def test_sums_and_gradients_are_those_of_the_logits(case, axes, biased, settings):
    *arrays, targets = case
    arrays = arrays if biased else [*arrays[:2], None]
    mesh = None if axes is None else make_mesh(axes)
    found = gradients_of(in_one_pass, arrays, targets, mesh, **settings)
    expected = gradients_of(plain, arrays, targets, **settings)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * float(jnp.max(jnp.abs(y))))


def test_under_fsdp_each_device_gets_its_part_of_the_tables_gradient(case):
    seen, table, _, targets = case
    mesh = make_mesh({"data": 2, "fsdp": 4})
    specs = PartitionSpec(("data", "fsdp")), PartitionSpec(None, "fsdp")
    arrays = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip((seen, table), specs)]

    def loss(seen, table):
        return in_one_pass(seen, table, None, targets, 0.0, 0.0)[0]

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arrays).compile()
    found = Module.read(program.as_text()).collectives(dict(mesh.shape))
    sizes = {kind: {one.axes: one.size for one in found if one.kind == kind} for kind in KINDS}
    assert sizes["reduce-scatter"] == {"fsdp": 4 * ROWS * WIDTH}
    assert sizes["all-reduce"]["data"] == 4 * ROWS * WIDTH / 4
    assert max(sizes["all-reduce"].values()) < 4 * ROWS * WIDTH


def test_a_loss_without_a_head_takes_the_logits(case):
    seen, table, bias, targets = case
    logits = jnp.einsum("btd,vd->btv", seen, table, precision="highest") + bias[None, None]
    found = token_loss.summed_losses(TextOutputs(logits, seen), targets, 0.1, 1e-2)
    np.testing.assert_allclose(found, plain(*case, 0.1, 1e-2), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_products_of_16_bits_are_added_up_in_float32(case, dtype):
    *arrays, targets = case
    rounded = [x.astype(dtype) for x in arrays]
    found = gradients_of(in_one_pass, [rounded[0], *arrays[1:]], targets, smoothing=0.1, z_loss=0.0)
    exact = [rounded[0].astype(jnp.float32), rounded[1].astype(jnp.float32), arrays[2]]
    expected = gradients_of(plain, exact, targets, smoothing=0.1, z_loss=0.0)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    assert [x.dtype for x in found[0]] == [dtype, jnp.float32, jnp.float32]
    for x, y in zip(found[0], expected[0]):
        np.testing.assert_allclose(x.astype(jnp.float32), y, atol=2e-2 * float(jnp.max(jnp.abs(y))))


@pytest.mark.parametrize("axes", [None, {"data": 8}, {"data": 2, "sequence": 4}], ids=str)
@pytest.mark.parametrize("scale", [8.0, 100.0])
def test_logits_of_any_size_have_their_loss_and_gradient(case, axes, scale):
    """Of some tokens another logit is hundreds above the target's, where the quick form overflows."""
    seen, table, bias, targets = case
    arrays, settings = [scale * seen, table, bias], {"smoothing": 0.1, "z_loss": 1e-3}
    mesh = None if axes is None else make_mesh(axes)
    found = gradients_of(in_one_pass, arrays, targets, mesh, **settings)
    expected = gradients_of(plain, arrays, targets, **settings)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * float(jnp.max(jnp.abs(y))))


def test_logits_that_are_infinite_have_no_finite_loss(case):
    seen, table, _, targets = case
    total, _ = in_one_pass(seen, table.at[3, 0].set(jnp.inf), None, targets, 0.0, 0.0)
    assert not jnp.isfinite(total)


@pytest.mark.parametrize("above", [-100.0, 100.0, 300.0])
def test_a_target_that_is_all_but_impossible_has_a_loss_and_a_gradient(above):
    table = jnp.zeros((ROWS, 1)).at[0].set(-above)
    targets = jnp.zeros((1, 1), jnp.int32)
    (of_table,), (total, _) = gradients_of(
        lambda table, targets: in_one_pass(jnp.ones((1, 1, 1)), table, None, targets, 0.0, 0.0),
        [table],
        targets,
    )
    expected = above + np.log(ROWS - 1) if above > 0 else 0.0
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-6)
    expected = np.r_[-1.0, np.full(ROWS - 1, 1 / (ROWS - 1))] if above > 0 else np.zeros(ROWS)
    np.testing.assert_allclose(of_table[:, 0], 0.3 * expected, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(
    topologies.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is not installed"
)
def test_on_tpus_not_even_a_parts_logits_are_in_memory():
    """The largest array is the softmax of a part in bfloat16: half of its logits' bytes."""
    texts, length, rows, width = 16, 1024, 50_304, 128  # texts a chip
    layout = Layout("jit", make_mesh({"data": 4}, topology_devices("v5e:2x2")))
    batch = {"sharding": layout.batch_sharding}
    arguments = (
        jax.ShapeDtypeStruct((4 * texts, length, width), jnp.bfloat16, **batch),
        jax.ShapeDtypeStruct((rows, width), jnp.float32, sharding=layout.replicated),
        jax.ShapeDtypeStruct((4 * texts, length), jnp.int32, **batch),
    )

    def loss(seen, table, targets):
        return in_one_pass(seen, table, None, targets, 0.0, 0.0)[0]

    step = layout.on_mesh(jax.value_and_grad(loss, argnums=(0, 1)))
    program = compiled(jax.jit(step).lower(*arguments), layout.mesh)
    (largest, shape, _), *_ = Module.read(program.as_text()).largest(1)
    part = token_loss.PART_BYTES_ELSEWHERE
    assert shape.startswith("bf16")
    assert largest <= part / 2
    assert program.memory_analysis().temp_size_in_bytes < part < 2 * texts * length * rows


@pytest.mark.parametrize("tied", [True, False])
def test_a_train_step_never_holds_all_logits(tied, monkeypatch):
    monkeypatch.setattr(token_loss, "PART_BYTES", {"cpu": 4 * 8 * 4 * 37})
    model = GPT(vocab_size=37, context_length=16, width=8, depth=1, num_heads=2, tied=tied)
    batch = {name: jnp.zeros((8, 16), jnp.int32) for name in ("tokens", "targets")}
    variables = init_variables(model, CausalLM().inputs(batch), jax.random.key(0))
    optimizer = optax.sgd(0.1)
    step = make_train_step(model, CausalLM(z_loss=1e-4), optimizer, seed=0)
    program = jax.jit(step).lower(init_state(variables, optimizer), batch).compile().as_text()
    shapes = {tuple(map(int, found.split(","))) for found in re.findall(r"f32\[([\d,]+)\]", program)}
    assert max(np.prod(shape) for shape in shapes if 37 in shape) == 8 * 4 * 37, shapes
