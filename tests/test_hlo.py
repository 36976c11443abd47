"""What compiled modules say: how often things run, what devices exchange, and what is read and written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxformer.analysis.collectives import first_group
from jaxformer.analysis.flops import jaxpr_flops, kernel_flops, largest_arrays
from jaxformer.analysis.hlo import Module, size_of
from jaxformer.analysis.traffic import memory_bytes
from jaxformer.parallel import topologies
from jaxformer.parallel.compile import compiled
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.topologies import topology_devices

compiles = pytest.mark.skipif(
    topologies.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is not installed"
)
MESH = {"data": 2, "fsdp": 2, "tensor": 2}
MODULE = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%picked (stack: f32[5,64,128], at: s32[]) -> f32[64,128] {
  %stack = f32[5,64,128]{2,1,0} parameter(0)
  %at = s32[] parameter(1)
  %one = f32[1,64,128]{2,1,0} dynamic-slice(%stack, %at), dynamic_slice_sizes={1,64,128}
  ROOT %flat = f32[64,128]{1,0} bitcast(%one)
}

%all-reduce-scatter (whole: f32[64,128]) -> f32[32,128] {
  %whole = f32[64,128]{1,0} parameter(0)
  %reduced = f32[64,128]{1,0} all-reduce(%whole), channel_id=3, replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %part = f32[32,128]{1,0} slice(%reduced), slice={[0:32], [0:128]}
}

%body (carried: (s32[], f32[64,128], f32[5,64,128])) -> (s32[], f32[64,128], f32[5,64,128]) {
  %carried = (s32[], f32[64,128]{1,0}, f32[5,64,128]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carried), index=0
  %x = f32[64,128]{1,0} get-tuple-element(%carried), index=1
  %w = f32[5,64,128]{2,1,0} get-tuple-element(%carried), index=2
  %layer = f32[64,128]{1,0:T(8,128)S(1)} fusion(%w, %i), calls=%picked, backend_config={"estimated_cycles":"100"}
  %y = f32[64,128]{1,0} all-reduce(%x), replica_groups={{0,2},{4,6},{1,3},{5,7}}, metadata={op_name="sum"}
  ROOT %next = (s32[], f32[64,128]{1,0}, f32[5,64,128]{2,1,0}) tuple(%i, %y, %w)
}

%condition (carried.1: (s32[], f32[64,128], f32[5,64,128])) -> pred[] {
  %carried.1 = (s32[], f32[64,128]{1,0}, f32[5,64,128]{2,1,0}) parameter(0)
  %limit = s32[] constant(5)
  %at.1 = s32[] get-tuple-element(%carried.1), index=0
  ROOT %less = pred[] compare(%at.1, %limit), direction=LT
}

ENTRY %main (p: f32[64,128], q: f32[5,64,128]) -> f32[64,128] {
  %p = f32[64,128]{1,0} parameter(0)
  %q = f32[5,64,128]{2,1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[64,128]{1,0}, /*index=2*/f32[5,64,128]{2,1,0}) tuple(%zero, %p, %q)
  %loop = (s32[], f32[64,128]{1,0}, f32[5,64,128]{2,1,0}) while(%start), condition=%condition, body=%body
  %out = f32[64,128]{1,0} get-tuple-element(%loop), index=1
  %gathered = bf16[128,128]{1,0} all-gather(%out), channel_id=2, replica_groups=[1,8]<=[8], dimensions={0}
  %part.1 = f32[32,128]{1,0} fusion(%out), kind=kCustom, calls=%all-reduce-scatter
  %kernel = f32[64,128]{1,0} custom-call(%out), custom_call_target="tpu_custom_call"
  ROOT %done = f32[64,128]{1,0} copy(%kernel), backend_config={"estimated_cycles":"7"}
}
"""
ARRAY = 64 * 128 * 4


def test_a_loop_counts_as_often_as_it_runs():
    module = Module.read(MODULE)
    assert module.runs == {"main": 1, "body": 5}
    assert module.cycles() == 5 * 100 + 7
    assert module.kernels() == 1
    said = MODULE.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"9"}}')
    assert Module.read(said).cycles() == 9 * 100 + 7


