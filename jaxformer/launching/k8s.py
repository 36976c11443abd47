"""Kubernetes: a JobSet on TPUs of GKE, or on machines with GPUs.

JobSet: https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/; labels of GKE's TPUs:
https://cloud.google.com/kubernetes-engine/docs/how-to/tpus.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.errors import UserError
from jaxformer.launching import HOST
from jaxformer.launching.base import (
    PORT,
    Job,
    Label,
    Launcher,
    Plan,
    Word,
    flags,
    launched,
    matching,
    to_yaml,
)
from jaxformer.launching.slices import TpuSlice, unknown_slice

ACCELERATORS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}
FINAL = [
    1,
    2,
]  # exit codes that starting again does not mend: the supervisor has tried that, or it is a mistake
WORKERS = "workers"
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
SLICE = "metadata.labels['jobset.sigs.k8s.io/job-index']"
VOLUME = matching(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?:/[\w./-]+", "CLAIM:/FOLDER, as in runs:/runs")


@dataclass(frozen=True, kw_only=True)
class Kubernetes(Launcher):
    """Launch as a JobSet on Kubernetes, on slices of TPUs (GKE) or on machines with GPUs."""

    program: ClassVar[str] = "kubectl"
    remedy: ClassVar[str] = "install it, https://kubernetes.io/docs/tasks/tools"

    image: Word
    """The container image: jaxformer with the extra tpu or cuda13, and the configs, in its working directory."""
    volume: Annotated[str, VOLUME]
    """The claim of a volume that all pods write, and where it lies in them: runs:/runs. The run's folder is in it."""
    slice: Word | None = None
    """The slice of TPUs: v5litepod-16, v5e:4x4, v6e-8, v5p-32."""
    slices: PositiveInt = 1
    """How many slices train together."""
    gpus: PositiveInt | None = None
    """GPUs of each machine, in the place of a slice."""
    nodes: PositiveInt = 1
    """How many machines with GPUs."""
    spot: bool = False
    """Take GKE's cheaper machines, which can be taken away at any moment."""
    namespace: Label | None = None
    """The namespace."""
    queue: Label | None = None
    """Kueue's queue."""
    service_account: Label | None = None
    """The account that the pods act as."""
    restarts: NonNegativeInt = 50
    """How often all pods are started anew when one has failed."""
    grace: PositiveInt = 120
    """Seconds between SIGTERM and the end, in which training saves."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if (self.slice is None) == (self.gpus is None):
            yield "slice: give one of `slice` and `gpus`"
        elif self.slice is not None:
            yield from unknown_slice("slice", self.slice)
        if self.slice is not None and self.nodes > 1:
            yield "nodes: follow from the slice; leave it out"
        if self.slice is None and self.slices > 1:
            yield "slices: are of TPUs; give `nodes`"
        yield from super().problems()

    def folder(self, name: str) -> str:
        return posixpath.join(self.volume.partition(":")[2], name)

    def pods(self) -> int:
        """Pods of each slice, or of all machines with GPUs."""
        return self.nodes if self.slice is None else TpuSlice(self.slice).hosts

    def devices(self) -> int:
        if self.slice is None:
            return self.nodes * (self.gpus or 1)
        return self.slices * TpuSlice(self.slice).devices

    def render(self, job: Job) -> Plan:
        """A manifest and the command that applies it.

        Raises:
          UserError: the folder of the run is not on the volume, and would be lost with the pods.
        """
        mount = self.volume.partition(":")[2]
        if not posixpath.normpath(job.workdir).startswith(posixpath.join(mount, "")):
            raise UserError(
                f"workdir={job.workdir!r}: is not on the volume, and would be lost with the pods",
                f"name a folder in {mount}",
            )
        path = launched(job.name, "jobset.yaml")
        return Plan({path: to_yaml(self.job_set(job))}, (("kubectl", "apply", *flags(filename=path)),))

    def job_set(self, job: Job) -> dict[str, Any]:
        """The whole manifest."""
        labels = {"kueue.x-k8s.io/queue-name": self.queue} if self.queue else {}
        # A slice is a pool of nodes: its pods go to one pool, and no others to that.
        exclusive = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": without_empty(
                name=job.name,
                namespace=self.namespace,
                labels=labels,
                annotations=exclusive if self.slice else {},
            ),
            "spec": {
                "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
                "failurePolicy": {
                    "maxRestarts": self.restarts,
                    "restartStrategy": "BlockingRecreate",
                    "rules": [
                        {
                            "name": "final",
                            "action": "FailJobSet",
                            "onJobFailureReasons": ["PodFailurePolicy"],
                        }
                    ],
                },
                "replicatedJobs": [
                    {"name": WORKERS, "replicas": self.slices, "template": {"spec": self.host_job(job)}},
                ],
            },
        }

    def host_job(self, job: Job) -> dict[str, Any]:
        """The Kubernetes Job of a slice, or of all machines with GPUs: a pod each host."""
        final = {"containerName": WORKERS, "operator": "In", "values": FINAL}
        rule = {
            "action": "FailJob",
            "onExitCodes": final,
            "onPodConditions": [],
        }  # older servers want both
        return {
            "completionMode": "Indexed",
            "parallelism": self.pods(),
            "completions": self.pods(),
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [rule]},
            "template": {"spec": self.pod(job)},
        }

    def pod(self, job: Job) -> dict[str, Any]:
        """A pod: one container with all of its machine's chips."""
        claim, _, mount = self.volume.partition(":")
        container = {
            "name": WORKERS,
            "image": self.image,
            "command": [unexpanded(word) for word in self.supervised(job)],
            "env": self.variables_of_pods(job),
            "resources": {"limits": self.of_machine()},
            "volumeMounts": [{"name": "runs", "mountPath": mount}, {"name": "shm", "mountPath": "/dev/shm"}],
        }
        on_tpu = {
            # libtpu speaks to the other hosts by the addresses of the machines, and maps the chips' memory
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
        }
        if self.slice:
            container["securityContext"] = {"privileged": True}
        return without_empty(
            restartPolicy="Never",
            terminationGracePeriodSeconds=self.grace,
            serviceAccountName=self.service_account,
            **(on_tpu if self.slice else {}),
            nodeSelector=self.node_selector(),
            tolerations=[{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in self.taints()],
            containers=[container],
            volumes=[
                {"name": "runs", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
            ],
        )

    def of_machine(self) -> dict[str, int]:
        """What a pod takes of its machine."""
        if self.slice:
            return {"google.com/tpu": TpuSlice(self.slice).chips_of_a_host}
        return {"nvidia.com/gpu": int(self.gpus or 0)}

    def taints(self) -> list[str]:
        """What keeps other pods away from such machines."""
        return [*self.of_machine(), *(["cloud.google.com/gke-spot"] if self.spot else [])]

    def node_selector(self) -> dict[str, str]:
        """The labels of the machines."""
        found = {}
        if self.slice:
            made = TpuSlice(self.slice)
            found["cloud.google.com/gke-tpu-accelerator"] = ACCELERATORS[made.version]
            found["cloud.google.com/gke-tpu-topology"] = made.shape
        if self.spot:
            found["cloud.google.com/gke-spot"] = "true"
        return found

    def variables_of_pods(self, job: Job) -> list[dict[str, Any]]:
        """The environment. On TPUs GKE says who the others are; elsewhere we say it."""
        found: list[dict[str, Any]] = [
            {"name": name, "value": unexpanded(value)} for name, value in self.variables().items()
        ]
        if job.checkout is not None:
            found.append({"name": "JAXFORMER_REVISION", "value": job.checkout.revision})
        if self.slice is None and self.nodes > 1:
            found += [
                {"name": "JAXFORMER_COORDINATOR", "value": f"{job.name}-{WORKERS}-0-0.{job.name}:{PORT}"},
                {"name": "JAXFORMER_PROCESSES", "value": str(self.nodes)},
                of_pod("JAXFORMER_PROCESS", INDEX),
            ]
        elif self.slices > 1:  # slice 1, pod 3: 1.3
            found += [of_pod(f"{HOST}_SLICE", SLICE), of_pod(f"{HOST}_IN_SLICE", INDEX)]
            found.append({"name": HOST, "value": f"$({HOST}_SLICE).$({HOST}_IN_SLICE)"})
        elif self.pods() > 1:
            found += [of_pod(HOST, INDEX)]
        return found


def of_pod(name: str, path: str) -> dict[str, Any]:
    """A variable that has what Kubernetes knows of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def unexpanded(text: str) -> str:
    """A text that Kubernetes leaves as it is: it replaces $(NAME), and makes "$" of "$$"."""
    return text.replace("$", "$$")


def without_empty(**values: Any) -> dict[str, Any]:
    """A mapping without what is None or empty."""
    return {name: value for name, value in values.items() if value not in (None, {}, [])}
