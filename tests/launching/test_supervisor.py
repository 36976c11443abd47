"""A supervisor with trainings that need no JAX: small scripts that save, die, hang and go on."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxformer.errors import UserError
from jaxformer.launching import ATTEMPTS
from jaxformer.launching import supervisor as supervising
from jaxformer.launching.attempts import append, read
from jaxformer.launching.decisions import Budgets
from jaxformer.launching.processes import alive, boot, end_session, identity
from jaxformer.launching.supervisor import Child, Supervisor

ROOT = Path(__file__).parent.parent.parent
QUICK = Budgets(shortest=0.01)
# What scripts have: the number of this attempt, `save` a checkpoint, `beat` like a training that has taken steps.
START = """
import os, signal, subprocess, sys, time
from pathlib import Path
run = Path(sys.argv[1])
attempt = 0
while not attempt:  # the supervisor notes the start just after it
    time.sleep(0.01)
    attempt = (run / "attempts.jsonl").exists() and (run / "attempts.jsonl").read_text().count('"event": "start"')
def save(step):
    folder = run / "checkpoints" / str(step)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "digests.json").write_text("{}")
def beat(steps=1):
    (Path(os.environ["JAXFORMER_HEARTBEATS"]) / str(os.getpid())).write_text(str(steps))
def die(number):
    os.kill(os.getpid(), number)
    time.sleep(60)
"""


def words(folder, script):
    return [sys.executable, "-S", "-c", START + textwrap.dedent(script), str(folder)]


class Told(list):
    def __call__(self, line):
        self.append(line)

    @property
    def text(self):
        return "\n".join(self)


@pytest.fixture
def told():
    return Told()


def supervise(tmp_path, script, told, budgets=QUICK, **options):
    folder = tmp_path / "run"
    return Supervisor(words(folder, script), folder, budgets, told, **options).run()


def test_one_that_is_done_is_left_alone(tmp_path, told):
    assert supervise(tmp_path, "save(5)", told) == 0
    (found,) = read(tmp_path / "run" / ATTEMPTS)
    assert (found.exit, found.why, found.before, found.saved) == (0, "done", 0, 5)
    assert found.start < found.end < time.time()
    assert told == []


def test_a_mistake_is_not_repeated_and_leaves_nothing(tmp_path, told):
    assert supervise(tmp_path, "sys.exit(2)", told) == 2
    assert not (tmp_path / "run").exists()
    assert told.text.endswith("exit code 2: a mistake of the user's; no checkpoint yet")


def test_a_training_that_is_killed_goes_on_as_long_as_it_saves(tmp_path, told):
    script = "save(attempt); attempt == 6 or die(signal.SIGKILL)"
    assert supervise(tmp_path, script, told) == 0
    found = read(tmp_path / "run" / ATTEMPTS)
    assert [each.exit for each in found] == [137] * 5 + [0]
    assert [(each.before, each.saved) for each in found] == [(n, n + 1) for n in range(6)]
    assert told[0].endswith("exit code 137: " + found[0].why + "; newest checkpoint: step 1")


def test_a_training_that_makes_no_progress_is_ended_and_its_first_error_shown(tmp_path, told):
    script = """
    beat()
    time.sleep(0.6)
    def inner():
        raise ValueError("the first\\nof two lines")
    try:
        inner()
    except ValueError:
        raise KeyError("what follows from it")
    """
    assert supervise(tmp_path, script, told) == 1
    assert [each.exit for each in read(tmp_path / "run" / ATTEMPTS)] == [1, 1, 1]
    assert "jaxformer: its last line: KeyError: 'what follows from it'" in told
    assert "it is not started again: no progress in 3 attempts: there is no checkpoint" in told.text
    shown = told.text.partition("the first traceback of that attempt:\n")[2]
    assert shown.startswith("  Traceback (most recent call last):\n")
    assert shown.splitlines()[-1] == "  ValueError: the first"


def test_one_that_never_takes_a_step_is_ended_sooner(tmp_path, told):
    assert supervise(tmp_path, "sys.exit(3)", told) == 3
    assert len(read(tmp_path / "run" / ATTEMPTS)) == 2
    assert "no train step was reached in 2 attempts" in told.text


def test_where_a_disk_is_full_it_names_what_said_so_and_tries_again(tmp_path, told):
    """That line, and not the last one, which may be another process's that died after it."""
    script = """
        save(attempt)
        print("process 1: jaxformer: run/checkpoints: No space left on device", file=sys.stderr)
        print("process 0: Check failure stack trace", file=sys.stderr, flush=True)
        sys.exit(74 if attempt < 2 else 0)
    """
    assert supervise(tmp_path, script, told) == 0
    assert told[0].endswith("exit code 74: no room was left on the disk; newest checkpoint: step 1")
    assert (
        told[1] == "jaxformer: its last line: process 1: jaxformer: run/checkpoints: No space left on device"
    )