def test_of_a_conditional_what_a_step_usually_does_counts():
    def step(x):
        return jax.lax.cond(jnp.any(x > 100), lambda: jnp.tanh(x @ x) @ x, lambda: jnp.sin(x))

    module = Module.read(jax.jit(step).lower(jnp.ones((64, 64))).compile().as_text())

    def ops(computations):
        return {made.op for name in computations for made in module.computations[name].values()}

    run = set(module.runs)
    assert "conditional" in ops(run)
    assert {"sine", "dot"} <= ops(module.computations)
    fused = {name for made, *_ in module.running() if made.op == "fusion" for name in made.called()}
    assert "sine" in ops(run | fused)
    assert "dot" not in ops(run | fused)


def test_what_devices_exchange_has_its_axes_and_bytes():
    found = {one.kind: one for one in Module.read(MODULE).collectives(MESH)}
    reduced = found["all-reduce"]
    assert (reduced.axes, reduced.times, reduced.where) == ("fsdp", 5, "sum")
    assert (reduced.size, reduced.sent) == (ARRAY, ARRAY)  # of two: to the other one and back, half each
    gathered = found["all-gather"]
    assert (gathered.axes, gathered.size) == ("data+fsdp+tensor", 128 * 128 * 2)
    assert gathered.sent == 128 * 128 * 2 * 7 / 8
    scattered = found["reduce-scatter"]
    assert (scattered.axes, scattered.size, scattered.sent) == ("tensor", ARRAY, ARRAY / 2)


def test_a_sum_that_another_unit_of_the_chip_makes_is_counted():
    """As TPU7x's programs have it: a call of the "sparsecore", which begins and ends apart."""
    named = "replica_groups={{0,2},{4,6},{1,3},{5,7}}"
    start = "%y.start = ((f32[64,128]{1,0}), f32[64,128]{1,0}) call-start(%x), to_apply=%apart"
    body = f'{start}, async_execution_thread="sparsecore"\n  %y = f32[64,128]{{1,0}} call-done(%y.start)'
    line = next(line for line in MODULE.splitlines() if named in line)
    apart = "%apart (z: f32[64,128]) -> f32[64,128] {\n  %z = f32[64,128]{1,0} parameter(0)\n"
    apart += line.replace("%y", "ROOT %inner").replace("%x", "%z") + '\n}, execution_thread="sparsecore"\n\n'
    module = Module.read(MODULE.replace(line, f"  {body}").replace("%condition (", f"{apart}%condition (", 1))
    assert module.runs["apart"] == 5
    assert {*module.collectives(MESH)} == {*Module.read(MODULE).collectives(MESH)}
    assert memory_bytes(module) == memory_bytes(Module.read(MODULE))


def test_what_stands_in_several_fusions_is_exchanged_once():
    twice = MODULE.replace(
        "  ROOT %done",
        "  %part.2 = f32[32,128]{1,0} fusion(%out), kind=kCustom, calls=%all-reduce-scatter\n  ROOT %done",
    )
    assert len(Module.read(twice).collectives(MESH)) == len(Module.read(MODULE).collectives(MESH)) == 3


def test_of_what_is_only_sliced_the_slices_are_read():
    """A loop's turn: one layer of five, into the vector memory, and a sum's reading and writing; then the rest."""
    body = ARRAY + 4 + 2 * ARRAY
    end = (ARRAY + 128 * 128 * 2) + ARRAY // 2 + 2 * ARRAY + 2 * ARRAY
    # What a fusion hands to a collective is not read by it.
    assert memory_bytes(Module.read(MODULE)) == 5 * body + end


@pytest.mark.parametrize(
    ("attributes", "group"),
    [
        ("replica_groups={{0,2},{4,6}}", [0, 2]),
        ("replica_groups={}", list(range(8))),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,2,2]T(1,0,2)", [0, 1]),
        ("replica_groups=[4,2]<=[4,2]T(1,0)", [0, 2]),
        ("replica_groups=[2,4]<=[2,2,2]T(1,0,2)", [0, 1, 4, 5]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2,'d'=2] {'c'}", [0, 2]),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}", [0, 1, 4, 5]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", [0, 2]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}", [0, 1]),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2], device_ids=([4,2]T(1,0)) {'b'}", [0, 4]),
        ("source_target_pairs={{0,0},{1,2},{2,1}}", [1, 2]),
    ],
)
def test_every_form_of_groups_is_read(attributes, group):
    assert first_group(attributes, 8) == group


