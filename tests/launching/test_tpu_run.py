"""Launching on TPU VMs, against a stand-in for gcloud whose workers are folders: the scripts run as they are."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.launches import ROOT, UNSUPERVISED, job, launcher, program

FAKE = Path(__file__).parent / "fake_gcloud.sh"
TRAINER = """
echo "train $*"
if [ "${KILLED-}" ] && [ ! -e killed ]; then touch killed; kill -KILL $$; fi
echo "host ${JAXFORMER_HOST-none}"
echo "revision $JAXFORMER_REVISION"
for step in $(seq "${STEPS:-2}"); do echo "step $step"; sleep "${EACH:-0.02}"; done
mkdir -p "${!#}"
echo done >"${!#}/result.json"
if [ "${CODE:-0}" = 75 ] && [ -e told ]; then exit 0; fi
touch told
exit "${CODE:-0}"
"""
ENVIRONMENT = """
find_python() { echo python3; }
ensure_environment() {
    mkdir -p code/.venv/bin
    cp code/trainer code/.venv/bin/jaxformer
    cp code/supervise code/.venv/bin/python
    echo installed
}
"""
# The other tests look at what goes on outside of a host.
SUPERVISE = f"""
if [ "${{SUPERVISED-}}" ]; then PYTHONPATH={ROOT} exec {sys.executable} "$@"; fi
{UNSUPERVISED}
"""
NUMBER = '[[ $* == */agent-worker-number && $PWD =~ workers/([0-9]+)/ ]] && echo "${BASH_REMATCH[1]}"'


class Cloud:
    """A folder with a checkout, a stand-in for gcloud, and what that has seen."""

    def __init__(self, folder: Path):
        self.home, self.fake, self.bin = folder / "checkout", folder / "fake", folder / "bin"
        for each in (self.home / "launch", self.fake, self.bin):
            each.mkdir(parents=True)
        program(self.home / "trainer", TRAINER)
        program(self.home / "supervise", SUPERVISE)
        (self.home / "launch" / "environment.sh").write_text(ENVIRONMENT)
        (self.home / ".gitignore").write_text("launched/\nruns/\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run(
                ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=self.home, check=True
            )
        (self.bin / "gcloud").symlink_to(FAKE)
        program(self.bin / "sudo", '[ "$1" != tee ] || cat >/dev/null')
        program(self.bin / "curl", NUMBER)
        program(self.bin / "sleep", "exec /bin/sleep 0.02")
        self.started: list[subprocess.Popen] = []
        (self.fake / "project").write_text("my-project\n")
        (self.fake / "account").write_text("me@example.com\n")

    def script(self, flags: str = "", workdir: str = "runs/sample") -> list[str]:
        words = f"--config vit_digits --type v5e-4 --zone us-west4-a --no-preflight --pause 1 {flags}".split()
        made = launcher("tpu", words)
        plan = made.render(job(workdir, "--workdir", workdir))
        for path, text in plan.files.items():
            (self.home / path).parent.mkdir(parents=True, exist_ok=True)
            (self.home / path).write_text(text)
        return list(plan.commands[0])

    def start(self, flags: str = "", workers: int = 1, **options) -> subprocess.Popen:
        env = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "FAKE": str(self.fake),
            "WORKERS": str(workers),
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(self.script(flags, **options), cwd=self.home, env=env, text=True, **pipes)
        self.started.append(process)
        return process

    def end(self) -> None:
        """Ends what still runs, on this machine and on the hosts."""
        for process in self.started:
            process.kill()
            process.communicate()
        for file in self.fake.glob("workers/*/*/pid"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(file.read_text()), signal.SIGKILL)

    def launch(self, flags: str = "", **options) -> tuple[int, str, str]:
        process = self.start(flags, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self) -> list[str]:
        """The subcommands of gcloud that were called, those that follow each other once."""
        found: list[str] = []
        for line in (self.fake / "calls").read_text().splitlines():
            words = line.split()
            name = " ".join(words[2:4]) if words[0] == "compute" else words[0]
            if found[-1:] != [name]:
                found.append(name)
        return found

    def call(self, name: str) -> str:
        """The last call of a subcommand."""
        return [line for line in (self.fake / "calls").read_text().splitlines() if f"tpus {name}" in line][-1]


@pytest.fixture
def cloud(tmp_path):
    made = Cloud(tmp_path)
    yield made
    made.end()


def test_a_slice_is_created_used_and_deleted(cloud):
    code, out, err = cloud.launch("--spot --network research")
    assert code == 0, err
    assert out.splitlines()[-2:] == ["step 1", "step 2"]
    assert "train train --workdir runs/sample" in out
    assert "host none" in out
    assert f"revision {'0123456789abcdef' * 2}01234567" in out
    assert (cloud.home / "runs/sample/result.json").read_text() == "done\n"
    ends = ("--zone=us-west4-a", "--project=my-project", "--quiet", "--verbosity=error")
    made = "compute tpus tpu-vm create sample --accelerator-type=v5litepod-4 --version=v2-alpha-tpuv5-lite"
    assert cloud.call("tpu-vm create") == " ".join([made, "--spot", "--network=research", *ends])
    assert cloud.calls()[-3:] == ["tpu-vm ssh", "tpu-vm scp", "tpu-vm delete"]
    assert not (cloud.fake / "vm").exists()


@pytest.mark.parametrize(
    "state", ["PREEMPTED", *(pytest.param(each, marks=pytest.mark.slow) for each in ("TERMINATED", "FAILED"))]
)
def test_a_slice_that_is_lost_is_deleted_and_made_anew(cloud, state):
    (cloud.fake / "vm").write_text(f"{state}\n")
    code, _, err = cloud.launch()
    assert code == 0, err
    seen = [call for call in cloud.calls() if call.split()[-1] in ("delete", "create")]
    assert seen == ["tpu-vm delete", "tpu-vm create", "tpu-vm delete"]


def test_a_slice_in_an_unknown_state_is_left_alone(cloud):
    (cloud.fake / "vm").write_text("HIDDEN\nREPAIRING\nREADY\n")
    (cloud.fake / "workers/0").mkdir(parents=True)
    assert cloud.launch("--keep")[0] == 0
    assert not [call for call in cloud.calls() if call.split()[-1] in ("delete", "create")]


def test_a_queue_is_waited_for(cloud):
    code, _, err = cloud.launch("--queued --valid-until-duration 6h")
    assert code == 0, err
    assert "--node-id=sample" in cloud.call("queued-resources create")
    assert "--valid-until-duration=6h" in cloud.call("queued-resources create")
    assert "WAITING_FOR_RESOURCES" in err
    assert "--force" in cloud.call("queued-resources delete")
    assert "tpu-vm create" not in cloud.calls()


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_same_command_takes_it_up_again(cloud):
    flags = "--env STEPS=60 --env EACH=0.05"
    first = cloud.start(flags)
    log = cloud.home / "launched/sample/log"
    wait_for(lambda: log.exists() and "step 3" in log.read_text())
    first.send_signal(signal.SIGHUP)
    first.terminate()
    first.communicate(timeout=20)
    code, _, err = cloud.launch(flags)
    assert code == 0, err
    calls = (cloud.fake / "calls").read_text()
    assert calls.count("tpu-vm create") == 1
    assert calls.count("worker.sh start") == 1
    assert log.read_text().split()[-120:] == [word for n in range(1, 61) for word in ("step", str(n))]


@pytest.mark.slow
def test_a_broken_connection_is_made_again(cloud):
    process = cloud.start("--env STEPS=30 --env EACH=0.05")
    log = cloud.home / "launched/sample/log"
    wait_for(lambda: log.exists() and "step 3" in log.read_text())
    (cloud.fake / "broken").write_text("3\n")
    for pid in children(process.pid, "tail"):
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (cloud.fake / "broken").read_text() == "0\n"
    assert [line for line in out.splitlines() if "step" in line] == [f"step {n}" for n in range(1, 31)]


def children(root: int, name: str) -> list[int]:
    """The processes of a name below a process."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()[1:]]
    found, known = [], {root}
    for _ in range(10):
        known |= {int(pid) for pid, parent, _ in rows if int(parent) in known}
    found = [int(pid) for pid, _, comm in rows if int(pid) in known and comm.strip() == name]
    assert found
    return found


