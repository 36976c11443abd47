"""Launching: from a training and a place to run it to the files and commands that start it there.

A launcher is a file and a row of LAUNCHERS; base.py is the contract, docs/launching.md says how to use them.
"""

LAUNCHERS = {
    "tpu": "tpu:Tpu",
    "slurm": "slurm:Slurm",
    "k8s": "k8s:Kubernetes",
    "skypilot": "skypilot:SkyPilot",
}
