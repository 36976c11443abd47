"""TPU slices that are not here, as devices: what they run can be compiled by the TPU's own compiler on any machine.

The compiler is in libtpu, which the extra `aot` installs. Names, hosts and shapes are those of Google Cloud's
documentation, "TPU architecture", a page a version.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError, counted

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = (
    "2x2x1",
    "2x2x2",
    "2x2x4",
    "2x4x4",
    "4x4x4",
    "4x4x8",
    "4x8x8",
    "8x8x8",
    "8x8x16",
    "8x16x16",
    "16x16x16",
)
# What keeps libtpu from asking a cloud's metadata server which TPU this machine is, and from a lock and logs in the
# temporary folder. It warns on the terminal where it finds no answer.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class Figures:
    """What one of JAX's devices has, by the data sheet; its peak of FLOP/s is in observe/device.py."""

    memory: float
    """Bytes of its main memory."""
    bandwidth: float
    """Bytes a second between that and the device."""
    links: float
    """Bytes a second that it sends to its neighbours, over all links, in one direction each."""
    clock: float
    """Cycles a second: the clock at which its units for products reach the peak (on v5e four of 128 x 128, each two
    FLOPs a cycle). Google states v4's alone (Jouppi et al. 2023, table 4), so that the others are an assumption."""


@dataclass(frozen=True)
class Version:
    """A version of TPUs."""

    shapes: tuple[str, ...]
    """The slices that there are, in chips."""
    figures: Figures
    """Those of one device: a chip, but on tpu7x half of one."""
    cores: int = 1
    """What the number in a slice's name counts, a chip: v5p-32 has 32 cores on 16 chips."""
    devices: int = 1
    """JAX's devices, a chip."""
    aliases: tuple[str, ...] = ()
    """Other names of it."""
    options: tuple[tuple[str, str], ...] = ()
    """What libtpu has to be told."""


# Memory, bandwidth and links: Google Cloud's documentation, a page a version ("bidirectional" bandwidth of links is
# halved); v4's links: Jouppi et al. 2023, six of 50 GB/s.
VERSIONS = {
    "v4": Version(
        (*CUBES[:8], "8x8x12", *CUBES[8:10]),
        Figures(32 * 2**30, 1228e9, 300e9, 1.05e9),
        2,
        options=(("chip_config_name", "megacore"),),
    ),
    "v5e": Version(FLAT, Figures(16 * 2**30, 819e9, 200e9, 1.5e9), aliases=("v5litepod", "v5lite")),
    "v5p": Version((*CUBES, "16x16x24"), Figures(95 * 2**30, 2765e9, 600e9, 1.75e9), 2, aliases=("v5",)),
    "v6e": Version(FLAT, Figures(32 * 2**30, 1638e9, 400e9, 1.75e9), aliases=("v6", "trillium")),
    "tpu7x": Version(
        CUBES, Figures(96 * 2**30, 3690e9, 300e9, 2.2e9), 2, devices=2, aliases=("v7x", "ironwood")
    ),
}
ALIASES = {alias: name for name, version in VERSIONS.items() for alias in (name, *version.aliases)}


def topology(name: str) -> tuple[str, str]:
    """A slice's version and shape, from its topology, "v5e:4x4", or from its name, "v5litepod-16", "v5p-32".

    Raises:
      UserError: there is no such slice.
    """
    found = re.fullmatch(r"([a-z]*\d+[a-z]*)(?::(\d+(?:x\d+){1,2})|-(\d{1,6}))", name.lower())
    if found is None or found[1] not in ALIASES:
        known = [*VERSIONS, *ALIASES]
        near = get_close_matches(re.split("[:-]", name.lower())[0], known, 1, 0.5) or ["v5e"]
        example = f"{ALIASES[near[0]]}:{VERSIONS[ALIASES[near[0]]].shapes[3]}"
        raise UserError(
            f"topology={name!r}: no TPU slice; expected a name such as {example}, v5e-256 or v5p-32"
        )
    version = ALIASES[found[1]]
    made = VERSIONS[version]
    shapes = {shape: chips(shape) * made.cores for shape in made.shapes}
    if found[2] in shapes:
        return version, found[2]
    if found[2] is None:
        for shape, count in shapes.items():
            if count == int(found[3]):
                return version, shape
    size = chips(found[2]) * made.cores if found[2] else int(found[3])
    near_shapes = sorted(shapes, key=lambda shape: abs(shapes[shape] - size))[:3]
    nearest = ", ".join(f"{version}:{shape} ({counted(chips(shape), 'chip')})" for shape in near_shapes)
    counts = f"a number in a name of {version} counts cores, {made.cores} a chip; " if made.cores > 1 else ""
    raise UserError(f"topology={name!r}: there is no such slice; {counts}the nearest are {nearest}")


def chips(shape: str) -> int:
    """How many chips a slice of this shape has."""
    return math.prod(map(int, shape.split("x")))


def host_shape(shape: str) -> tuple[int, int, int]:
    """The chips of one host in a slice of this shape, in rows, columns and layers."""
    return {"1x1": (1, 1, 1), "2x4": (2, 4, 1)}.get(shape, (2, 2, 1))


def topology_devices(name: str) -> Sequence[Any]:
    """The devices of a slice: programs can be compiled for them, and no array can be put there.

    Args:
      name: as in `topology`.

    Raises:
      UserError: there is no such slice, or no libtpu here that loads.
    """
    version, shape = topology(name)
    if find_spec("libtpu") is None:
        raise UserError(
            f"topology={name!r}: needs libtpu, the TPU's compiler (Linux on x86-64), which is not installed",
            'install it: pip install "jaxformer[aot]"',
        )
    quiet_libtpu()
    from jax.experimental.topologies import get_topology_desc

    sides = [int(side) for side in shape.split("x")]
    torus = [(len(sides) == 2 and sides == [16, 16]) or (len(sides) == 3 and min(sides) >= 4)] * len(sides)
    options: dict[str, Any] = dict(VERSIONS[version].options)
    options |= {"chips_per_host_bounds": host_shape(shape), "wrap": (*torus, False, False)[:3]}
    try:
        return get_topology_desc(f"{version}:{shape}", platform="tpu", **options).devices
    except Exception as error:  # of whatever kind: a library that does not load, or one of another version
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"topology={name!r}: libtpu, the TPU's compiler, does not start ({why})",
            'install it anew: pip uninstall -y libtpu; pip install "jaxformer[aot]"',
        ) from error


def quiet_libtpu() -> None:
    """Keeps libtpu from looking for a TPU, and from warning of it, where there is none; before it is loaded."""
    if not any(Path("/dev").glob("accel*")) and not any(Path("/dev/vfio").glob("[0-9]*")):
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
