"""Wrong commands end with exit code 2 and at most two lines, within seconds, and leave nothing behind."""

import os
import subprocess
import sys
import time

import pytest
from helpers.wrong_commands import wrong_commands

from jaxformer import cli

ALL = wrong_commands()
AT_A_TIME = 60
PARTS = -(-len(ALL) // AT_A_TIME)  # each is a cross-section of all; the first is a part of every test run
LINES = 2
CHARACTERS = 2000  # of a line
SECONDS = 3.0  # of processor time; a machine that is busy may take longer
PATIENCE = 3


def test_there_are_many():
    assert len(ALL) >= 500


@pytest.fixture(scope="module")
def warm(tmp_path_factory, digits_dir):
    """What is imported and prepared once; folders of datasets and caches for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAXFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv(
            "XLA_FLAGS", os.environ["XLA_FLAGS"]
        )  # `describe` changes them, which is undone behind the module
        patch.chdir(tmp_path_factory.mktemp("warm"))
        assert cli.main(["train", "--config", "vit_digits", "--config.eval.monitor=x"]) == 2
        assert cli.main(["data", "show", "nothing"]) == 2
        yield


def contents(folder):
    """What is in a folder: path -> the bytes of a file, None of a folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def mistakes(wrong, folder, capsys):
    """What is not as it should be when a wrong command runs in a folder of its own."""
    for name, content in wrong.files.items():
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    before, start = contents(folder), time.process_time()
    try:
        code = cli.main(list(wrong.argv))
    except BaseException as error:
        code = f"{type(error).__name__}: {str(error)[:200]}"
    seconds, (_, said) = time.process_time() - start, capsys.readouterr()
    if code != 2:
        yield f"exit code {code}"
    if (
        "Traceback" in said
        or not 0 < said.count("\n") <= LINES
        or max(map(len, said.split("\n"))) > CHARACTERS
    ):
        yield f"says {said[:500]!r}"
    if wrong.says not in said:
        yield f"does not say {wrong.says[:100]!r} in {said[:500]!r}"
    if (after := contents(folder)) != before:
        yield f"leaves {[str(path) for path in after.keys() ^ before.keys()] or 'a changed file'}"
    if seconds > SECONDS * PATIENCE:
        yield f"takes {seconds:.1f} s"


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, PARTS))]
)
def test_a_wrong_command(part, warm, tmp_path, monkeypatch, capsys):
    found = {}
    for number, wrong in enumerate(ALL[part::PARTS]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        if wrongs := list(mistakes(wrong, folder, capsys)):
            found[wrong.name] = wrongs
    assert found == {}


PROCESSES = [
    ["train", "--config", "vit_digits", "--config.model.width=100000000"],
    ["describe", "--config", "vit_digits", "--mesh", "data=99999999"],
    ["train", "--config", "vit_digits", "--config.seed=" + "-" * 3000 + "1"],
    ["train", "--config", "vit_digits", "--run", ""],
]


@pytest.mark.slow
@pytest.mark.parametrize("argv", PROCESSES, ids=lambda argv: argv[-1][:30])
def test_a_wrong_command_as_a_process(argv, tmp_path, digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # `describe --mesh` of another test may have changed them
    done = subprocess.run(
        [sys.executable, "-m", "jaxformer", *argv], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert 0 < done.stderr.count("\n") <= LINES
    assert list(tmp_path.iterdir()) == []