def test_a_slice_that_is_taken_away_is_made_anew_and_the_run_goes_on(cloud):
    process = cloud.start("--env STEPS=30 --env EACH=0.05")
    log = cloud.home / "launched/sample/log"
    wait_for(lambda: log.exists() and "step 3" in log.read_text())
    (cloud.fake / "vm").write_text("PREEMPTED\n")
    (cloud.fake / "broken").write_text("2\n")
    for pid in children(process.pid, "tail"):
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (cloud.fake / "calls").read_text().count("tpu-vm create") == 2
    assert "PREEMPTED" in err


@pytest.mark.slow
def test_a_job_that_was_told_to_end_and_is_saved_goes_on(cloud):
    code, _, err = cloud.launch("--env CODE=75")
    assert code == 0, err
    assert (cloud.fake / "calls").read_text().count("worker.sh start") == 2


@pytest.mark.slow
def test_a_training_that_is_killed_is_started_again_on_its_host(cloud):
    code, out, err = cloud.launch("--env SUPERVISED=1 --env KILLED=1 --no-rehearsal")
    assert code == 0, err
    assert "attempt 1 ended at" in out
    assert "exit code 137: killed (SIGKILL)" in out
    assert out.count("train train") == 2
    assert (cloud.fake / "calls").read_text().count("worker.sh start") == 1
    assert (cloud.home / "runs/sample/attempts.jsonl").read_text().count('"event": "start"') == 2


