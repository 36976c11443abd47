"""Running out of memory: a message with remedies, and a folder that the corrected experiment may take."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.stepping import State

from jaxformer import cli
from jaxformer.analysis.memory import memory_errors_explained, size_asked
from jaxformer.errors import UserError
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.train import Loop

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:64]",
    "train.total": "2 steps",
    "schedule": {"name": "constant"},
}


@pytest.fixture(autouse=True)
def environment(digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    for name in ("write_shown", "write_report"):
        monkeypatch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)


def trained(folder, **changes):
    overrides = [f"--config.{key}={value}" for key, value in {**TINY, **changes}.items()]
    return cli.main(["train", "--config", CONFIG, "--run", str(folder), *overrides])


def too_large(*_):
    """40 TB: XLA's own error."""
    return jnp.zeros((10**7, 10**6), jnp.float32).block_until_ready()


def test_running_out_of_memory_names_what_was_asked_for_and_remedies(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Loop, "run", too_large)
    assert trained(tmp_path) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxformer: ")]
    assert len(lines) == 2
    assert "out of memory: 36.4 TiB did not fit" in lines[0]  # 4e13 / 2**40
    for remedy in (
        "data.batch_size than 16",
        "data.eval_batch_size",
        "train.accumulate than 1",
        'model.remat="full"',
        'precision="bfloat16"',
        "parallel.mesh.fsdp than 1",
    ):
        assert remedy in lines[1]


def test_what_is_done_already_is_no_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Loop, "run", too_large)
    done = {"model.remat": "full", "precision": "bfloat16", "parallel.mesh": {"fsdp": -1}}
    assert trained(tmp_path, **done) == 2
    message = capsys.readouterr().err
    assert "data.batch_size than 16" in message
    for remedy in ("model.remat", "precision=", "parallel.mesh"):
        assert remedy not in message


def test_the_corrected_experiment_takes_the_folder(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run", too_large)
        assert trained(tmp_path) == 2
    assert trained(tmp_path, **{"data.batch_size": 8, "train.log_every": "1 step"}) == 0
    assert json.loads((tmp_path / "config.json").read_text())["config"]["data"]["batch_size"] == 8
    capsys.readouterr()
    assert trained(tmp_path, **{"data.batch_size": 32}) == 2  # now it holds a run
    assert "holds another experiment: data.batch_size: 8 -> 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("metrics.jsonl", "is no run's folder, and holds other files, such as 'metrics.jsonl'"),
        *(
            (name, "and no config.json")
            for name in ("result.json", "checkpoints/1/x", "checkpoints/1.corrupt/x")
        ),
    ],
)
def test_a_folder_with_anything_in_it_is_not_taken(left, said, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run", too_large)
        assert trained(tmp_path) == 2
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("{}\n")
    capsys.readouterr()
    assert trained(tmp_path, **{"data.batch_size": 8}) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / left).read_text() == "{}\n"


def test_other_errors_of_xlas_pass(tmp_path, monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(Loop, "run", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        trained(tmp_path)


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating 40000000000000 bytes.", 4e13),
        (
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 6291456 bytes.\nBufferAssignment",
            6 * 2**20,
        ),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.50GiB.", 1.5 * 2**30),
        ("RESOURCE_EXHAUSTED: Attempting to reserve 6.5G at the bottom of memory.", 6.5 * 2**30),
        ("RESOURCE_EXHAUSTED: too many things", None),
    ],
)
def test_sizes_are_read_as_the_backends_write_them(message, size):
    """CPU; GPU, before and after sizes were made readable; TPU."""
    assert size_asked(message) == size


@pytest.mark.parametrize(("classes", "said"), [(10, False), (12, True)])
def test_spare_classes_are_said_at_the_start(classes, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Loop, "run", too_large)
    assert trained(tmp_path, **{"model.num_classes": classes}) == 2
    line = f"model.num_classes={classes}: the dataset has 10 classes; the model's others have no example"
    assert (line in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"xla_no_such_thing": True}, "No such compile option: 'xla_no_such_thing'"),
        (
            {"xla_embed_ir_in_executable": "perhaps"},
            "xla_embed_ir_in_executable, 'perhaps' is not a valid bool",
        ),
        ({"xla_embed_ir_in_executable": True}, None),
    ],
)
def test_the_compilers_options_reach_it_and_its_complaints_name_the_field(options, said):
    layout = Layout("jit", make_mesh({"data": -1}), options)
    state = State(jax.ShapeDtypeStruct((8,), jnp.float32, sharding=layout.replicated))
    batch = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=layout.batch_sharding)
    step = layout.train_step(lambda state, batch: (State(state.params + jnp.sum(batch)), {}), state)
    lowered = step.lower(state, batch)
    if said is None:
        lowered.compile()
        return
    with (
        pytest.raises(UserError, match=r"parallel\.compiler_options") as raised,
        memory_errors_explained(None),
    ):
        lowered.compile()
    assert said in str(raised.value)
