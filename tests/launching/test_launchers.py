"""What every launcher in the table keeps to: documented fields, pure rendering, quoting, dry runs that do nothing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.documents import parts
from helpers.launches import (
    CHECKOUT,
    COMMANDS,
    HOSTILE,
    RENDERED,
    ROOT,
    UNSUPERVISED,
    bash,
    job,
    launcher,
    plan,
    program,
    rendered,
)

from jaxformer import cli, runs
from jaxformer.config import schema
from jaxformer.config.reference import field_docs
from jaxformer.launching import LAUNCHERS
from jaxformer.launching.base import Launcher, Plan, exported, flags, to_yaml
from jaxformer.launching.checkout import checkout


@pytest.fixture(params=sorted(LAUNCHERS))
def name(request):
    return request.param


def test_every_launcher_has_a_command_that_is_rendered(name):
    assert name in COMMANDS


def test_the_fields_are_documented(name):
    cls = cli.verb_class(f"launch {name}")
    assert issubclass(cls, Launcher)
    docs = field_docs(cls)
    assert not [field for field in schema.config_fields(cls) if not docs.get(field)]
    assert cls.__doc__


def test_rendering_is_pure(name, monkeypatch, tmp_path):
    verb = launcher(name, COMMANDS[name])
    made = job(verb.folder("sample") if name != "tpu" else "/mnt/sample")
    monkeypatch.chdir(tmp_path)
    for function in ("run", "Popen", "check_output"):
        monkeypatch.setattr(subprocess, function, None)
    assert verb.render(made) == verb.render(made)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", RENDERED)
def test_examples_are_what_the_code_renders(file):
    assert (ROOT / file).read_text() == rendered(file)


@pytest.mark.parametrize("file", [file for file in RENDERED if file.endswith((".sh", ".sbatch"))])
def test_scripts_are_sound(file):
    assert subprocess.run(["bash", "-n", ROOT / file], capture_output=True, text=True).stderr == ""
    if not (
        shellcheck := shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    ):
        pytest.skip("shellcheck is not there (the extra test has it)")
    done = subprocess.run([shellcheck, "--shell=bash", ROOT / file], capture_output=True, text=True)
    assert done.stdout == ""


def test_a_dry_run_prints_a_script_that_does_the_same_and_does_nothing(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    (tmp_path / "git").symlink_to(shutil.which("git") or "git")
    monkeypatch.setenv("PATH", str(tmp_path))  # no other program is there
    assert cli.main(["launch", name, *COMMANDS[name].split(), "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert not (ROOT / "launched").exists()
    monkeypatch.undo()
    made = plan(name, COMMANDS[name])
    commands = script.splitlines()[-len(made.commands) :]
    assert [shlex.split(line) for line in commands] == [list(words) for words in made.commands]
    assert bash("".join(script.splitlines(keepends=True)[: -len(made.commands)]), tmp_path).returncode == 0
    for path in made.files:
        assert (tmp_path / path).read_text().splitlines()[:2] == made.files[path].splitlines()[:2]


def test_the_end_of_a_file_in_a_script_is_not_in_the_file(tmp_path):
    text = "EOF\nEOF_\nEOF__ \n$HOME\n"
    assert bash(Plan({"a/b c": text}, ()).script(), tmp_path).returncode == 0
    assert (tmp_path / "a" / "b c").read_text() == text


def expanded(text: str) -> str:
    """A text as Kubernetes gives it to a container, whose variables are all "EXPANDED" (its package `expansion`)."""
    return re.sub(r"\$\$|\$\(\w+\)", lambda found: "$" if found[0] == "$$" else "EXPANDED", text)


def words_run(name: str, words: list[str], folder: Path) -> list[str]:
    """The words with which a launcher's script or manifest starts the training."""
    program(folder / "jaxformer", 'printf "%s\\0" "$@" >words')
    program(folder / "srun", 'while [ "$1" != python ]; do shift; done; exec "$@"')
    program(folder / "python", UNSUPERVISED)
    verb = launcher(name, COMMANDS[name])
    workdir = verb.folder("sample") if name != "tpu" else "/mnt/sample"
    if name == "local":  # no shell is between
        (command,) = verb.render(job(workdir, *words)).commands
        return list(command[command.index("jaxformer") + 1 :])
    files = verb.render(job(workdir, *words)).files
    if name == "k8s":
        found = next(yaml.safe_load(text) for text in files.values())
        spec = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        command = [expanded(word) for word in spec["containers"][0]["command"]]
        return command[command.index("jaxformer") + 1 :]
    if name == "skypilot":
        script = next(yaml.safe_load(text) for text in files.values())["run"]
    elif name == "tpu":
        text = next(text for path, text in files.items() if path.endswith("worker.sh"))
        script = text.partition("# What a launch does")[0] + '"${command[@]}"'
    else:
        script = next(iter(files.values()))
    done = bash(script, folder, SKYPILOT_NODE_IPS="a\nb", SKYPILOT_NUM_NODES="2", SKYPILOT_NODE_RANK="0")
    assert done.returncode == 0, done.stderr
    return (folder / "words").read_text().split("\0")[:-1]


