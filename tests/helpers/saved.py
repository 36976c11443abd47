"""Small checkpoints, and ways to compare and to damage them."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

ADAM = optax.adam(1e-3)


def sharding(devices, *spec):
    mesh = jax.make_mesh((devices,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec(*spec))


def make_items(step, devices=8, optimizer=ADAM, **more_params):
    """A small state whose numbers tell its step, with a matrix sharded over the devices."""
    kernel = jnp.arange(64 * 16, dtype=jnp.float32).reshape(64, 16) + step
    params = {"dense": {"kernel": kernel, "bias": jnp.full((16,), step, jnp.bfloat16)}, **more_params}
    params = jax.tree.map(
        lambda leaf: jax.device_put(leaf, sharding(devices, *(("fsdp",) if leaf.ndim == 2 else ()))), params
    )
    return {
        "params": {"params": params, "model_state": {}, "ema": None},
        "optimizer": {"step": jnp.int32(step), "opt_state": optimizer.init(params), "loss_scale": None},
    }


def targets_of(items):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), items)


def save(checkpoints, step, metric=None, items=None):
    metrics = None if metric is None else {"accuracy": metric, "loss": 1.0}
    assert checkpoints.save(step, items or make_items(step), {"seed": 7}, metrics)
    checkpoints.wait()


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def data_file(folder: Path) -> Path:
    """The largest file of an item: its arrays."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def arrays_of(step: Path) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by item and path, without asking the model what it expects."""
    one, found = jax.sharding.SingleDeviceSharding(jax.devices()[0]), {}
    with ocp.StandardCheckpointer() as reader:
        for item in ("params", "optimizer"):
            shapes = reader.metadata(step / item).item_metadata.tree
            target = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), shapes
            )
            named = jax.tree_util.tree_flatten_with_path(reader.restore(step / item, target))[0]
            found |= {f"{item}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in named}
    return found
