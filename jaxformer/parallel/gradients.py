"""How gradients of parameters that "fsdp" splits are added up: every device gets its part of the sum, in float32.

Where nothing says so, XLA adds up whole gradients on every device (all-reduce) and cuts its part out of them: twice the
bytes. So models hold each parameter's gradient to the parameter's sharding where a layer makes it
(`models/placement.py`). The TPU's compiler scatters a sum over the devices of one row of a slice; over several rows it
adds up the whole. There the sum is made in two steps: over the rows, then in each row.

Sums stay in float32, in which products add up: in bfloat16 they would be half the bytes, but each of hundreds of
devices' additions would round to 8 bits, and a training's course would depend on how many devices there are. (PyTorch's
torchtitan and Megatron-LM reduce in float32 by default, too.)
"""

from collections.abc import Sequence
from typing import Any

from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxformer.paths import leaves_by_path

Tree = Any
AXIS = "fsdp"
FEW = 8  # devices over which the compiler scatters a sum though they are in several rows (seen of v5e:2x2 and 2x4)


def gradient_shardings(params: Tree) -> dict[str, tuple[NamedSharding, ...]]:
    """The shardings that each parameter's gradient takes, one after the other, by the parameter's path.

    Parameters that "fsdp" does not split are left out, and so are those whose gradients are no products, such as
    tables: held so, the sum of a table's gradient took more bytes.

    Args:
      params: a tree of shapes with shardings on one mesh.
    """
    leaves = {path: leaf.sharding for path, leaf in leaves_by_path(params).items()}
    split = {path: lies for path, lies in leaves.items() if path.endswith("kernel") and AXIS in lies.spec}
    if not split:
        return {}
    mesh = next(iter(split.values())).mesh
    rows = mesh_of_rows(mesh)
    return {path: (*over_rows(lies, rows), lies) for path, lies in split.items()}


def over_rows(lies: NamedSharding, rows: Mesh | None) -> tuple[NamedSharding, ...]:
    """The sharding over the rows alone, if there are several."""
    if rows is None:
        return ()
    spec = [f"{AXIS}_rows" if axis == AXIS else axis for axis in lies.spec]
    return (NamedSharding(rows, PartitionSpec(*spec)),)


def mesh_of_rows(mesh: Mesh) -> Mesh | None:
    """The same mesh with two axes in the place of "fsdp": rows, and devices in a row. None where one
    step is enough."""
    if mesh.devices.flat[0].platform != "tpu":
        return None
    place = mesh.axis_names.index(AXIS)
    along = mesh.devices.swapaxes(0, place).reshape(mesh.shape[AXIS], -1)[:, 0]
    in_row = row_length([device.coords for device in along])
    if len(along) <= FEW or in_row in (1, len(along)):
        return None
    sizes = list(mesh.devices.shape)
    sizes[place : place + 1] = [len(along) // in_row, in_row]
    names = [*mesh.axis_names[:place], f"{AXIS}_rows", f"{AXIS}_in_row", *mesh.axis_names[place + 1 :]]
    return Mesh(mesh.devices.reshape(sizes), names, axis_types=(AxisType.Auto,) * len(names))


def row_length(coordinates: Sequence[Sequence[int]]) -> int:
    """How many of the first devices lie in one row of the slice; 1 if they are not in equal rows.

    Args:
      coordinates: of the devices along an axis of the mesh, in order.
    """
    moved = [{i for i, (a, b) in enumerate(zip(coordinates[0], one)) if a != b} for one in coordinates]
    dimension = moved[1] if len(moved) > 1 else set()
    length = next((i for i, dims in enumerate(moved) if dims - dimension), len(moved))
    return length if len(dimension) == 1 and len(moved) % length == 0 else 1