def test_words_arrive_as_they_were_given(name, tmp_path):
    assert words_run(name, HOSTILE, tmp_path) == ["train", *HOSTILE]
    assert not (tmp_path / "made").exists()


def test_the_training_runs_under_a_supervisor_that_knows_its_folder_and_budget(name):
    verb = launcher(name, [*COMMANDS[name].split(), "--attempts", "7"])
    workdir = verb.folder("sample") if name != "tpu" else "/mnt/sample"
    made = verb.render(job(workdir))
    words = f"python -m jaxformer.launching.supervisor --rehearse 7 {workdir} "
    texts = [*made.files.values(), *map(shlex.join, made.commands)]
    if name == "k8s":
        texts = [" ".join(text.replace("'", "").replace("- ", "").split()) for text in texts]
    assert sum(text.count(words) for text in texts) == 1


@pytest.mark.parametrize("value", ["1e3", "0o17", "0x1F", "12", "-.5", "y", "No", "null"])
def test_texts_that_look_like_something_else_are_quoted(value):
    """Also for parsers of YAML 1.2, as Go's, which take "1e3" for a number."""
    assert to_yaml({"value": value}) == f"value: '{value}'\n"


def test_variables_arrive_as_they_were_given(name, tmp_path):
    value = 'it\'s $(touch made) "$HOME" `touch made` a$$b$$(PATH)$(PATH)'
    made = launcher(name, [*COMMANDS[name].split(), "--env", f"SAID={value}"])
    if name == "local":
        assert f"SAID={value}" in made.render(job("runs/x")).commands[0]
        return
    text = next(reversed(made.render(job(made.folder("x") if name != "tpu" else "/mnt/x")).files.values()))
    if name in ("k8s", "skypilot"):
        given = expanded(str(yaml.safe_load(text))) if name == "k8s" else str(yaml.safe_load(text))
        assert value in given.replace("\\'", "'")
    else:
        line = exported({"SAID": value})
        assert line in text or repr_in_bash(line, tmp_path) in text
        assert bash(line + 'printf %s "$SAID"', tmp_path).stdout == value
    assert not (tmp_path / "made").exists()


def repr_in_bash(line: str, folder: Path) -> str:
    """A line as it stands in a text that is quoted for bash once more."""
    return line.replace("'", "'\"'\"'")


@pytest.mark.parametrize(
    ("accelerators", "mode"), [("H100:8", "MOUNT_CACHED"), ("tpu-v5litepod-16", "MOUNT")]
)
def test_a_bucket_is_mounted_so_that_files_in_it_can_be_appended_to(accelerators, mode):
    """SkyPilot's documentation (Storage modes): MOUNT appends to nothing, but on gcsfuse."""
    words = f"--accelerators {accelerators} --infra gcp --bucket gs://b --config vit_digits".split()
    made = launcher("skypilot", words).render(job("/checkpoints/sample"))
    (task,) = map(yaml.safe_load, made.files.values())
    assert task["file_mounts"] == {"/checkpoints": {"source": "gs://b", "mode": mode}}


def test_flags_of_other_programs():
    assert flags(node_id=1, spot=True, network=None, keep=False, zone="a") == [
        "--node-id=1",
        "--spot",
        "--zone=a",
    ]


def documented() -> list[str]:
    found = [part.command for part in parts((ROOT / "docs/launching.md").read_text())]
    return [command for command in found if command.startswith("jaxformer launch ")]