def test_lines_of_the_ledger_for_which_there_is_no_room_are_written_later(tmp_path, told, monkeypatch):
    tried = []

    def full(path, event, **values):
        tried.append(event)
        if event == "end" and tried.count("end") < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, event, **values)

    monkeypatch.setattr(supervising.ledger, "append", full)
    script = "save(1); (run / 'twice').exists() or ((run / 'twice').touch(), sys.exit(74))"
    assert supervise(tmp_path, script, told) == 0
    first, second = read(tmp_path / "run" / ATTEMPTS)
    assert (first.exit, first.saved, second.exit) == (74, 1, 0)
    assert first.end < second.start
    assert tried[:3] == ["start", "end", "end"]


def test_the_first_traceback_of_several_processes_is_whole():
    output = textwrap.dedent("""\
        process 0: step 5
        process 1: Traceback (most recent call last):
        process 1:   File "a.py", line 1, in <module>
        process 1:     f()
        process 1: ZeroDivisionError: division by zero
        process 0: Traceback (most recent call last):
        process 0:   File "a.py", line 9, in <module>
        process 0: RuntimeError: peer is gone
        """)
    found = supervising.TRACEBACK.search(output)[0].splitlines()
    assert len(found) == 4
    assert found[-1] == "process 1: ZeroDivisionError: division by zero"


def test_what_it_says_is_passed_on(tmp_path):
    script = f"""
    import sys
    from pathlib import Path
    from jaxformer.launching.supervisor import Supervisor
    words = [sys.executable, "-c", "import sys; print('result'); print('note', file=sys.stderr)"]
    Supervisor(words, Path({str(tmp_path / "run")!r})).run()
    print(sorted({{"jax", "numpy", "flax"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "note\n")
    assert sorted(done.stdout.splitlines()) == ["[]", "result"]


def test_what_a_training_leaves_running_is_dead_before_the_next_attempt(tmp_path, told):
    script = """
    def left():  # in a process group of its own, deaf to SIGTERM, and not ended by its parent's death
        words = [sys.executable, "-S", "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"]
        return subprocess.Popen(words, process_group=0).pid
    if attempt == 1:
        save(1)
        (run / "pid").write_text(str(left()))
        die(signal.SIGKILL)
    stat = Path(f"/proc/{(run / 'pid').read_text()}/stat")
    sys.exit(2 if stat.exists() and ") Z" not in stat.read_text() else 0)
    """
    assert supervise(tmp_path, script, told) == 0


def test_one_without_heartbeats_is_killed(tmp_path, told, monkeypatch):
    monkeypatch.setattr(supervising, "SILENCE", 1.0)
    script = """
    save(attempt)
    beat(7)
    attempt == 2 or time.sleep(600)
    """
    start = time.monotonic()
    monkeypatch.setattr(Child.wait, "__defaults__", (1.0,))
    assert supervise(tmp_path, script, told) == 0
    assert time.monotonic() - start < 15
    hung, done = read(tmp_path / "run" / ATTEMPTS)
    assert (hung.exit, hung.steps, done.exit) == (124, 7, 0)
    assert "exit code 124: hung" in told.text


def test_one_that_is_stopped_before_its_heart_beats_is_killed(tmp_path, told, monkeypatch):
    monkeypatch.setattr(Child.wait, "__defaults__", (1.0,))
    assert supervise(tmp_path, "save(attempt); attempt == 2 or die(signal.SIGSTOP)", told) == 0
    assert [each.exit for each in read(tmp_path / "run" / ATTEMPTS)] == [124, 0]


def test_one_of_several_that_is_stopped_before_its_heart_beats_is_found(tmp_path, told, monkeypatch):
    monkeypatch.setattr(Child.wait, "__defaults__", (1.0,))
    script = """
    save(attempt)
    stops = f"import os; {attempt} == 2 or os.kill(os.getpid(), {int(signal.SIGSTOP)})"
    others = [subprocess.Popen([sys.executable, "-S", "-c", stops]) for _ in range(2)]
    for other in others:
        while other.poll() is None:
            beat()
            time.sleep(0.1)
    """
    assert supervise(tmp_path, script, told) == 0
    assert [each.exit for each in read(tmp_path / "run" / ATTEMPTS)] == [124, 0]


def test_one_whose_heart_beats_is_not_killed(tmp_path, told, monkeypatch):
    monkeypatch.setattr(Child.wait, "__defaults__", (2.0,))
    script = """
    for n in range(16):
        beat(n)
        time.sleep(0.25)
    """
    assert supervise(tmp_path, script, told) == 0


def test_two_supervisors_do_not_share_a_folder(tmp_path):
    script = "from pathlib import Path; import sys\nfrom jaxformer.launching.supervisor import Supervisor\n"
    script += f"Supervisor([sys.executable, '-c', 'input()'], Path({str(tmp_path)!r})).run()"
    with subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE
    ) as other:
        try:
            wait_for((tmp_path / ATTEMPTS).exists)
            with pytest.raises(UserError, match="another supervisor is at work in this folder"):
                Supervisor(["true"], tmp_path).run()
        finally:
            other.communicate(b"\n")
    assert other.returncode == 0
    assert Supervisor(["true"], tmp_path).run() == 0


def wait_for(there, seconds=20):
    until = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


# The supervisor itself

OWN = """
import sys
from jaxformer.launching import supervisor
from jaxformer.launching.decisions import Budgets
wait = float(sys.argv.pop(1))
supervisor.Budgets = lambda attempts: Budgets(attempts, shortest=wait)
supervisor.main()
"""
SAVES = """
def ends(number, frame):
    save(attempt)
    print("heard", signal.Signals(number).name, file=sys.stderr, flush=True)
    sys.exit(75 if number == signal.SIGTERM else 130)
