"""Slices of TPUs, as the places that have them name and divide them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from jaxformer.errors import UserError
from jaxformer.launching import HOST
from jaxformer.parallel.topologies import VERSIONS, chips, host_shape, topology

# Lines of bash for a TPU VM that set HOST to its number in the slice, which its metadata has; JAX asks there, too.
ATTRIBUTE = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number"
NUMBER_OF_HOST = f"{HOST}=$(curl -fsS -H 'Metadata-Flavor: Google' {ATTRIBUTE})\nexport {HOST}\n"


@dataclass(frozen=True)
class TpuSlice:
    """A slice by its name."""

    name: str
    """As `parallel.topologies.topology` takes it: "v5e:4x4", "v5litepod-16", "v5p-32"."""

    @cached_property
    def version(self) -> str:
        """The version of TPUs: "v5e"."""
        return topology(self.name)[0]

    @cached_property
    def shape(self) -> str:
        """Its chips in rows, columns and layers: "4x4"."""
        return topology(self.name)[1]

    @property
    def chips_of_a_host(self) -> int:
        """How many chips a host has."""
        return math.prod(host_shape(self.shape))

    @property
    def hosts(self) -> int:
        """How many hosts it has."""
        return chips(self.shape) // self.chips_of_a_host

    @property
    def devices(self) -> int:
        """How many devices JAX shows of it."""
        return chips(self.shape) * VERSIONS[self.version].devices

    @property
    def accelerator_type(self) -> str:
        """What Google Cloud calls it as TPU VMs: "v5litepod-16", "v5p-32"."""
        count = chips(self.shape) * VERSIONS[self.version].cores
        return f"{'v5litepod' if self.version == 'v5e' else self.version}-{count}"


def unknown_slice(field: str, given: str, prefix: str = "") -> Iterator[str]:
    """Yields why a field's value, which begins with a prefix of the field's, is no slice."""
    name = given.removeprefix(prefix)
    try:
        topology(name)
    except UserError as error:
        yield from (line.replace(f"topology={name!r}", f"{field}={given!r}") for line in error.lines)
