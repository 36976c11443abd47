"""Under "fsdp" a device gets its part of each gradient's sum, not the whole."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxformer.analysis.hlo import Module
from jaxformer.models.block import Block
from jaxformer.models.placement import gradients_lie
from jaxformer.models.stack import Stack
from jaxformer.parallel import topologies
from jaxformer.parallel.compile import Layout, compiled
from jaxformer.parallel.gradients import gradient_shardings, mesh_of_rows, row_length
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.rules import param_specs
from jaxformer.parallel.topologies import topology_devices
from jaxformer.paths import leaves_by_path, path_of

compiles = pytest.mark.skipif(
    topologies.find_spec("libtpu") is None,
    reason='libtpu, the TPU\'s compiler, is not installed: pip install "jaxformer[aot]"',
)
STACK = Stack(Block, {"num_heads": 4, "mlp_dim": 1024, "dtype": jnp.bfloat16}, depth=2, scan=True)


def parameters(mesh):
    """The stack's, as shapes with shardings."""
    tokens = jnp.zeros((1, 8, 256))
    shapes = jax.eval_shape(lambda: STACK.init(jax.random.key(0), tokens, True))["params"]
    specs = param_specs(shapes, mesh)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.update(sharding=NamedSharding(mesh, specs[path_of(path)])), shapes
    )


@pytest.mark.parametrize(
    ("coordinates", "expected"),
    [
        ([(0, 0), (0, 1), (0, 2), (0, 3)], 4),
        ([(x, y) for x in range(4) for y in range(8)], 8),
        ([(x, y, z) for x in range(2) for y in range(4) for z in range(4)], 4),
        ([(0, 0), (1, 1)], 1),
        ([(0, 0), (0, 1), (1, 1)], 1),
        ([(0, 0)], 1),
    ],
)
def test_a_row_is_as_long_as_one_coordinate_alone_changes(coordinates, expected):
    assert row_length(coordinates) == expected


def test_without_fsdp_no_gradient_is_laid_out():
    assert gradient_shardings(parameters(make_mesh({"data": 8}))) == {}


def test_a_gradient_lies_as_its_parameter_does():
    params = parameters(make_mesh({"data": 2, "fsdp": 4}))
    found = gradient_shardings(params)
    leaves = leaves_by_path(params)
    assert found["blocks/mlp/up/kernel"] == (leaves["blocks/mlp/up/kernel"].sharding,)
    assert "blocks/mlp/up/bias" not in found


def test_over_several_rows_of_a_slice_there_is_a_first_step_over_the_rows():
    devices = [SimpleNamespace(platform="tpu", coords=(x, y, 0)) for x in range(4) for y in range(8)]
    mesh = SimpleNamespace(
        devices=np.array(devices).reshape(1, 32, 1),
        axis_names=("data", "fsdp", "tensor"),
        shape={"data": 1, "fsdp": 32, "tensor": 1},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "jaxformer.parallel.gradients.Mesh", lambda devices, names, axis_types: (devices, names)
        )
        placed, names = mesh_of_rows(mesh)
    assert dict(zip(names, placed.shape)) == {"data": 1, "fsdp_rows": 4, "fsdp_in_row": 8, "tensor": 1}
    assert list(placed.flat) == devices  # the order that the program's devices have


def test_gradients_are_the_same_numbers_however_they_lie():
    layout = Layout("jit", make_mesh({"data": 2, "fsdp": 4}))
    params = parameters(layout.mesh)
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.1).astype(np.float32), params)
    tokens = rng.normal(size=(8, 8, 256)).astype(np.float32)
    stack = STACK.clone(fields=STACK.fields | {"dtype": jnp.float32})

    def loss(params, tokens):
        return jnp.sum(jnp.sin(stack.apply({"params": params}, tokens, True)[0]))

    given = (jax.tree.map(lambda leaf: leaf.sharding, params), layout.batch_sharding)
    laid_out = layout.on_mesh(gradients_lie(gradient_shardings(params))(jax.grad(loss)))
    ours = jax.jit(laid_out, in_shardings=given)(values, tokens)
    plain = jax.jit(jax.grad(loss))(values, tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, plain)
    for path, shardings in gradient_shardings(params).items():
        made = leaves_by_path(ours)[path]
        assert made.sharding.is_equivalent_to(shardings[-1], made.ndim), path


@compiles
def test_the_tpus_compiler_scatters_what_it_adds_up():
    """Sixteen devices in four rows: no sum of the size of a kernel is given whole to every device."""
    layout = Layout("jit", make_mesh({"fsdp": 16}, topology_devices("v5e:4x4")))
    params = parameters(layout.mesh)
    tokens = jax.ShapeDtypeStruct((16, 64, 256), jnp.bfloat16, sharding=layout.batch_sharding)

    def loss(params, tokens):
        return jnp.sum(jnp.sin(STACK.apply({"params": params}, tokens, True)[0].astype(jnp.float32)))

    step = layout.on_mesh(gradients_lie(gradient_shardings(params))(jax.grad(loss)))
    made = jax.tree.map(lambda leaf: leaf.sharding, params)
    program = compiled(jax.jit(step, out_shardings=made).lower(params, tokens), layout.mesh)
    sums = Module.read(program.as_text()).collectives(layout.mesh.shape)
    kernels = 4 * 12 * 256**2  # bytes of a layer's gradients
    sent = {
        kind: sum(one.sent for one in sums if one.kind == kind) for kind in ("all-reduce", "reduce-scatter")
    }
    assert sent["reduce-scatter"] >= 0.75 * kernels
    assert sent["all-reduce"] <= 0.25 * kernels