@pytest.mark.parametrize("code", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_the_exit_code_is_the_jobs(cloud, code):
    assert cloud.launch(f"--env CODE={code} --keep")[0] == code
    assert (cloud.fake / "vm").read_text() == "READY\n"
    assert (cloud.home / "runs/sample/result.json").exists()
    assert cloud.launch(f"--env CODE={code}")[0] == code  # it was told; the same command starts it anew
    assert (cloud.fake / "calls").read_text().count("worker.sh start") == 2


def test_a_mistake_leaves_no_run_and_no_slice(cloud):
    code, _, err = cloud.launch("--setup=false")
    assert (code, err.splitlines()[-2]) == (1, "launch: it has left no runs/sample"), err
    assert not (cloud.fake / "vm").exists()
    assert not (cloud.home / "runs").exists()


@pytest.mark.slow
def test_all_hosts_of_a_slice_run_the_job_eight_at_a_time(cloud):
    shared = cloud.home.parent / "shared"
    code, _, err = cloud.launch("--type v5e-64 --keep", workers=16, workdir=f"{shared}/sample")
    assert code == 0, err
    for worker in range(16):
        log = (cloud.fake / f"workers/{worker}/jaxformer-sample/log").read_text()
        assert "train train" in log
        assert f"host {worker}\n" in log
    assert "--worker=8,9,10,11,12,13,14,15 " in cloud.call("tpu-vm ssh")
    assert (cloud.home / "runs/sample/result.json").exists()


@pytest.mark.slow
def test_another_job_is_not_disturbed(cloud):
    first = cloud.start("--env STEPS=60 --env EACH=0.05")
    log = cloud.home / "launched/sample/log"
    wait_for(lambda: log.exists() and "step 3" in log.read_text())
    code, _, err = cloud.launch("--env STEPS=2")
    assert code == 2
    assert err.splitlines()[-1].startswith("launch: another job is running on sample; wait for it")
    _, err = first.communicate(timeout=20)
    assert first.returncode == 0, err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("-account", "gcloud knows no account; first: gcloud auth login"),
        ("-project", "gcloud knows no project; name one, or: gcloud config set project PROJECT"),
        ("dead", "gcloud does not run; install the Google Cloud SDK anew"),
        ("offline", "gcloud does not answer: ERROR: no network"),
        ("full", "sample was not created; gcloud's reason stands above"),
    ],
)
def test_a_gcloud_that_cannot_be_used_is_one_line(cloud, file, message):
    if file.startswith("-"):
        (cloud.fake / file[1:]).unlink()
    else:
        (cloud.fake / file).touch()
    code, out, err = cloud.launch()
    assert (code, out) == (1 if file == "full" else 2, "")
    assert err.splitlines()[-1] == f"launch: {message}"
    assert len(err.splitlines()) <= (4 if file == "full" else 1)


def test_what_does_not_fit_is_not_paid_for(cloud):
    program(cloud.bin / "jaxformer", "exit 1")
    made = launcher("tpu", ["--config", "vit_digits", "--type", "v5e-4", "--zone", "us-west4-a"])
    text = made.render(job("runs/sample")).files["launched/sample/launch.sh"]
    assert "preflight=()" in text
    script = text.replace("preflight=()", "preflight=(jaxformer preflight)")
    (cloud.home / "launched/sample").mkdir(parents=True)
    env = {**os.environ, "PATH": f"{cloud.bin}:{os.environ['PATH']}", "FAKE": str(cloud.fake), "WORKERS": "1"}
    done = subprocess.run(["bash", "-c", script], cwd=cloud.home, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "launch: preflight ended with exit code 1; nothing was created"
    assert not [call for call in cloud.calls() if call.endswith("create")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not here")
def test_the_real_gcloud_knows_every_command_and_flag(cloud, tmp_path):
    """Without an account: it reads the whole command, and then asks to log in. It would refuse a flag before that."""
    flags = "--spot --network n --subnetwork s --service-account a@b.c"
    (cloud.fake / "vm").write_text("STOPPED\nREADY\n")
    (cloud.fake / "workers/0").mkdir(parents=True)
    assert cloud.launch(flags)[0] == 0
    assert cloud.launch(flags)[0] == 0
    assert cloud.launch(f"{flags} --queued --valid-until-duration 6h")[0] == 0
    lines = [line for line in (cloud.fake / "calls").read_text().splitlines() if line.startswith("compute")]
    seen = {" ".join(line.split()[2:4]): line for line in lines}
    names = {f"tpu-vm {verb}" for verb in ("create", "delete", "describe", "scp", "ssh", "start")}
    assert {*seen} == names | {f"queued-resources {verb}" for verb in ("create", "delete", "describe")}
    env = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSDK")}
    env |= {"CLOUDSDK_CONFIG": str(tmp_path / "none"), "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false"}
    for line in seen.values():
        before, command, rest = line.partition(" --command=")
        words = [*before.split(), *([f"--command={rest.partition(' --zone')[0]}"] if command else [])]
        words += f"--zone{rest.partition(' --zone')[2]}".split() if command else []
        done = subprocess.run(
            ["gcloud", *words], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert "You do not currently have an active account selected" in done.stderr, done.stderr
