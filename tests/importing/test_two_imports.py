"""Imports of one name at once, and imports that were killed: nothing is lost, and nothing blocks the next."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.importing_cases import bring, examples, refusal, write

from jaxformer.errors import UserError
from jaxformer.importing import pipeline

IMPORT = (
    "import sys; from pathlib import Path; from jaxformer.importing import import_dataset; "
    "from jaxformer.importing import pipeline; import tensorflow_datasets; "
    "print('ready', flush=True); sys.stdin.readline(); "
    "import_dataset('text', Path(sys.argv[1]), 'mine', sys.argv[2], unit='line', test_share=0)"
)


def start(source: Path, folder: Path) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", IMPORT, str(source), str(folder)], **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_imports_of_one_name_at_once_the_second_is_refused(tmp_path, monkeypatch):
    one = write(tmp_path / "one.txt", "one\n")
    two = write(tmp_path / "two.txt", "two\n")
    check, made = pipeline.check_name, []

    def another_first(name: str, folder: Path) -> None:
        """Another import of the name ends behind the first look at it."""
        check(name, folder)
        if not made:
            made.append(None)
            made[0] = bring(one, tmp_path, "text", test_share=0)

    monkeypatch.setattr(pipeline, "check_name", another_first)
    with pytest.raises(UserError, match="is there already; remove it, or choose another name"):
        bring(two, tmp_path, "text", test_share=0)
    assert [example["text"] for example in examples(made[0], "train")] == ["one\n"]
    assert os.listdir(tmp_path / "tfds") == ["mine"]


@pytest.mark.slow
def test_of_processes_that_import_one_name_at_once_one_succeeds(tmp_path):
    sources = [write(tmp_path / f"{n}.txt", f"{n}\n" * 2000) for n in range(2)]
    processes = [start(source, tmp_path / "tfds") for source in sources]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(map(bool, codes)) == [False, True]
    assert "is there already; remove it, or choose another name" in said[codes.index(max(codes))]
    import tensorflow_datasets as tfds

    stored = tfds.builder_from_directory(tmp_path / "tfds" / "mine" / "1.0.0").as_data_source("train")
    assert {stored[n]["text"].decode() for n in range(len(stored))} == {str(codes.index(0))}


@pytest.mark.slow
def test_an_import_that_was_killed_does_not_block_the_next(tmp_path):
    source = write(tmp_path / "a.txt", "words\n" * 200_000)
    folder = tmp_path / "tfds"
    process = start(source, folder)
    process.stdin.write("\n")
    process.stdin.flush()
    while not folder.exists() or not os.listdir(folder):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [name.startswith(".mine.incomplete") for name in os.listdir(folder)] == [True]
    bring(source, tmp_path, "text", test_share=0)
    assert os.listdir(folder) == ["mine"]


def test_an_empty_folder_of_an_import_that_was_killed_does_not_block_the_next(tmp_path):
    source = write(tmp_path / "a.txt", "words\n")
    (tmp_path / "tfds" / "mine").mkdir(parents=True)  # as killed before the last rename
    assert bring(source, tmp_path, "text", test_share=0).splits == {"train": 1}
    assert "is there already" in refusal(source, tmp_path, "text")
