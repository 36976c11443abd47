"""Runs of the versions before open: they give what the version that made them gave (tests/fixtures/*/README.md)."""

import json
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest

from jaxformer import cli

FIXTURE = Path(__file__).parent / "fixtures" / "runs_0_1"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
RUNS = ["bert", "coatnet", "detr", "gpt", "resnet", "segmenter", "seq2seq", "vit"]
SHORT = "--max-new-tokens 12"
COMMANDS = {
    **{f"{run}-evaluate": f"evaluate runs/{run}" for run in RUNS},
    **{f"{run}-predict": f"predict runs/{run} inputs/images" for run in ("vit", "resnet", "coatnet")},
    **{f"{run}-predict": f"predict runs/{run} inputs/scenes" for run in ("detr", "segmenter")},
    "bert-predict": "predict runs/bert inputs/reviews.txt",
    "vit-tta": "evaluate runs/vit --tta flip",
    "gpt-generate": f"generate runs/gpt --prompt 'the cat' --prompt old --greedy {SHORT}",
    "gpt-draw": "generate --workdir runs/gpt --prompt 'the cat' --temperature 0.7 --top-k 5 --seed 3 --samples 2 "
    f"{SHORT}",
    "gpt-perplexity": "perplexity runs/gpt inputs/story.txt",
    "seq2seq-generate": f"generate runs/seq2seq --prompt 'the cat saw Ann' --json --beams 2 {SHORT}",
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A folder with the runs, their inputs and their datasets."""
    folder = shutil.copytree(FIXTURE, tmp_path_factory.mktemp("old") / "runs_0_1")
    with tarfile.open(FIXTURE / "datasets.tar.gz") as archive:
        archive.extractall(folder / "datasets", filter="data")
    return folder


@pytest.fixture(autouse=True)
def inside(copied, monkeypatch):
    """The working directory is the copy, and the datasets are found."""
    monkeypatch.chdir(copied)
    monkeypatch.setenv("TFDS_DATA_DIR", str(copied / "datasets"))
    monkeypatch.setenv("JAXFORMER_CACHE", str(copied / "cache"))


def printed(capsys, *argv):
    capsys.readouterr()
    assert cli.main(list(argv)) == 0
    return capsys.readouterr().out.splitlines()


def assert_same(found, expected, tolerance=1e-5):
    """Equal, numbers up to a tolerance; boxes are printed in hundredths of a pixel."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value, 0.011 if key == "box" else tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other, tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
    else:
        assert found == expected


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_old_run_gives_what_it_gave(name, capsys):
    lines = [json.loads(line) for line in printed(capsys, *shlex.split(COMMANDS[name]))]
    assert_same(lines, EXPECTED[name])


@pytest.mark.parametrize("run", RUNS)
def test_an_old_run_has_a_report(run, capsys):
    written = f"runs/{run}/report.html"
    assert printed(capsys, "report", f"runs/{run}")[-1] == written
    page = Path(written).read_text()
    accuracy = EXPECTED[f"{run}-evaluate"][0].get("accuracy")
    assert accuracy is None or f"{accuracy:.4f}" in page


def test_an_old_run_goes_on(capsys):
    """What was stopped at step 6 of 9 ends where the version before ended."""
    printed(capsys, "train", "--config", "tiny.py:unfinished", "--run", "runs/unfinished")
    result = json.loads(Path("runs/unfinished/result.json").read_text())
    (expected,) = EXPECTED["unfinished-train"]
    assert result["step"] == 9
    assert_same(result["final"], expected, 1e-4)
