"""Starts a training, and starts it again when it dies, as long as it makes progress: one supervisor for each machine,
or for each process where a system starts them one by one.

Several machines need no protocol: where one process of a training dies, the others end, too, within the time of the
coordination service's heartbeat; each machine's supervisor starts its own again, and they find each other anew.
The memory is the ledger in the run's folder (`attempts.py`): a supervisor that is killed and started again goes on with
its budgets. The rules are in `decisions.py`. Python's standard library alone, so that it survives what kills trainings.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from jaxformer.errors import UserError, printable
from jaxformer.files import FULL, locked, naming_files
from jaxformer.launching import ATTEMPTS, HEARTBEATS, HOST, HUNG, REHEARSE
from jaxformer.launching import attempts as ledger
from jaxformer.launching.attempts import Attempt
from jaxformer.launching.decisions import KILLED, Budgets, Restart, Stop, decide, kind_of, meaning
from jaxformer.launching.processes import STATE, alive, boot, end_session, family, identity, stat
from jaxformer.preemption import Preempted, Preemption, ProcessSignals, farewell, leave

SILENCE = 12.0  # seconds without a heartbeat after which a training is killed; it beats once a second
LOOK = 0.5  # seconds between two looks at the training
TAIL = 2**17  # bytes of its last output that are kept
OURS = re.compile(r"(process \d+: )?jaxformer: ")  # begins the line in which a training says why it ends
TRACEBACK = re.compile(r"^(.*)Traceback \(most recent call last\):\n(?:\1 .*\n)*\1\S.*$", re.MULTILINE)


def say(line: str) -> None:
    """Writes a line to standard error, beside what the training writes there."""
    with suppress(OSError):
        os.write(2, f"{printable(line, keep='')}\n".encode())


class Child:
    """A training, as a process that leads a session: all that it starts is ended with it.

    Args:
      command: its words.
      beats: an empty folder for its heartbeats.
    """

    def __init__(self, command: Sequence[str], beats: Path):
        self.beats, self.heard = beats, dict[Path, tuple[int, float]]()
        self.stopped, self.steps = dict[int, int](), 0
        self.said = b""
        environment = {**os.environ, HEARTBEATS: str(beats)}
        self.process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stderr is not None
        self.pipe = self.process.stderr
        self.copier = threading.Thread(target=self.copy, daemon=True)
        self.copier.start()

    def copy(self) -> None:
        """Passes on what it writes to standard error, and keeps the end of it."""
        while block := os.read(self.pipe.fileno(), 2**16):
            self.said = (self.said + block)[-TAIL:]
            with suppress(OSError):
                os.write(2, block)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: object) -> None:
        end_session(self.process.pid)
        self.process.wait()
        self.copier.join(5.0)
        self.pipe.close()

    def wait(self, requested: Callable[[], signal.Signals | None], silence: float = SILENCE) -> int:
        """Its exit code when it has ended, or has been silent for too long.

        Args:
          requested: the signal that has asked this process to end, if one has; it is passed on.
          silence: seconds without a heartbeat.
        """
        passed_on = False
        while (code := self.ended()) is None:
            if (came := requested()) and not passed_on:
                passed_on = True
                self.process.send_signal(came)
            if self.listen() * LOOK > silence:
                self.process.send_signal(signal.SIGABRT)  # it writes its stacks, if it still can
                self.ended(2.0)
                return HUNG
        return code

    def ended(self, seconds: float = LOOK) -> int | None:
        """Its exit code as a shell has it; None if it still runs after so many seconds."""
        self.copier.join(
            seconds
        )  # its output ends with it, mostly; to wait for a process is to ask again and again
        try:
            code = self.process.wait(0 if self.copier.is_alive() else seconds)
        except subprocess.TimeoutExpired:
            return None
        return 128 - code if code < 0 else code

    def listen(self) -> int:
        """In how many looks in a row the quietest of its processes gave no sign of life; notes the steps taken.

        Looks are counted, not seconds: a machine that stood still has stopped the processes and this one alike.
        """
        stopped = [n for n in family(self.process.pid) if stat(n)[STATE : STATE + 1] == ["T"]]
        self.stopped = {n: self.stopped.get(n, 0) + 1 for n in stopped}  # before their hearts beat, too
        heard = {}
        for path in self.beats.iterdir():
            with suppress(OSError, ValueError):
                beat = path.stat().st_mtime
                silent, before = self.heard.get(path, (0, None))
                heard[path] = (silent + 1, before) if beat == before else (0, beat)
                self.steps = max(self.steps, int(path.read_text() or 0))
        self.heard = heard
        return max([0, *self.stopped.values(), *(silent for silent, _ in heard.values())])

    def output(self) -> str:
        """The end of what it wrote to standard error."""
        return self.said.decode(errors="replace").replace("\r\n", "\n")


@dataclass
class Supervisor:
    """Runs a training until it is done, or it makes no sense to start it again."""

    command: Sequence[str]
    """The training's words: this machine's part of it."""
    folder: Path
    """The run's folder; it is made if it is not there."""
    budgets: Budgets = Budgets()
    """How often it may be started again."""
    say: Callable[[str], None] = say
    """Takes lines for people."""
    ledger: str = ATTEMPTS
    """The name of the ledger in that folder; supervisors of several machines that share the folder have one each."""
    rehearses: bool = False
    """Whether a new training is rehearsed first: its command takes REHEARSE at its end."""
    unwritten: list[tuple[str, dict[str, Any]]] = field(default_factory=list, init=False)
    """Lines of the ledger for which there was no room."""

    @property
    def path(self) -> Path:
        """The ledger."""
        return self.folder / self.ledger

    def run(self) -> int:
        """Supervises; returns the last exit code: 0 done, 2 a mistake of the user's, others as in `decisions.EXITS`.

        Raises:
          Preempted: SIGTERM or SIGHUP came; it was passed on to the training, which has ended.
          KeyboardInterrupt: Ctrl-C did. A second one does not wait for the training to save.
          UserError: another supervisor is at work in the folder, or a file cannot be written.
        """
        new, lock = not self.folder.exists(), self.folder / f".{self.ledger}.lock"
        busy = f"{self.folder}: another supervisor is at work in this folder"
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)  # a second Ctrl-C ends the training, too, before it ends this process
        with Preemption() as signals, naming_files(self.folder, "mend that, and start it again"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(lock, UserError(busy, "wait until it ends, or end it")), signals.deferred():
                code = self.until_it_ends(signals)
        if code == 2 and new:  # what was refused leaves nothing behind
            with suppress(OSError):
                self.path.unlink()
                self.folder.rmdir()
        return code

    def until_it_ends(self, signals: Preemption) -> int:
        """Makes attempts until one is the last, or a signal has come.

        Raises:
          UserError: the ledger is not as it is written.
        """
        try:
            history, rehearsal = self.counted_before(), self.to_be_rehearsed()
        except (LookupError, TypeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{self.path}: is not as it is written ({what}); restore it, or delete it"
            ) from error
        while True:
            command = [*self.command, REHEARSE] if rehearsal else self.command
            with tempfile.TemporaryDirectory() as beats, Child(command, Path(beats)) as child:
                history.append(self.begin(child, rehearsal))

                def look() -> signal.Signals | None:
                    self.note_what_is_unwritten()
                    return signals.requested

                code = child.wait(look)
            self.finish(history[-1], code, child.steps)
            rehearsal = rehearsal and code != 0
            decision = decide(history, self.budgets)
            if isinstance(decision, Stop):
                self.note("stop", why=decision.why)
            if signals.requested:
                return code
            self.report(history, decision, child.output())
            if isinstance(decision, Stop):
                return code
            until = time.monotonic() + decision.after
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(LOOK, left))
                if signals.requested:
                    return code

    def to_be_rehearsed(self) -> bool:
        """Whether this is a new training that is to be rehearsed; several supervisors ask the first one's ledger."""
        begun = ledger.newest_checkpoint(self.folder) or ledger.rehearsed(self.folder / ATTEMPTS)
        return self.rehearses and not begun

    def counted_before(self) -> list[Attempt]:
        """The attempts that a supervisor counted that has died; what it has left running on this machine is ended."""
        history = ledger.since_stop(self.path)
        if history and (last := history[-1]).end is None:
            number = last.process["number"]
            here = last.host == socket.gethostname() and last.process["boot"] == boot()
            if here and identity(number) in (last.process["identity"], None) and alive(number):
                self.say("jaxformer: the supervisor before this one died; the training that it left is ended")
                end_session(number)
            self.finish(last, KILLED, last.marks[-1].step - (last.first or 0) if last.marks else 0)
        return history

    def begin(self, child: Child, rehearsal: bool) -> Attempt:
        """The attempt that a process is; it is in the ledger."""
        number = child.process.pid
        values: dict[str, Any] = {
            "start": time.time(),
            "rehearsal": rehearsal,
            "host": socket.gethostname(),
            "process": {"number": number, "identity": identity(number), "boot": boot()},
            "before": ledger.newest_checkpoint(self.folder),
        }
        self.note("start", **values)
        return Attempt(supervised=True, **values)

    def finish(self, attempt: Attempt, code: int, steps: int) -> None:
        """Notes the end of an attempt, in the ledger, too."""
        values = {"end": time.time(), "exit": code, "why": meaning(code), "steps": steps}
        values["saved"] = ledger.newest_checkpoint(self.folder)
        vars(attempt).update(values)
        self.note("end", **values)

    def note(self, event: str, **values: Any) -> None:
        """Adds a line to the ledger; where the disk is full, as soon as there is room."""
        self.unwritten.append((event, values))
        self.note_what_is_unwritten()

    def note_what_is_unwritten(self) -> None:
        """Adds the lines that are not in the ledger yet, as far as there is room."""
        try:
            while self.unwritten:
                event, values = self.unwritten[0]
                ledger.append(self.path, event, **values)
                del self.unwritten[0]
        except OSError as error:
            if error.errno not in FULL:
                raise

    def report(self, history: Sequence[Attempt], decision: Restart | Stop, output: str) -> None:
        """Says how an attempt ended and what follows; at the end of a training that failed, its first traceback."""
        last = history[-1]
        if last.exit == 0:
            return
        over = kind_of(last.exit) == "over"
        at = time.strftime("%H:%M:%S", time.localtime(last.end))
        saved = f"newest checkpoint: step {last.saved:,}" if last.saved else "no checkpoint yet"
        number = sum(not each.rehearsal for each in history)
        which = "the rehearsal" if last.rehearsal else f"attempt {number}"
        self.say(f"jaxformer: {which} ended at {at}, exit code {last.exit}: {last.why}; {saved}")
        if over:
            return
        lines = [line for line in output.splitlines() if line.strip()]
        ours = [line for line in lines if OURS.match(line)] if last.exit < 128 else []
        for line in (ours or lines)[-1:]:
            self.say(f"jaxformer: its last line: {line.strip()[:500]}")
        if isinstance(decision, Restart):
            wait = f"in {decision.after:.0f} s" if decision.after >= 1 else "at once"
            self.say(f"jaxformer: it is started again {wait}")
            return
        self.say(f"jaxformer: it is not started again: {decision.why}")
        if first := TRACEBACK.search(output):
            self.say("jaxformer: the first traceback of that attempt:")
            for line in first[0].splitlines():
                self.say(f"  {line}")


