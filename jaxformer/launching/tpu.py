"""Slices of TPU VMs, by Google Cloud's own program.

What runs here and on the hosts are the scripts beside this file; this file makes their settings. Commands and states
are those of `gcloud compute tpus` (Google Cloud SDK 528), https://cloud.google.com/sdk/gcloud/reference/compute/tpus.
"""

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from jaxformer.config.fields import PositiveInt
from jaxformer.errors import UserError
from jaxformer.launching.base import Job, Launcher, Plan, Word, assigned, exported, flags, launched, matching
from jaxformer.launching.slices import NUMBER_OF_HOST, TpuSlice, unknown_slice

HERE = Path(__file__).parent
# The software of a VM, https://cloud.google.com/tpu/docs/runtimes; tpu7x is not served by this interface.
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
ZONE = matching("[a-z]+-[a-z]+[0-9]+-[a-z]", "a zone, such as us-central2-b")
PROJECT = matching(
    "([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "the identifier of a project, such as my-project-123"
)
DURATION = matching("[1-9][0-9]*[smhd]", "a number and s, m, h or d, as in 6h")


@dataclass(frozen=True, kw_only=True)
class Tpu(Launcher):
    """Launch on a slice of TPU VMs, which is created, or taken up again, and deleted afterwards."""

    program: ClassVar[str] = "gcloud"
    remedy: ClassVar[str] = "install the Google Cloud SDK, https://cloud.google.com/sdk"
    copies_checkout: ClassVar[bool] = True

    type: Word
    """The slice: v5litepod-16, v5e:4x4, v6e-8, v5p-32."""
    zone: Annotated[str, ZONE]
    """The zone of Google Cloud that has such slices."""
    project: Annotated[str, PROJECT] | None = None
    """The project that pays (default: gcloud's)."""
    spot: bool = False
    """Take cheaper capacity, which can be taken away at any moment; the slice is then made anew."""
    queued: bool = False
    """Wait in the queue until there is capacity, in the place of failing."""
    valid_until_duration: Annotated[str, DURATION] | None = None
    """How long to wait in the queue, as in 6h."""
    runtime_version: str | None = None
    """The software of the VMs (default: that for the slice)."""
    network: str | None = None
    """The network of the VMs."""
    subnetwork: str | None = None
    """The part of the network."""
    service_account: str | None = None
    """The account that the VMs act as."""
    setup: str | None = None
    """A command that every host runs before training: to mount a folder that all see, to log in."""
    keep: bool = False
    """Leave the slice there afterwards; it costs until it is deleted."""
    no_preflight: bool = False
    """Leave out compiling for the slice beforehand, which is done where libtpu is installed."""
    pause: PositiveInt = 20
    """Seconds between two questions how the slice is."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if unknown := list(unknown_slice("type", self.type)):
            yield from unknown
        elif TpuSlice(self.type).version not in RUNTIMES:
            yield f"type={self.type!r}: is not served as TPU VMs; launch it on Kubernetes"
        if self.valid_until_duration is not None and not self.queued:
            yield "valid_until_duration: is for the queue; give `queued`, too"
        yield from super().problems()

    def devices(self) -> int:
        return TpuSlice(self.type).devices

    def render(self, job: Job) -> Plan:
        """A script with its settings, and what goes to the hosts.

        Raises:
          UserError: there is no checkout to copy, or the hosts would not share the folder of the run.
        """
        if job.checkout is None:
            raise UserError(
                "tpu: copies the code from a git checkout, and this is none; launch from the top of a clone"
            )
        made = TpuSlice(self.type)
        if made.hosts > 1 and not posixpath.isabs(job.workdir):
            raise UserError(
                f"workdir={job.workdir!r}: would lie on each host's own disk, and {made.hosts} hosts write one run",
                "name a folder that all hosts see, such as one that `setup` mounts",
            )
        folder, there = launched(job.name), f"jaxformer-{job.name}"
        number = NUMBER_OF_HOST if made.hosts > 1 else ""
        settings = exported(self.variables()) + number + (self.setup or "")
        revision = job.checkout.revision
        identity = hashlib.sha256(repr((self.supervised(job), revision, settings)).encode()).hexdigest()[:12]
        on_hosts = assigned(job=identity, revision=revision, command=self.supervised(job))
        on_hosts += f"# shellcheck disable=SC2016 # expanded when the job starts\n{assigned(setup=settings)}"
        here = assigned(
            name=job.name,
            job=identity,
            zone=self.zone,
            project=self.project,
            type=made.accelerator_type,
            version=self.runtime_version or RUNTIMES[made.version],
            queued=int(self.queued) or None,
            options=flags(
                spot=self.spot,
                valid_until_duration=self.valid_until_duration,
                network=self.network,
                subnetwork=self.subnetwork,
                service_account=self.service_account,
            ),
            hosts=made.hosts,
            preflight=(*job.preflight, *flags(topology=self.type))
            if job.preflight and not self.no_preflight
            else (),
            folder=folder,
            there=there,
            workdir=job.workdir,
            remote=posixpath.join(there, "code", job.workdir),  # an absolute folder stays itself
            fetched=job.workdir
            if not posixpath.isabs(job.workdir)
            else f"runs/{posixpath.basename(job.workdir)}",
            keep=int(self.keep) or None,
            pause=self.pause,
        )
        head = "#!/usr/bin/env bash\nset -euo pipefail\n"
        files = {
            f"{folder}/launch.sh": head + here + "\n" + (HERE / "tpu.sh").read_text(),
            f"{folder}/worker.sh": head + on_hosts + "\n" + (HERE / "tpu_worker.sh").read_text(),
        }
        return Plan(files, (("bash", f"{folder}/launch.sh"),))
