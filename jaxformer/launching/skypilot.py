"""SkyPilot: a managed job on whatever cloud has the machines.

The task's fields and variables: https://docs.skypilot.co/en/latest/reference/yaml-spec.html; its schema is
sky/utils/schemas.py in github.com/skypilot-org/skypilot.
"""

import posixpath
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.errors import UserError
from jaxformer.launching.base import (
    PORT,
    Job,
    Launcher,
    Plan,
    Word,
    exported,
    flags,
    launched,
    matching,
    to_yaml,
)
from jaxformer.launching.slices import NUMBER_OF_HOST, TpuSlice, unknown_slice
from jaxformer.launching.tpu import RUNTIMES

MOUNT = "/checkpoints"
SLICES = "tpu-"  # what names of slices begin with
APPENDS = "gs://"
SAVED = 75  # the exit code after which the same command goes on
BUCKET = matching(r"(gs|s3|r2|cos|oci|nebius|https)://\w[\w./-]*", "a bucket's address, as in gs://my-bucket")
ACCELERATORS = matching(
    r"[A-Za-z][\w.-]*(:[1-9]\d*)?", "NAME or NAME:COUNT, as in H100:8 or tpu-v5litepod-16"
)


@dataclass(frozen=True, kw_only=True)
class SkyPilot(Launcher):
    """Launch as a managed job of SkyPilot, which looks for machines, and for others when these are taken away."""

    program: ClassVar[str] = "sky"
    remedy: ClassVar[str] = 'install it: pip install "skypilot[gcp]", or another cloud'

    accelerators: Annotated[str, ACCELERATORS]
    """What each machine has: H100:8; or a slice of TPUs: tpu-v5litepod-16."""
    bucket: Annotated[str, BUCKET]
    """The bucket that keeps the run, gs://my-bucket; it lies at /checkpoints."""
    infra: Word | None = None
    """The cloud, and its region and zone: gcp/us-central2 (default: wherever it is cheapest)."""
    nodes: PositiveInt = 1
    """How many machines; of TPUs, how many slices."""
    spot: bool = False
    """Take cheaper machines, which can be taken away at any moment."""
    restarts: NonNegativeInt = 3
    """How often the job is started anew after an error of its own."""
    setup: str | None = None
    """A command that every machine runs once, after what jaxformer needs is installed."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if (made := self.slice()) is not None:
            unknown = list(unknown_slice("accelerators", SLICES + made.name, SLICES))
            yield from unknown
            if self.nodes > 1:
                yield "nodes: slices that train together are launched on Kubernetes; leave it out"
            if not unknown and made.version not in RUNTIMES:
                yield f"accelerators={self.accelerators!r}: is not served as TPU VMs; launch it on Kubernetes"
            if unknown:
                return
        if self.processes() > 1 and not self.bucket.startswith(APPENDS):
            said = "several machines write to one folder, and of mounted buckets only Google's can be appended to"
            yield f"bucket={self.bucket!r}: {said}; give one of {APPENDS}"
        yield from super().problems()

    def slice(self) -> TpuSlice | None:
        """The slice of TPUs; None if these are others."""
        name = self.accelerators.partition(":")[0]
        return TpuSlice(name.removeprefix(SLICES)) if name.startswith(SLICES) else None

    def folder(self, name: str) -> str:
        return posixpath.join(MOUNT, name)

    def processes(self) -> int:
        """How many machines there are, each with a process."""
        made = self.slice()
        return self.nodes if made is None else made.hosts

    def devices(self) -> int:
        made = self.slice()
        return self.nodes * int(self.accelerators.partition(":")[2] or 1) if made is None else made.devices

    def render(self, job: Job) -> Plan:
        """A task and the command that launches it.

        Raises:
          UserError: the folder of the run is not in the bucket, and would be lost with the machines.
        """
        if not job.workdir.startswith(f"{MOUNT}/"):
            raise UserError(
                f"workdir={job.workdir!r}: is not in the bucket, and would be lost with the machines",
                f"name a folder in {MOUNT}",
            )
        made, mode = self.slice(), "MOUNT" if self.processes() > 1 else "MOUNT_CACHED"
        recovery = {"max_restarts_on_errors": self.restarts, "recover_on_exit_codes": [SAVED]}
        resources = {
            **({"infra": self.infra} if self.infra else {}),
            "accelerators": self.accelerators,
            **({"accelerator_args": {"runtime_version": RUNTIMES[made.version]}} if made else {}),
            "use_spot": self.spot,
            "job_recovery": {"strategy": "EAGER_NEXT_REGION", **recovery},
        }
        revision = {"JAXFORMER_REVISION": job.checkout.revision} if job.checkout else {}
        task = {
            "name": job.name,
            "resources": resources,
            "num_nodes": self.nodes,
            "workdir": ".",
            "file_mounts": {MOUNT: {"source": self.bucket, "mode": mode}},
            "envs": {**revision, **self.variables()},
            "setup": self.installing(made),
            "run": self.running(job),
        }
        path = launched(job.name, "task.yaml")
        return Plan(
            {path: to_yaml(task)}, (("sky", "jobs", "launch", *flags(name=job.name, yes=True), path),)
        )

    def installing(self, made: TpuSlice | None) -> str:
        """What every machine runs once."""
        extras = exported({"JAXFORMER_EXTRAS": "tpu"}) if made else ""
        return f"set -e\n{extras}. launch/environment.sh\nensure_environment\n" + (
            f"{self.setup}\n" if self.setup else ""
        )

    def running(self, job: Job) -> str:
        """What every machine runs. The hosts of a slice find each other; machines with GPUs are told of the first."""
        words, made = shlex.join(self.supervised(job)), self.slice()
        gathering = (
            f'JAXFORMER_COORDINATOR="$(head -n 1 <<<"$SKYPILOT_NODE_IPS"):{PORT}"\n'
            "JAXFORMER_PROCESSES=$SKYPILOT_NUM_NODES\n"
            "JAXFORMER_PROCESS=$SKYPILOT_NODE_RANK\n"
            "export JAXFORMER_COORDINATOR JAXFORMER_PROCESSES JAXFORMER_PROCESS\n"
        )
        if made is not None:
            gathering = NUMBER_OF_HOST
        several = gathering if self.processes() > 1 else ""
        return f'export PATH="$PWD/.venv/bin:$PATH"\n{several}exec {words}\n'