def test_sizes_of_types():
    assert (
        size_of("(f32[8,128]{1,0:T(8,128)}, bf16[2]{0}, pred[3], s4[8], u32[]{:S(2)})")
        == 4096 + 4 + 3 + 4 + 4
    )
    assert size_of("(f32[8,128]{1,0:T(8,128)S(1)}, bf16[2]{0:T(256)})", everywhere=False) == 4


def test_products_of_a_kernel_count_for_every_place_of_its_grid():
    def kernel(x, y, out):
        out[...] = x[...] @ y[...]

    def step(x, y):
        product = pl.pallas_call(
            kernel,
            grid=(4,),
            in_specs=[pl.BlockSpec((8, 128), lambda i: (i, 0)), pl.BlockSpec((128, 128), lambda i: (0, 0))],
            out_specs=pl.BlockSpec((8, 128), lambda i: (i, 0)),
            out_shape=jax.ShapeDtypeStruct((32, 128), np.float32),
        )
        x, _ = jax.lax.scan(lambda x, _: (product(x, y), None), x, length=3)
        return x @ y

    x, y = jax.ShapeDtypeStruct((32, 128), np.float32), jax.ShapeDtypeStruct((128, 128), np.float32)
    jaxpr = jax.make_jaxpr(step)(x, y).jaxpr
    assert kernel_flops(jaxpr) == 3 * 2 * 32 * 128 * 128
    assert jaxpr_flops(jax.make_jaxpr(lambda x, y: x @ y)(x, y).jaxpr) == 2 * 32 * 128 * 128
    assert kernel_flops(jax.make_jaxpr(lambda x, y: x @ y)(x, y).jaxpr) == 0


def test_the_largest_arrays_of_a_step_are_named():
    jaxpr = jax.make_jaxpr(lambda x: jnp.tanh(jnp.outer(x, x)).sum())(np.zeros(32, np.float32)).jaxpr
    (first, second) = largest_arrays(jaxpr, 2)
    assert (first[0], first[1]) == (32 * 32 * 4, "float32[32,32]")
    assert second[0] == 32 * 4


@pytest.fixture(scope="module")
def program():
    """Five layers, each a product whose sum goes over "tensor", and a mean over "data", for TPUs."""
    mesh = make_mesh({"data": 2, "tensor": 2}, topology_devices("v5e:2x2"))
    split = NamedSharding(mesh, P("data", None))
    columns = NamedSharding(mesh, P("data", "tensor"))

    def step(x, w):
        def turn(x, _):
            x = jax.lax.with_sharding_constraint(x, columns)
            return jax.lax.with_sharding_constraint(jnp.tanh(x @ w), split), None

        x, _ = jax.lax.scan(turn, x, length=5)
        return x.T @ x

    x = jax.ShapeDtypeStruct((64, 256), np.float32, sharding=split)
    w = jax.ShapeDtypeStruct((256, 256), np.float32, sharding=NamedSharding(mesh, P("tensor", None)))
    whole = NamedSharding(mesh, P())
    return Module.read(compiled(jax.jit(step, out_shardings=whole).lower(x, w), mesh).as_text())


@compiles
def test_collectives_of_a_program_for_tpus_are_those_of_its_layers(program):
    """Each of five products gives [32, 256] in float32 on a device, whose halves are added; at the end [256, 256] is
    added over "data", each half of it on its own devices, and put together."""
    found = {(one.kind, one.times, one.axes): one for one in program.collectives({"data": 2, "tensor": 2})}
    layers = found["reduce-scatter", 5, "tensor"]
    assert (layers.size, layers.sent) == (32 * 256 * 4, 16 * 256 * 4)
    end = found["all-reduce", 1, "data"]
    assert (end.size, end.sent) == (128 * 256 * 4, 128 * 256 * 4)
    whole = max((one for one in found.values() if one.kind == "all-gather"), key=lambda one: one.size)
    assert (whole.axes, whole.size, whole.sent) == ("tensor", 256 * 256 * 4, 128 * 256 * 4)
    assert {one.times for one in found.values()} == {1, 5}
    assert program.cycles() > 0
