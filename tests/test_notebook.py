"""The notebook of the documentation runs from its first cell to its last."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent


@pytest.mark.slow  # as the commands of the other documents are
def test_the_notebook_runs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND")  # conftest.py sets one that shows nothing
    one_device = (
        "--xla_force_host_platform_device_count=1"  # as on a reader's laptop; the last of equal flags counts
    )
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} {one_device}")
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    kept = [cell["source"] for cell in notebook.cells]
    NotebookClient(notebook, timeout=500, kernel_name="python3").execute()  # raises what a cell raises
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert len(pictures) == 3  # mistakes, where the model looked, losses
    assert "ViT has no field 'widht'; did you mean 'width'?" in printed
    assert [cell["source"] for cell in notebook.cells] == kept
