"""Imports point one way, and the command line answers at once."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxformer"

# What each layer may import of the package, besides itself and what is inside the same folder.
BASE = {"errors", "config.durations", "config.fields", "config.schema", "files", "reading"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "reading": {"config.fields", "errors"},
    "config.__init__": set(),
    "config.durations": {"errors"},
    "config.fields": {"config.durations"},
    "config.schema": {"config.durations", "config.fields", "errors"},
    "config.reference": {"config.durations", "config.fields", "config.schema", "errors"},
    "config.files": BASE,
    "config.checkpoints": {"config.durations", "config.fields"},
    "config.upgrades": set(),
    "config.sections": BASE
    | {"config.checkpoints", "data", "models", "optim", "parallel", "precision", "tasks", "weights"},
    "numbers": {"config.fields"},
    "models": BASE,
    "data": BASE,
    "importing": BASE | {"data", "drawing", "observe"},
    "optim": BASE | {"paths"},
    "decoding": BASE | {"models"},
    "tasks": BASE | {"decoding", "drawing", "models"},
    "drawing": {"errors"},
    "precision": BASE | {"models"},
    "preemption": set(),
    "state": BASE | {"precision"},
    "accumulation": set(),
    "step": BASE | {"accumulation", "state", "precision", "tasks"},
    "parallel": BASE | {"paths", "preemption"},
    "paths": set(),
    "checkpoint_items": BASE | {"paths"},
    "checkpoints": BASE | {"checkpoint_items", "config.checkpoints"},
    "weights": BASE | {"checkpoints", "config.upgrades", "data", "models", "paths", "tasks"},
    "launching": BASE | {"parallel", "preemption"},
    "observe": BASE | {"launching", "parallel", "runs"},
    "runs": BASE | {"config.sections", "config.upgrades", "data", "launching", "observe"},
    "bucket": {"errors", "files", "launching", "parallel", "runs"},
    "experiment": BASE
    | {"analysis", "config.sections", "data", "evaluation", "models", "numbers", "optim"}
    | {"parallel", "paths", "precision", "state", "step", "tasks", "teacher", "weights"},
}
ABOVE = {
    "__init__",
    "__main__",
    "agreement",
    "analysis",
    "api",
    "cli",
    "debugging",
    "evaluation",
    "inference",
    "reporting",
    "teacher",
}
ABOVE |= {"sweeps", "train", "verbs"}


def layer(module: str) -> str:
    """The layer of "jaxformer.data.batches": data; of "jaxformer.config.schema": config.schema."""
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[:1] == ["config"] else 1])


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
    folder = PACKAGE / name.replace(".", "/")
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of the package that its file imports, inside functions too, but not for types alone."""
    modules = {module_name(file): file for file in PACKAGE.rglob("*.py")}
    graph = {}
    for name, file in modules.items():
        found = set()
        tree = ast.parse(file.read_text())
        for_types = {
            id(inside)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inside in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in for_types:
                continue
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in modules else node.module for name in names}
        graph[name] = (found & set(modules)) - {name, "jaxformer"}
    return graph


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_a_layer_imports_only_what_is_below_it(name):
    for file in files(name):
        inner = {layer(module) for module in import_graph()[module_name(file)]} - {name}
        assert inner <= ALLOWED[name], f"{file.name} imports {sorted(inner - ALLOWED[name])}"


def test_every_layer_stands_in_the_table():
    there = {layer(module_name(file)) or "__init__" for file in PACKAGE.rglob("*.py")}
    assert {"config.__init__" if name == "config" else name for name in there} == set(ALLOWED) | ABOVE


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that import each other, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_there_are_no_circles():
    assert circles(import_graph()) == []


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def test_data_never_imports_jax():
    for file in files("data"):
        assert not {m for m in imports(file) if m.split(".")[0] in ("jax", "flax")}, file.name


def test_help_and_mistakes_import_nothing_heavy():
    code = """
import contextlib, sys
from jaxformer import cli
from jaxformer.verbs import VERBS
for verb in VERBS:
    with contextlib.suppress(SystemExit):
        cli.main([*verb.split(), "--help"])
    assert cli.main([*verb.split(), "--no-such-flag"]) == 2
with contextlib.suppress(SystemExit):
    cli.main(["--help"])
print([m for m in ("jax", "flax", "numpy", "grain", "rich") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"
