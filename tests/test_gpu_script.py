"""The script that measures on a GPU: bash reads it, wrong use is refused, every part runs on a CPU with tiny shapes."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
from helpers.documents import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu" / "run.sh"


def run(*arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "WHEELS")}
    return subprocess.run(
        ["bash", *map(str, arguments)],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_bash_reads_it():
    read = run("-n", SCRIPT)
    assert (read.returncode, read.stderr) == (0, "")
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.parametrize("arguments", [[], ["OUT", "--wrong"]])
def test_wrong_use_is_refused(arguments, tmp_path):
    refused = run(SCRIPT, *(tmp_path / "out" if word == "OUT" else word for word in arguments))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_files_that_it_names_are_there():
    words = SCRIPT.read_text().split()
    named = {
        word
        for word in words
        if word.startswith(("benchmarks/", "tests/")) and word.endswith((".py", ".txt"))
    }
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


WHEELS = [
    line
    for line in (ROOT / "benchmarks" / "gpu" / "wheels.txt").read_text().splitlines()
    if line and line[0] != "#"
]
# What the machine has by itself, as wheels.txt says, with what jax and transformers need.
MACHINE = """jax jaxlib ml-dtypes opt-einsum numpy scipy pyyaml filelock typing-extensions tokenizers pillow
opencv-python-headless huggingface-hub"""
ABSENT = """
import importlib, importlib.metadata, sys

here, modules = set(sys.argv[1].split()), sys.argv[2:]
owners = importlib.metadata.packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        packages = {owner.lower().replace("_", "-") for owner in owners.get(name.partition(".")[0], ())}
        if packages and not packages & here:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
"""


def test_the_wheels_are_those_of_the_package():
    """Where both name one, they ask for the same versions."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    named = {re.match("[a-zA-Z_-]+", line)[0] for line in WHEELS}
    common = [line for line in asked if re.match("[a-zA-Z_-]+", line)[0] in named]
    assert len(common) > 2
    assert set(common) <= set(WHEELS)


def test_the_wheels_suffice_beside_what_the_machine_has():
    """All that the parts import of ours is imported with these packages alone."""
    here = " ".join([re.match("[a-zA-Z_-]+", line)[0] for line in WHEELS] + [MACHINE, "jaxformer"])
    (modules,) = re.findall('MODULES = """(.*?)"""', (SCRIPT.parent / "machine.py").read_text(), re.DOTALL)
    ours = [name for name in modules.split() if name.startswith("jaxformer")]
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "benchmarks", "benchmarks/gpu", "tests"))
    words = [
        sys.executable,
        "-c",
        ABSENT,
        here,
        *ours,
        "common",
        "gpt_step",
        "train_step",
        "generation",
        "checks",
    ]
    environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_part_that_hangs_is_ended_and_costs_no_result_before_it(tmp_path):
    """The second part hangs in 11 seconds for all: what it leaves is too short for the others, in their order."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *"checks.py attention"*) exec sleep 60 ;; esac\n')
    python.chmod(0o755)
    done = run(SCRIPT, tmp_path / "out", "--dry-run", PYTHON=str(python), SECONDS_IN_ALL="11")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    machine, attention, *others = (json.loads(line) for line in lines)
    assert (machine["name"], machine["exit"]) == ("machine", 0)
    assert (attention["name"], attention["exit"]) == ("attention is right", 124)
    assert 9 <= attention["seconds"] <= 16
    assert {(each["exit"], each["seconds"]) for each in others} == {(124, 0)}
    names = [each["name"] for each in others]
    assert names[:4] == [
        "GPT-2, ours",
        "GPT-2, compiled PyTorch",
        "ViT-B/16, ours",
        "ViT-B/16, compiled timm",
    ]


def test_tables_say_what_failed_and_by_how_much_ours_is_faster():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "gpu" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    side = {"work": "vit, 8 images", "dtype": "bfloat16", "device": "H200", "unit": "images/s"}
    results = [
        {"work": "part", "name": "machine", "exit": 0, "seconds": 9},
        {"work": "part", "name": "tests", "exit": 1, "seconds": 3},
        {"work": "check of the step", "case": "gpt", "ok": False, "error": "ValueError: no"},
        side
        | {"side": "jaxformer", "seconds": [0.25, 0.5, 0.2], "rate": 32.0, "mfu": 0.4, "peak_bytes": 2**31},
        side
        | {"side": "peer", "compile": None, "seconds": [0.5], "rate": 16.0, "mfu": 0.2, "peak_bytes": None},
        {"work": "part", "name": "late", "exit": 124, "seconds": 0},
    ]
    lines = list(module.tables(results))
    assert lines[:3] == [
        "- machine: ended well (9 s)",
        "- tests: FAILED (3 s)",
        "- late: ran out of time (0 s)",
    ]
    assert "| step | gpt | WRONG | ValueError: no |  |  |" in lines
    ours, peer = "32 images/s (16 to 40) | 40.0% | 2.00 GiB", "16 images/s (16 to 16), eager | 20.0% | "
    assert lines[-1] == f"| vit, 8 images, bfloat16, H200 | {ours} | {peer} | 2.00 |"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_part_runs_on_a_cpu(tmp_path):
    for package in ("timm", "transformers"):  # found, not imported: the parts do that as they need it
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = run(SCRIPT, tmp_path / "out", "--dry-run", PYTHON=sys.executable, SECONDS_IN_ALL="2900")
    log = (tmp_path / "out" / "log.txt").read_text()
    results = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    parts = {each["name"]: each["exit"] for each in results if each["work"] == "part"}
    assert done.returncode == 0, done.stderr
    assert len(parts) == 13
    assert not any(parts.values()), f"{parts}\n{log[-6000:]}"
    sides = {(each["work"], each["side"]) for each in results if "side" in each}
    assert {work for work, side in sides if side == "peer"} < {
        work for work, side in sides if side == "jaxformer"
    }
    assert len(sides) == 9  # all four with a peer, and ours scanned
    assert (tmp_path / "out" / "tables.md").read_text().count(" | not measured | | ") == 1
