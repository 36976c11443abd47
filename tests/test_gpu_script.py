"""The script that measures on a GPU: bash reads it, wrong use is refused, every part runs on a CPU with tiny shapes."""

import importlib.util
import json
import os
import subprocess
import sys

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
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
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
