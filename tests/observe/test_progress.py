"""The progress line: what it says, that it is silent where it should be, and what it costs."""

import errno
import io
import logging
import time

import pytest
from rich.console import Console

from jaxformer.observe.device import DeviceMemory
from jaxformer.observe.terminal import BUDGET, Progress


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def plain(**kwargs):
    return Progress(1000, batch_size=64, console=Console(file=io.StringIO()), memory=lambda: None, **kwargs)


def test_the_line_tells_pace_and_time_left(clock):
    progress = plain(steps_per_epoch=50)
    for step in range(1, 102):
        clock(0.5)
        progress.advance(step)
    progress.show(
        101, {"train/loss": 0.25, "eval/accuracy": 0.5, "train/gradient_norm": 3.0, "train/skipped": 0}
    )
    line = progress.line()
    assert line.startswith("step 101/1,000  epoch 2.0  7:30 min left  128 examples/s  loss 0.2500")
    assert "norm" not in line
    assert "skipped" not in line


def test_an_evaluation_in_between_slows_the_time_left_but_not_the_examples_per_second(clock):
    progress = plain()
    for step in range(1, 21):
        clock(100.0 if step == 11 else 0.5)
        progress.advance(step)
    assert progress.examples_per_second() == 128
    assert progress.seconds_left() == pytest.approx(980 * (100 + 18 * 0.5) / 19)


def test_device_memory_is_shown(clock):
    console = Console(file=io.StringIO())
    progress = Progress(10, console=console, memory=lambda: DeviceMemory(3 * 2**30, 80 * 2**30))
    assert "memory 3 GiB of 80 GiB" in progress.line()


def test_without_a_terminal_a_line_is_logged_every_so_often(clock, caplog):
    caplog.set_level(logging.INFO, "jaxformer")
    progress = plain(log_seconds=10.0)
    for step in range(1, 1001):
        clock(0.1)
        progress.advance(step)
        if step % 5 == 0:
            progress.show(step, {"train/loss": 1.0})
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 11
    assert lines[0].startswith("step 5/1,000")
    assert lines[-1].startswith("step 1,000/1,000")


def test_other_processes_are_silent(clock, caplog):
    caplog.set_level(logging.INFO, "jaxformer")
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=100)
    with Progress(10, console=terminal, enabled=False, memory=lambda: None) as progress:
        for step in range(1, 11):
            clock(60.0)
            progress.show(step, {"train/loss": 1.0})
        with progress.activity("evaluating"):
            pass
    assert not caplog.records
    assert stream.getvalue() == ""


def test_a_terminal_shows_bar_activity_and_the_last_step():
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=100)
    with Progress(10, batch_size=4, console=terminal, memory=lambda: None) as progress:
        progress.show(9, {"train/loss": 0.125})
        with progress.activity("evaluating"):
            assert "evaluating" in stream.getvalue()
        progress.show(10, {"train/loss": 0.0625})
    last = stream.getvalue().split("\x1b[2K")[-1]
    assert "10/10" in last
    assert "loss 0.0625" in last


def test_names_of_metrics_are_not_markup_and_hold_no_control_characters():
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with Progress(10, console=terminal, memory=lambda: None) as progress:
        progress.show(10, {"[red]\x07cat\x1b[5m": 0.5})
    assert r"[red]\u0007cat\u001b[5m 0.5000" in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_drawing_is_rationed_however_slow_the_terminal(monkeypatch):
    now, drawn = [0.0], [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal = Console(file=io.StringIO(), force_terminal=True)
    with Progress(100_000, console=terminal, memory=lambda: None) as progress:

        def slow_refresh():
            now[0] += 0.02
            drawn[0] += 1

        monkeypatch.setattr(progress._live, "refresh", slow_refresh)
        for step in range(1, 10_001):
            now[0] += 0.01
            progress.advance(step)
        assert drawn[0] >= 5
        assert drawn[0] * 0.02 / now[0] <= BUDGET * 1.1


def test_a_step_costs_microseconds():
    progress = plain()
    progress.advance(1)
    start = time.perf_counter()
    for step in range(2, 10_002):
        progress.advance(step)
    assert (time.perf_counter() - start) / 10_000 < 50e-6


def test_a_terminal_that_is_gone_stops_the_drawing_and_nothing_else():
    class Gone(io.StringIO):
        """Takes something, and then, as a closed terminal does, nothing."""

        gone = False

        def write(self, text):
            if self.gone:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    file = Gone()
    console = Console(file=file, force_terminal=True, width=100)
    with Progress(10, console=console, memory=lambda: None) as progress:
        progress.show(1, {"train/loss": 1.0})
        file.gone = True
        for step in range(2, 5):
            progress._next = 0.0
            progress.advance(step)
        with progress.activity("evaluating"):
            progress.show(5, {"train/loss": 0.5})
    assert "loss 1" in file.getvalue()
