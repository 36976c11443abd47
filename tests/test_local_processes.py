"""Several processes that one command starts on this machine; here they run small programs, and nothing trains."""

import os
import signal
import threading
import time

import pytest

from jaxformer import cli
from jaxformer.preemption import Preempted
from jaxformer.verbs import children


@pytest.fixture
def program(monkeypatch, capfd):
    """Has `train_together` start a program in the place of jaxformer; what it says comes back with the code."""

    def run(code, count=2):
        monkeypatch.setattr(children, "BEGIN", f"import os, signal, sys, time\n{code}")
        exit_code = children.train_together([], count, 3)
        return exit_code, sorted(capfd.readouterr().err.splitlines())

    return run


@pytest.mark.parametrize("more", [(), ("--rehearse",)])
def test_a_batch_that_the_devices_cannot_share_is_refused_before_a_process_is_started(
    more, monkeypatch, capsys
):
    monkeypatch.setattr(children, "Child", None)
    words = ["--config", "vit_digits", "--processes", "2", "--devices-per-process", "3"]
    assert (
        cli.main(["train", *words, "--config.data.batch_size=64", "--config.data.eval_batch_size=60", *more])
        == 2
    )
    refused = "jaxformer: data.batch_size=64 is not a multiple of 6 devices: use 66"
    assert capsys.readouterr().err.splitlines() == [refused]


ME = "me = int(os.environ['JAXFORMER_PROCESS'])\n"


def test_lines_have_the_number_of_their_process(program):
    says = "print(me, os.environ['JAXFORMER_PROCESSES'], os.environ['XLA_FLAGS'][-1], os.environ['JAX_PLATFORMS'])"
    assert program(ME + says) == (0, ["process 0: 0 2 3 cpu", "process 1: 1 2 3 cpu"])


def test_the_code_of_the_first_that_failed(program):
    assert program(ME + "time.sleep(me and 0.5)\nsys.exit([3, 4][me])")[0] == 3
    assert program(ME + "sys.exit(0) if me else time.sleep(0.5)\nsys.exit(5)")[0] == 5


def test_a_killed_process_ends_the_others_at_once(program):
    start = time.monotonic()
    code, said = program(ME + "os.kill(os.getpid(), signal.SIGKILL) if me else time.sleep(60)")
    assert code == 137
    assert len(said) == 1
    assert said[0].startswith("jaxformer: process 1 died first: killed (SIGKILL)")
    assert time.monotonic() - start < children.LEAVING


def test_others_that_do_not_leave_are_killed(program, monkeypatch):
    monkeypatch.setattr(children, "LEAVING", 0.5)
    assert program(ME + "sys.exit(1) if me else time.sleep(60)")[0] == 1


def test_a_port_that_is_taken_meanwhile_is_replaced(program, tmp_path):
    again = f"me or os.path.exists({str(tmp_path / 'x')!r}) or (open({str(tmp_path / 'x')!r}, 'w'), sys.exit(69))\n"
    code, said = program(ME + again + "print(os.environ['JAXFORMER_COORDINATOR'])")
    assert code == 0
    assert said[-1].startswith("process 1: localhost:")


@pytest.mark.parametrize(("last", "code"), [("75", None), ("1", 1)])
def test_sigterm_goes_to_all(program, last, code):
    """They say when they are ready, and the parent is told to end then."""
    waits = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit({last}))\nprint('ready', flush=True)\ntime.sleep(60)"

    def end(*_):
        raise Preempted("SIGTERM")

    before = signal.signal(signal.SIGTERM, end)
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        if code is None:
            with pytest.raises(Preempted):
                program(waits)
        else:
            assert program(waits)[0] == code
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_ignores_sigterm_is_killed(program, monkeypatch):
    monkeypatch.setattr(children, "SAVING", 0.3)
    monkeypatch.setattr(children, "first_code", ended_once(children.first_code))
    assert program("signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)")[0] == 137


def ended_once(first_code):
    """The function, but its first call is ended by a signal as soon as the processes run."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            return first_code(*arguments)
        time.sleep(1)
        raise Preempted("SIGTERM")

    return call
