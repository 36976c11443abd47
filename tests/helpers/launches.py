"""What the tests of launching share: commands of every launcher and the files that hold what they render."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from jaxformer.cli import verb_class
from jaxformer.launching.base import Job, Launcher, Plan
from jaxformer.launching.checkout import Checkout
from jaxformer.verbs.options import parse

ROOT = Path(__file__).parent.parent.parent
CONFIG = "--config configs/gpt2_124m.py --config.data.batch_size=512"
CLUSTER = "--image europe-docker.pkg.dev/my-project/images/jaxformer:1 --volume runs:/runs"

# The file -> the launcher, its flags, and which of the plan's files it is. Each was read against the documentation
# of its system when it was written; a change of one needs the same.
RENDERED = {
    "launch/examples/tpu.sh": (
        "tpu",
        f"{CONFIG} --type v5litepod-16 --zone us-west4-a --project my-project-123 --spot --queued"
        " --valid-until-duration 6h --workdir /mnt/runs/gpt2",
        "launch.sh",
    ),
    "launch/examples/tpu_worker.sh": (
        "tpu",
        f"{CONFIG} --type v5litepod-16 --zone us-west4-a --project my-project-123 --spot --queued"
        " --valid-until-duration 6h --workdir /mnt/runs/gpt2",
        "worker.sh",
    ),
    "tests/launching/golden/tpu_one_host.sh": (
        "tpu",
        f"{CONFIG} --type v6e-8 --zone us-east5-b --keep --network research",
        "launch.sh",
    ),
    "tests/launching/golden/tpu_worker.sh": (
        "tpu",
        f"{CONFIG} --type v6e-8 --zone us-east5-b --env TFDS_DATA_DIR=/data/tfds --env NOTE=it's",
        "worker.sh",
    ),
    "launch/examples/slurm.sbatch": (
        "slurm",
        f"{CONFIG} --nodes 2 --gpus 8 --cpus-per-task 12 --time 24:00:00 --partition gpu",
        "job.sbatch",
    ),
    "launch/examples/slurm_array.sbatch": (
        "slurm",
        "--config configs/vit_digits.py --array 0-31%8 --workdir runs/seed-{task} --config.seed={task}",
        "job.sbatch",
    ),
    "tests/launching/golden/slurm_four_gpus_a_process.sbatch": (
        "slurm",
        f"{CONFIG} --gpus 8 --gpus-per-process 4 --chain 3 --option mem=64G --option exclusive --grace 300"
        " --account vision --setup=module_load_cuda",
        "job.sbatch",
    ),
    "launch/examples/k8s_tpu.yaml": (
        "k8s",
        f"{CONFIG} {CLUSTER} --slice v5litepod-16 --slices 2 --spot --queue tpus --namespace research",
        "jobset.yaml",
    ),
    "launch/examples/k8s_gpu.yaml": ("k8s", f"{CONFIG} {CLUSTER} --gpus 8 --nodes 4", "jobset.yaml"),
    "tests/launching/golden/k8s_one_host.yaml": (
        "k8s",
        f"{CONFIG} {CLUSTER} --slice v6e:2x4 --restarts 3 --grace 300 --service-account trainer"
        " --env LIBTPU_INIT_ARGS=--xla_tpu_scoped_vmem_limit_kib=98304",
        "jobset.yaml",
    ),
    "launch/examples/skypilot_gpu.yaml": (
        "skypilot",
        f"{CONFIG} --accelerators H100:8 --nodes 2 --spot --bucket gs://my-bucket",
        "task.yaml",
    ),
    "launch/examples/skypilot_tpu.yaml": (
        "skypilot",
        f"{CONFIG} --accelerators tpu-v5litepod-16 --infra gcp/us-central1 --spot --bucket gs://my-bucket",
        "task.yaml",
    ),
}
COMMANDS = {name: command for name, command, _ in reversed(RENDERED.values())}
COMMANDS["local"] = f"{CONFIG} --attempts 5 --env NOTE=it's"
CHECKOUT = Checkout("/home/me/jaxformer", "0123456789abcdef0123456789abcdef01234567")
HOSTILE = [
    "two words",
    "it's",
    '"$HOME"',
    "$(touch made)",
    "`touch made`",
    "a;touch made",
    "-x",
    "*",
    "\\",
    "ü",
    "a\nb",
]


def launcher(name: str, command: str | list[str]) -> Launcher:
    """The verb of a launcher with its flags."""
    words = command.split() if isinstance(command, str) else command
    return parse(f"launch {name}", verb_class(f"launch {name}"), words)


def plan(name: str, command: str) -> Plan:
    """What a launcher renders for a training by its own flags, from a clean checkout."""
    verb = launcher(name, command)
    preflight = ("jaxformer", "preflight", "--config", verb.config)
    return verb.render(replace(verb.training(None), checkout=CHECKOUT, preflight=preflight))


def job(workdir: str, *words: str) -> Job:
    """A job of any command."""
    return Job("sample", ("jaxformer", "train", *words), workdir, (), CHECKOUT)


def rendered(file: str) -> str:
    """What the file in RENDERED has to be."""
    name, command, part = RENDERED[file]
    found = [text for path, text in plan(name, command).files.items() if path.endswith(f"/{part}")]
    assert len(found) == 1
    return found[0]


# Takes the place of `python -m jaxformer.launching.supervisor`: trains, without supervising.
UNSUPERVISED = 'while [ "$1" != jaxformer ]; do shift; done; exec "$@"'


def bash(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """Runs a script of bash in a folder, which comes first in PATH."""
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
    )


def program(path: Path, script: str) -> Path:
    """Makes an executable of bash."""
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)
    return path


if (
    __name__ == "__main__"
):  # PYTHONPATH=.:tests python -m helpers.launches writes the files, to be read before they are kept
    for each in RENDERED:
        (ROOT / each).write_text(rendered(each))