@pytest.mark.parametrize("command", documented())
def test_commands_of_the_document_are_rendered(command):
    _, _, name, *words = shlex.split(command.replace("IMAGE", "image"))
    verb = launcher(name, words)
    verb.check()
    assert verb.render(replace(verb.training(None), checkout=CHECKOUT)).commands


def test_the_document_has_every_launcher():
    assert {command.split()[2] for command in documented()} == {*LAUNCHERS}


def test_a_checkout_knows_its_changes(tmp_path):
    assert checkout(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "kept").write_text("1")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    first = checkout(tmp_path)
    assert first is not None
    assert (len(first.revision), first.is_changed, first.unknown) == (40, False, ())
    (tmp_path / "kept").write_text("2")
    (tmp_path / "new").write_text("3")
    changed = checkout(tmp_path)
    (tmp_path / "kept").write_text("4")
    other = checkout(tmp_path)
    assert changed is not None
    assert other is not None
    assert changed.revision.startswith(f"{first.revision}+changes-")
    assert changed.revision != other.revision
    assert changed.unknown == ("new",)


def test_copied_code_knows_its_revision(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "runs.py"))
    monkeypatch.delenv("JAXFORMER_REVISION", raising=False)
    assert runs.git_revision() is None
    monkeypatch.setenv("JAXFORMER_REVISION", "0123")
    assert runs.git_revision() == "0123"


