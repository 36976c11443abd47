"""Slices of TPUs that are not here: names, meshes, and what their compiler says."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.stepping import State

from jaxformer import cli
from jaxformer.analysis import describe
from jaxformer.analysis.memory import memory_errors_explained
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.parallel import topologies
from jaxformer.parallel.compile import Layout, compiled
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.topologies import VERSIONS, chips, topology, topology_devices

compiles = pytest.mark.skipif(
    topologies.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is not installed"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The cache of the tests."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("v5e:4x4", ("v5e", "4x4")),
        ("v5litepod-16", ("v5e", "4x4")),
        ("v5e-256", ("v5e", "16x16")),
        ("V6E-8", ("v6e", "2x4")),
        ("v5p-32", ("v5p", "2x2x4")),  # cores
        ("v4-8", ("v4", "2x2x1")),
        ("v5p:16x16x24", ("v5p", "16x16x24")),
    ],
)
def test_names_are_those_of_the_cloud(name, found):
    assert topology(name) == found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5e-17", "the nearest are v5e:4x4 (16 chips)"),
        ("v5e:3x3", "the nearest are v5e:2x4 (8 chips)"),
        ("v5p-2", "counts cores, 2 a chip; the nearest are v5p:2x2x1 (4 chips)"),
        (
            "v7x-4",
            "a number in a name of tpu7x counts cores, 2 a chip; the nearest are tpu7x:2x2x1 (4 chips)",
        ),
        ("v5r-8", "no TPU slice; expected a name such as v5"),
        ("h100-8", "no TPU slice"),
        ("v5e", "no TPU slice"),
        ("v5e:0x4", "there is no such slice; the nearest are v5e:1x1 (1 chip), v5e:2x2 (4 chips)"),
        ("v5litepod-0", "the nearest are v5e:1x1 (1 chip)"),
        ("v6-x", "expected a name such as v6e:4x4"),
        ("", "no TPU slice"),
    ],
)
def test_other_names_are_refused(name, says):
    with pytest.raises(UserError, match="topology=") as error:
        topology(name)
    assert says in str(error.value)


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(topologies, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        topology_devices("v5e:2x2")
    assert error.value.lines[1] == 'install it: pip install "jaxformer[aot]"'


@compiles
def test_a_compiler_that_does_not_start_is_told_in_two_lines(monkeypatch):
    def damaged(*_, **__):
        raise OSError("libtpu.so: file too short")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", damaged)
    with pytest.raises(UserError) as error:
        topology_devices("v5e:2x2")
    first, second = error.value.lines
    assert "does not start (libtpu.so: file too short)" in first
    assert second.startswith("install it anew: ")


@compiles
@pytest.mark.parametrize(
    ("version", "shape"), [(v, s) for v, made in VERSIONS.items() for s in made.shapes[:5]]
)
def test_every_slice_has_its_chips(version, shape):
    devices = topology_devices(f"{version}:{shape}")
    each = 2 if version == "tpu7x" else 1  # devices a chip
    assert len(devices) == chips(shape) * each
    hosts = {device.process_index for device in devices}
    assert len(hosts) == max(1, chips(shape) // 4) or shape == "2x4"


@compiles
def test_a_mesh_must_make_up_the_slice(capsys):
    assert cli.main(["describe", "--preset", "vit-ti16", "--topology", "v5e:4x4", "--mesh", "data=8"]) == 2
    assert "does not make up the 16 devices" in capsys.readouterr().err


@compiles
def test_a_program_is_compiled_for_the_slice():
    layout = Layout("jit", make_mesh({"data": 2, "tensor": 2}, topology_devices("v5e:2x2")))
    rows = jax.ShapeDtypeStruct((8, 128), np.float32, sharding=layout.batch_sharding)
    program = compiled(jax.jit(lambda x: x @ x.T, out_shardings=layout.replicated).lower(rows), layout.mesh)
    assert "all-gather" in program.as_text()
    assert program.memory_analysis().argument_size_in_bytes == 4 * 128 * 4


@compiles
def test_a_value_that_an_option_of_the_compiler_does_not_take_is_named():
    options = {"xla_tpu_scoped_vmem_limit_kib": "abc"}
    layout = Layout("jit", make_mesh({"data": 4}, topology_devices("v5e:2x2")), options)
    state = State(jax.ShapeDtypeStruct((8,), np.float32, sharding=layout.replicated))
    batch = jax.ShapeDtypeStruct((8,), np.float32, sharding=layout.batch_sharding)
    step = layout.train_step(lambda state, batch: (State(state.params + batch), {}), state)
    lowered = step.lower(state, batch)
    says = "parallel.compiler_options: Failed to parse 'abc' into flag xla_tpu_scoped_vmem_limit_kib; "
    with pytest.raises(UserError, match=says), memory_errors_explained(SimpleNamespace()):
        compiled(lowered, layout.mesh)


@compiles
def test_what_does_not_fit_is_refused_with_the_remedies(capsys):
    """By the TPU's own compiler: 16 GiB a chip."""
    words = ["describe", "--preset", "vit-b16", "--topology", "v5e:2x2"]
    words += ["--config.model.depth=2", "--config.data.batch_size=32768"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "out of memory" in said
    assert "a smaller data.batch_size than 32768" in said


SMALL = {"model.depth": 1, "model.width": 128, "model.num_heads": 2, "model.vocab_size": 512}


@compiles
@pytest.mark.parametrize(
    ("mesh", "line"),
    [
        pytest.param({"data": 4}, "short", marks=pytest.mark.slow),
        ({"data": 2, "sequence": 2}, "splash (not short: a causal or local text in parts)"),
    ],
    ids=str,
)
def test_a_description_names_the_attention_of_the_slice(monkeypatch, mesh, line):
    """What is traced decides; it is not compiled here."""
    memory = SimpleNamespace(temp_size_in_bytes=0)
    monkeypatch.setattr(
        describe, "compiled", lambda *program: SimpleNamespace(memory_analysis=lambda: memory)
    )
    config = resolve(configfile.read("gpt2_124m", {**SMALL, "data.batch_size": 4, "parallel.mesh": mesh}))
    first, second = (
        describe.assemble(config, topology_devices("v5e:2x2")) for _ in range(2)
    )  # each is traced once
    assert describe.footprint(first).attention == (line,)
    assert f"attention                 {line}" in describe.describe(second)