def ledger_here() -> str:
    """The name of this supervisor's ledger: that of the run where process 0 trains, which writes there, too."""
    numbers = (os.environ.get(name) for name in (HOST, "JAXFORMER_PROCESS", "SLURM_PROCID"))
    number = next(filter(None, numbers), "0")
    return f"attempts-{number}.jsonl" if number.strip("0.") else ATTEMPTS  # of several slices: SLICE.POD


def main() -> NoReturn:
    """The command `python -m jaxformer.launching.supervisor [REHEARSE] ATTEMPTS RUN WORDS ...`, without a verb."""
    with ProcessSignals():
        rehearses = sys.argv[1:2] == [REHEARSE]
        given = sys.argv[1 + rehearses :]
        try:
            if len(given) < 3 or not (given[0].isdecimal() and int(given[0])):
                raise UserError(
                    f"expected [{REHEARSE}] ATTEMPTS RUN COMMAND ..., was given {shlex.join(given)!r}"
                )
            attempts, folder, *words = given
            budgets = Budgets(int(attempts))
            code = Supervisor(words, Path(folder), budgets, ledger=ledger_here(), rehearses=rehearses).run()
        except (KeyboardInterrupt, Preempted) as stop:
            code = farewell(stop)
        except UserError as error:
            code = error.code
            for line in error.lines:
                say(f"jaxformer: {line}")
    leave(code)


if __name__ == "__main__":
    main()
