"""Damaged and hostile files: each is taken, or refused in one or two lines, quickly, and nothing is left behind.

A row of `helpers/fuzzed.py` is a parser: valid files, one of which is changed for each input by `helpers/hostile.py`,
and what reads them, through the command line where a verb does. The usual suite has up to 200 inputs a parser, always
the same ones; the slow suite has 10,000, others each time. JAXFORMER_FUZZ_INPUTS=N sets another number for the tests
that are run:

    JAXFORMER_FUZZ_INPUTS=2000 pytest -m slow tests/fuzz -k "coco or voc"

Hypothesis shrinks a failure and prints the edits; `hostile.changed` makes the file of them.
"""

import contextlib
import io
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
from helpers import hostile
from helpers.fuzzed import PARSERS
from helpers.fuzzed_files import Parser
from helpers.fuzzed_imports import IMPORTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxformer.errors import UserError, printable
from jaxformer.importing.formats import FORMATS
from jaxformer.observe import plots

# What libraries in C and Rust write to the terminal themselves: libjpeg (its jerror.h) of damaged data that it decodes
# all the same, as Pillow does, and Rust of a panic, which the tokenizers make an exception of.
OF_LIBRARIES = re.compile(
    r"(Corrupt JPEG data: |Premature end of JPEG|Invalid SOS param|Inconsistent progress|Unknown Adobe)[^\n]*\n"
    r"|\nthread '[^']*' \(\d+\) panicked at .*?(?=\nthread '|\Z)",
    re.DOTALL,
)
SLOW = 10_000
SECONDS = 5  # of processor time, so that a busy machine hangs no input
MEMORY = 1 << 30  # bytes that a parser's inputs may add to what the process holds
MEMORY_FOLDER = Path("/dev/shm")


class Hang(BaseException):
    """An input took too long. No handler of ours catches it."""


@contextlib.contextmanager
def at_most(seconds: float):
    """Raises Hang when the process has computed for so long."""

    def stop(*_):
        raise Hang(f"more than {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def names_in(*folders: Path) -> list[str]:
    return sorted(str(path) for folder in folders for path in folder.rglob("*"))


class Tried:
    """A parser with a folder for its files, and one for what it writes."""

    def __init__(self, parser: Parser, folder: Path):
        self.parser, self.files = parser, dict(parser.files())
        self.inside, self.output = folder / "files", folder / "output"
        for name, content in self.files.items():
            (self.inside / name).parent.mkdir(parents=True, exist_ok=True)
            (self.inside / name).write_bytes(content)
        self.output.mkdir()
        self.changing = (
            [name for name in self.files if not name.endswith(parser.fixed)]
            if parser.fixed
            else [*self.files]
        )
        self.there, self.taken = names_in(self.inside), 0

    def kind(self, name: str) -> hostile.Kind:
        return next((kind for end, kind in self.parser.kinds.items() if name.endswith(end)), "bytes")

    def read(self) -> bool:
        """Whether the files are taken; else they were refused as they should be."""
        said, answered = io.StringIO(), io.StringIO()
        with at_most(SECONDS), contextlib.redirect_stderr(said), contextlib.redirect_stdout(answered):
            try:
                code = self.parser.read(self.inside, self.output) or 0
                lines = said.getvalue().splitlines()
                answered.getvalue().encode()
            except UserError as error:
                code, lines = 2, [f"jaxformer: {line}" for line in error.lines]
        if code != 0:
            assert code == 2
            assert lines
            assert len(lines) <= 2 or self.parser.lists_all, lines
            assert all(line.startswith("jaxformer: ") and line == printable(line, "") for line in lines), (
                lines
            )
            assert names_in(self.output) == []
            assert names_in(self.inside) == self.there
        return code == 0

    def clean(self):
        for path in names_in(self.inside):
            if path not in self.there and not os.path.isdir(path):
                os.unlink(path)
        for path in self.output.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def try_one(self, place: int, steps: list) -> None:
        structured = [name for name in self.changing if self.kind(name) != "bytes"]
        among = structured if structured and place % 4 else self.changing
        name = among[place // 4 % len(among)]
        steps = [step for step in steps if step[0] in hostile.OPERATIONS[self.kind(name)]]
        (self.inside / name).write_bytes(hostile.changed(self.files[name], steps))
        try:
            self.taken += self.read()
        finally:
            (self.inside / name).write_bytes(self.files[name])
            self.clean()


def fuzz(name: str, count: int, folder: Path, capfd, **how) -> None:
    tried = Tried(PARSERS[name], folder)
    assert tried.read(), "the files are not valid as they are"
    tried.clean()
    kinds = sorted({tried.kind(name) for name in tried.changing})

    @settings(
        max_examples=int(os.environ.get("JAXFORMER_FUZZ_INPUTS", count)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        **how,
    )
    @given(st.integers(0, 2**16), st.sampled_from(kinds).flatmap(hostile.edits))
    def one(place, steps):
        tried.try_one(place, steps)

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    capfd.readouterr()
    one()
    seconds = time.process_time() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    written = capfd.readouterr()
    print(f"{name}: {seconds:.1f} s, {tried.taken} taken, {grown / 2**20:.0f} MiB more")
    assert grown < MEMORY
    assert OF_LIBRARIES.sub("", written.out + written.err) == "", "a library wrote to the terminal"


@pytest.fixture
def folder(tmp_path):
    """A folder in memory, where there is one: each input writes files."""
    place = Path(MEMORY_FOLDER) / f"jaxformer-{os.getpid()}-{tmp_path.name}"
    if not os.access(MEMORY_FOLDER, os.W_OK):
        place = tmp_path / "fuzz"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def _as_quick_as_can_be(monkeypatch, tmp_path):
    """Figures are made and not drawn, which takes most of a report's time; no cache of the user's is touched."""
    monkeypatch.setattr(plots, "to_svg", lambda figure, label: "<svg></svg>")
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PARSERS)
def test_an_input_is_taken_or_refused(name, folder, capfd):
    fuzz(name, PARSERS[name].usual, folder, capfd, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PARSERS)
def test_many_inputs_are_taken_or_refused(name, folder, capfd):
    fuzz(name, SLOW, folder, capfd, print_blob=True)


def test_every_format_of_files_has_a_row():
    """A new format needs its row in helpers/fuzzed.py."""
    assert set(FORMATS) <= {name.split()[0] for name in IMPORTS}