TPU = "tpu --config vit_digits --zone us-west4-a --type"
K8S = "k8s --config vit_digits --image i --volume runs:/runs"
SKY = "skypilot --config vit_digits --bucket gs://b --accelerators"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{TPU} v5e-7", "--type v5e-7: there is no such slice; the nearest are "),
        (f"{TPU} q5", "--type q5: no TPU slice; expected a name such as "),
        (f"{TPU} tpu7x-8", "--type tpu7x-8: is not served as TPU VMs; launch it on Kubernetes"),
        ("tpu --config vit_digits --type v5e-4", "launch tpu: --zone is missing"),
        (
            "tpu --config vit_digits --type v5e-4 --zone us",
            "--zone us: expected a zone, such as us-central2-b",
        ),
        (f"{TPU} v5e-4 --project X", "--project X: expected the identifier of a project"),
        (f"{TPU} v5e-4 --name Big_One", "--name Big_One: expected 40 lower-case letters, digits and "),
        (
            f"{TPU} v5e-4 --valid-until-duration 6h",
            "--valid-until-duration: is for the queue; give --queued, too",
        ),
        (f"{TPU} v5e-4 --env A", "--env A: expected NAME=VALUE"),
        (f"{TPU} v5e-4 --workdir=-rf", "--workdir -rf: expected the name of a folder as the hosts see it"),
        (f"{TPU} v5e-4 --workdir .", "--workdir .: expected the name of a folder as the hosts see it"),
        (
            f"{SKY} H100:8 --workdir /checkpoints/../etc",
            "--workdir /checkpoints/../etc: expected the name of ",
        ),
        (
            f"{TPU} v5e-16",
            "--workdir runs/vit_digits: would lie on each host's own disk, and 4 hosts write one run",
        ),
        (
            f"{TPU} v6e-256 --workdir /mnt/a --config.data.batch_size=96",
            "data.batch_size=96 is not a multiple of 256 devices: use 256",
        ),
        (
            f"{TPU} v5e-4 --config.train.totl=3",
            "train.totl: TrainConfig has no field 'totl'; did you mean 'total'?",
        ),
        (
            "slurm --config vit_digits --array 0-3",
            "--workdir: all tasks would train in the same folder; write {task} ",
        ),
        (
            "slurm --config vit_digits --workdir runs/a-{task}",
            "--workdir: {task} is the number of a task of ",
        ),
        (
            "local --config vit_digits --workdir runs/a-{task}",
            "--workdir: {task} is the number of a task of ",
        ),
        (
            "slurm --config vit_digits --config.seed={task}",
            "seed: {task} is the number of a task of `launch slurm --array`, and there are none here",
        ),
        ("slurm --config vit_digits --array x", "--array x: expected numbers, as in 0-31%8"),
        (
            "slurm --config vit_digits --array 1,5-3 --workdir runs/a-{task}",
            "--array 1,5-3: goes from 5 down to 3; write 3-5",
        ),
        (f"{SKY} tpu-v99-8", "--accelerators tpu-v99-8: no TPU slice; expected a name such as "),
        (f"{SKY} H100:8 --bucket gs://b:{{}}#", "--bucket gs://b:{}#: expected a bucket's address, as in "),
        (f"{K8S}#", "--volume runs:/runs#: expected CLAIM:/FOLDER, as in runs:/runs"),
        (
            "slurm --config vit_digits --gpus 8 --gpus-per-process 3",
            "--gpus-per-process 3: does not divide the 8 GPUs",
        ),
        ("slurm --config vit_digits --gpus-per-process 2", "--gpus-per-process: give --gpus, too"),
        (
            "slurm --config vit_digits --nodes 3 --config.data.batch_size=64",
            "data.batch_size=64 is not a multiple of 3 devices: use 63",
        ),
        (
            "local --config vit_digits --processes 2 --devices-per-process 3 --config.data.batch_size=64",
            "data.batch_size=64 is not a multiple of 6 devices: use 66",
        ),
        (
            "slurm --config vit_digits --nodes 2 --gpus 8 --config.parallel.mesh={'fsdp':8}",
            "parallel.mesh: fsdp=8 does not make up the 16 devices",
        ),
        (
            f"{K8S} --slice tpu7x-8 --config.data.batch_size=12",
            "data.batch_size=12 is not a multiple of 8 devices: use 16",
        ),
        (
            f"{SKY} H100:8 --nodes 2 --config.data.batch_size=24",
            "data.batch_size=24 is not a multiple of 16 devices: use 32",
        ),
        ("slurm --config vit_digits --time tomorrow", "--time tomorrow: expected a time limit"),
        (
            "slurm --config vit_digits --option a=b;c",
            "--option a=b;c: expected NAME or NAME=VALUE, as in mem=64G",
        ),
        ("slurm --config vit_digits --partition a'b", "--partition a'b: expected one word"),
        (K8S, "--slice: give one of --slice and --gpus"),
        (f"{K8S} --gpus 8 --slices 2", "--slices: are of TPUs; give --nodes"),
        (f"{K8S} --slice v5e-16 --nodes 2", "--nodes: follow from the slice; leave it out"),
        (f"{K8S} --slice v5e-17", "--slice v5e-17: there is no such slice"),
        (
            f"{K8S} --gpus 8 --workdir runs/a",
            "--workdir runs/a: is not on the volume, and would be lost with the pods",
        ),
        ("k8s --config vit_digits --gpus 8 --image i --volume runs", "--volume runs: expected CLAIM:/FOLDER"),
        (
            f"{SKY.replace('gs:', 's3:')} H100:8 --nodes 2",
            "--bucket s3://b: several machines write to one folder, and of mounted buckets only Google's",
        ),
        (
            f"{SKY.replace('gs:', 's3:')} tpu-v5litepod-16",
            "--bucket s3://b: several machines write to one folder, and of mounted buckets only Google's",
        ),
        (
            f"{SKY} H100:8 --workdir runs/a",
            "--workdir runs/a: is not in the bucket, and would be lost with the machines",
        ),
        (f"{SKY} tpu-v5e-5", "--accelerators tpu-v5e-5: there is no such slice"),
        (
            f"{SKY} tpu-v5litepod-16 --nodes 2",
            "--nodes: slices that train together are launched on Kubernetes",
        ),
        ("nowhere --config vit_digits", "launch nowhere: there is no such verb; there are: k8s, "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(command, message, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Launcher, "run", None)
    assert cli.main(["launch", *command.split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    shown = [line for line in lines if "git does not know" not in line and "tracked files" not in line]
    assert shown[0].startswith(f"jaxformer: {message}")
    assert len(shown) <= 2


def test_code_is_copied_from_the_top_of_a_checkout_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["launch", *f"{TPU} v5e-4".split()]) == 2
    assert "and this is none; launch from the top of a clone" in capsys.readouterr().err


def test_a_config_that_git_does_not_know_would_not_be_copied(tmp_path, monkeypatch, capsys):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    (tmp_path / "mine.py").write_text((ROOT / "configs/vit_digits.py").read_text())
    monkeypatch.chdir(tmp_path)
    assert cli.main(["launch", *f"{TPU} v5e-4 --config mine.py".split()]) == 2
    assert "mine.py: git does not know this file, so that it would not be copied" in capsys.readouterr().err
