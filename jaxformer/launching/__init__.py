"""Launching: from a training and a place to run it to the files and commands that start it there, and start it again.

A launcher is a file and a row of LAUNCHERS; base.py is the contract, docs/launching.md says how to use them. What
supervises a training (supervisor.py and what it imports) is in Python's standard library alone.
"""

LAUNCHERS = {
    "local": "local:Local",
    "tpu": "tpu:Tpu",
    "slurm": "slurm:Slurm",
    "k8s": "k8s:Kubernetes",
    "skypilot": "skypilot:SkyPilot",
}
ATTEMPTS = "attempts.jsonl"  # in a run's folder, see attempts.py
LEDGERS = "attempts*.jsonl"  # this one, and those of the supervisors of other hosts, attempts-HOST.jsonl
HOST = "JAXFORMER_HOST"  # the variable that tells a host from others that share the folder: 0 for the first
HEARTBEATS = "JAXFORMER_HEARTBEATS"  # the variable that names the folder in which each process renews a file
REHEARSE = "--rehearse"  # behind a training's words, and before a supervisor's: rehearse first
HUNG = 124  # the exit code of a training that hangs, as of timeout(1)
