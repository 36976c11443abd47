"""Imports point one way, and the command line answers at once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxformer"

# What each layer may import of the package, besides itself.
BASE = {"errors", "durations", "schema", "files"}
ALLOWED = {
    "errors": set(),
    "durations": set(),
    "files": {"errors"},
    "schema": {"durations"},
    "models": {"errors", "schema"},  # for the message of a misspelt preset
    "data": BASE,
    "optim": BASE | {"paths"},
    "decoding": BASE,
    "tasks": BASE | {"decoding", "models", "weights"},
    "flops": set(),
    "precision": BASE,
    "preemption": set(),
    "state": BASE | {"precision"},
    "step": BASE | {"state", "precision", "tasks"},
    "parallel": BASE | {"paths"},
    "paths": set(),
    "checkpoints": BASE | {"digests", "paths"},
    "digests": {"files"},
    "weights": BASE | {"models", "paths"},
    "observe": BASE,
    "config": BASE | {"checkpoints", "data", "models", "optim", "parallel", "precision", "tasks"},
    "configfile": BASE,
}
LAYERS_BELOW_TRAIN = set(ALLOWED) | {"assembly", "memory", "run", "evaluation", "inference", "teacher"}


def layer(module: str) -> str:
    """The layer of "jaxformer.data.batches": data."""
    return module.split(".")[1] if "." in module else ""


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {f"{node.module}.{a.name}" for a in node.names}
                if node.module == "jaxformer"
                else {node.module}
            )
    return found


def files(name: str) -> list[Path]:
    folder = PACKAGE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_a_layer_imports_only_what_is_below_it(name):
    for file in files(name):
        inner = {layer(module) for module in imports(file) if module.startswith("jaxformer.")}
        assert inner - {name} <= ALLOWED[name], (
            f"{file.name} imports {sorted(inner - {name} - ALLOWED[name])}"
        )


def test_every_layer_stands_in_the_table():
    top = {"cli", "verbs", "train", "start", "finish", "describe", "__init__", "__main__"}
    there = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert there == LAYERS_BELOW_TRAIN | top


def test_data_never_imports_jax():
    for file in files("data"):
        assert not {m for m in imports(file) if m.split(".")[0] in ("jax", "flax")}, file.name


def test_help_imports_nothing_heavy():
    code = (
        "import sys, jaxformer.cli; print([m for m in ('jax', 'flax', 'numpy', 'grain') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
