"""Starting trainings, here and elsewhere, and starting them again: Python's standard library alone, never jax."""

ATTEMPTS = "attempts.jsonl"  # in a run's folder, see attempts.py
HEARTBEATS = "JAXFORMER_HEARTBEATS"  # the variable that names the folder in which each process renews a file
HUNG = 124  # the exit code of a training that hangs, as of timeout(1)