signal.signal(signal.SIGTERM, ends)
signal.signal(signal.SIGINT, ends)
(run / f"ready-{attempt}").touch()
time.sleep(600)
"""


def own(folder, script, wait=0.01):
    """A supervisor in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", OWN, str(wait), "3", str(folder), *words(folder, script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_is_passed_on_and_ends_it(tmp_path, name, code):
    supervisor = own(tmp_path, SAVES)
    wait_for((tmp_path / "ready-1").exists)
    supervisor.send_signal(getattr(signal, name))
    said = supervisor.communicate(timeout=30)[1]
    assert supervisor.returncode == code
    assert f"heard {name}\n" in said
    assert "started again" not in said
    (found,) = read(tmp_path / ATTEMPTS)
    assert (found.exit, found.saved) == (code, 1)
    assert alive(found.process["number"]) == []


def test_a_second_ctrl_c_does_not_wait_for_a_training_that_saves(tmp_path):
    supervisor = own(tmp_path, SAVES.replace("save(attempt)", "time.sleep(600)"))
    wait_for((tmp_path / "ready-1").exists)
    session = wait_for(lambda: read(tmp_path / ATTEMPTS))[0].process["number"]
    supervisor.send_signal(signal.SIGINT)
    time.sleep(1.0)
    supervisor.send_signal(signal.SIGINT)
    supervisor.communicate(timeout=30)
    assert supervisor.returncode == 130
    assert alive(session) == []


def test_a_signal_ends_the_wait_between_attempts(tmp_path):
    supervisor = own(tmp_path, "(run / 'ready-1').touch(); beat(); time.sleep(1); sys.exit(1)", wait=600)
    wait_for(lambda: read(tmp_path / ATTEMPTS) and read(tmp_path / ATTEMPTS)[0].end)
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=30)
    assert supervisor.returncode == 75
    assert len(read(tmp_path / ATTEMPTS)) == 1


def test_a_supervisor_that_is_killed_and_started_again_goes_on_with_its_budgets(tmp_path, told):
    script = "beat(); (run / f'ready-{attempt}').touch(); time.sleep(600)"
    for number in (1, 2):
        supervisor = own(tmp_path, script)
        wait_for((tmp_path / f"ready-{number}").exists)
        session = read(tmp_path / ATTEMPTS)[-1].process["number"]
        supervisor.kill()
        supervisor.communicate()
        assert alive(session) == [session]  # the training goes on without it
    folder = tmp_path / "run"
    folder.symlink_to(tmp_path)
    assert supervise(tmp_path, "sys.exit(1)", told) == 1
    found = read(tmp_path / ATTEMPTS)
    assert [each.exit for each in found] == [137, 137, 1]
    assert alive(session) == []
    assert "the training that it left is ended" in told[0]
    assert "not started again: no train step was reached in 3 attempts" in told.text


def test_a_process_that_has_only_the_number_of_an_earlier_training_is_left_alone(tmp_path, told):
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        for process in (
            {"identity": "1", "boot": boot()},
            {"identity": identity(other.pid), "boot": "before"},
        ):
            (tmp_path / "run").mkdir(exist_ok=True)
            start = {"start": 1.0, "host": os.uname().nodename, "before": 0}
            append(tmp_path / "run" / ATTEMPTS, "start", process={"number": other.pid, **process}, **start)
            assert supervise(tmp_path, "", told) == 0
        assert alive(other.pid) == [other.pid]
        end_session(other.pid)
        assert other.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "line", ['{"event": "start"}', '{"event": "train"}', '{"event": "start", "start": 1, "new": 2}']
)
def test_a_ledger_that_is_not_as_it_is_written_is_named(tmp_path, told, line):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ATTEMPTS).write_text(line + "\n")
    with pytest.raises(
        UserError, match=r"attempts\.jsonl: is not as it is written .*; restore it, or delete it"
    ):
        supervise(tmp_path, "", told)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*: Not a directory; mend that"):
        Supervisor(["true"], tmp_path / "file" / "run").run()


@pytest.mark.parametrize(
    "given", [[], ["3"], ["--rehearse", "3", "run"], ["x", "run", "true"], ["0", "run", "true"]]
)
def test_a_command_that_lacks_something_is_refused(given):
    command = [sys.executable, "-m", "jaxformer.launching.supervisor", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).startswith("jaxformer: expected [--rehearse] ATTEMPTS RUN COMMAND ...")
