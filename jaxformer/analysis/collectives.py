"""What the devices of a compiled program exchange: how many bytes, and over which axes of their mesh."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
IOTA = re.compile(r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?")
PAIRS = re.compile(r"source_target_pairs=\{(\{.*?\})\}")
EXPLICIT = re.compile(r"replica_groups=\{\{([\d,]*)\}")
NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?\)|.*?)\))? \{([^}]*)\}")
COUNTED = re.compile(r"replica_groups=(\[[\d,]+\](?:<=\[[\d,]+\])?(?:T\([\d,]+\))?)")


@dataclass(frozen=True)
class Collective:
    """Arrays that devices exchange, at one place of a program."""

    kind: str
    """One of KINDS."""
    axes: str
    """The axes of the mesh over which they are exchanged: "fsdp", "data+fsdp"."""
    size: float
    """Bytes of the whole arrays on one device: what a gather gives, what a reduction takes."""
    sent: float
    """Bytes that a device sends each time, where those of a group stand in a ring."""
    times: int
    """How often it runs in a step."""
    where: str = ""
    """The place in the model, as JAX names it."""


def collective(
    kind: str, size: float, attributes: str, mesh: Mapping[str, int], times: int, where: str = ""
) -> Collective | None:
    """A collective from its attributes; None where a device is alone in its group.

    Args:
      kind: one of KINDS.
      size: as in `Collective`.
      attributes: what XLA writes behind its operands.
      mesh: the size of each axis, in the order of the program's devices.
      times: how often it runs in a step.
      where: the place in the model.
    """
    group = first_group(attributes, int(np.prod(list(mesh.values()))))
    places = np.unravel_index(np.asarray(group), tuple(mesh.values()))
    axes = "+".join(name for name, along in zip(mesh, places) if len(set(along.tolist())) > 1)
    if not axes:
        return None
    share = (len(group) - 1) / len(group)
    factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share)
    return Collective(kind, axes, size, size * factor, times, where)


def first_group(attributes: str, devices: int) -> list[int]:
    """The devices of the first group; of a permutation the first pair of two devices."""
    if pairs := PAIRS.search(attributes):
        moves = [numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", pairs[1])]
        return next((pair for pair in moves if pair[0] != pair[1]), moves[0])
    if explicit := EXPLICIT.search(attributes):
        return numbers(explicit[1])
    if named := NAMED.search(attributes):
        return group_of_axes(named[1], named[2], named[3], devices)
    if counted := COUNTED.search(attributes):
        return [int(number) for number in in_order(counted[1])[0]]
    return list(range(devices))


def numbers(text: str) -> list[int]:
    """The numbers of "0,2,4"."""
    return [int(number) for number in text.split(",") if number]


def in_order(text: str) -> np.ndarray:
    """Devices as XLA's "[4,2]<=[2,2,2]T(1,0,2)" has them: counted in the second shape, turned, and in the first.

    "[4,2]T(1,0)" has no shape of its own for the result.
    """
    found = IOTA.match(text)
    assert found is not None
    shape, counted, turned = (numbers(part or "") for part in found.groups())
    order = np.arange(np.prod(shape)).reshape(counted or shape)
    order = order.transpose(turned) if turned else order
    return order.reshape(shape) if counted else order


def group_of_axes(axes: str, order: str | None, chosen: str, devices: int) -> list[int]:
    """The first group along some axes of a mesh of XLA's own.

    Args:
      axes: its sizes, "'axis_0'=2,'axis_1'=4".
      order: its devices, as `in_order` takes them; None: counted.
      chosen: the axes of a group, "'axis_0'", or parts of one: "'axis_1':(2)2" is the 2 behind the first 2.
      devices: how many there are.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    listed = in_order(order).reshape(-1) if order else np.arange(devices)
    picked = {name: np.zeros(1, int) for name in sizes}
    for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen):
        size = int(part or sizes[name])
        picked[name] = np.arange(size) * (sizes[name] // (int(before) * size) if part else 1)
    grid = listed.reshape(list(sizes.values()))
    return [int(number) for number in grid[np.ix_(*picked.values())].reshape(-1)]
