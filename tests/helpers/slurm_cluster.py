"""A Slurm cluster of one node on this machine's loopback, of Debian's packages slurm-wlm and munge, for tests."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm"}
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# cred_expire: a job that goes back into the queue waits as long; 120 s by default. A job's number decides its port,
# which another cluster's job may have.
SETTINGS = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=2
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
JobRequeue=1
KillWait=20
FirstJobId={first}
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """The packages that are not here."""
    return " ".join(
        sorted({package for name, package in PROGRAMS.items() if not shutil.which(name, path=PATH)})
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        return [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)
        ]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster that is up for as long as the context lasts; yields the environment for Slurm's programs."""
    host, env = (
        socket.gethostname().split(".")[0],
        {**os.environ, "PATH": PATH, "SLURM_CONF": f"{folder}/slurm.conf"},
    )
    for name in ("spool", "state"):
        (folder / name).mkdir(parents=True)
    os.chmod(folder, 0o755)
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    (folder / "slurm.conf").write_text(
        SETTINGS.format(
            host=host, folder=folder, ports=free_ports(2), user=user, first=1 + secrets.randbelow(4000)
        )
    )
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    files = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "munge.pid",
        "seed-file": "munge.seed",
    }
    munged = ["munged", "--foreground", "--force", f"--log-file={folder}/munge.log"]
    munged += [f"--{flag}={folder}/{name}" for flag, name in files.items()]
    with contextlib.ExitStack() as stack:
        for words in (munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
            output = stack.enter_context((folder / f"{words[0]}.out").open("w"))
            process = subprocess.Popen(words, env=env, stdout=output, stderr=output)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            if words is munged:
                wait_for(lambda: (folder / "munge.socket").exists(), 10)
        wait_for(lambda: "idle" in said(env, "sinfo", "--noheader", "--format=%T"), 60)
        yield env
        subprocess.run(["scancel", "--user", user, "--signal=KILL", "--full"], env=env, check=False)


def said(env: dict[str, str], *words: str) -> str:
    """What a program of Slurm says; "" if it fails."""
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False).stdout


def wait_for(condition, seconds: float) -> None:
    """Returns when the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)
