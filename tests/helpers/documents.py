"""The code of the documents: its blocks, and what it takes to execute them in little time."""

import html
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from markdown import markdown

from jaxformer.config import files

ROOT = Path(__file__).parent.parent.parent
COMMAND = re.compile(r"\$ |launch/|jaxformer |\.venv/bin/|git |export |[A-Z_]+=\S+ |python3")
DATASETS = Path(os.environ.get("TFDS_DATA_DIR") or ROOT.parent / "shared" / "tensorflow_datasets")

# What makes a benchmark short, behind the options that the document gives: the last of equal options counts.
SHORT_BENCHMARKS = {
    "generation": "--quick --rounds 1",
    "gpt_step": "--quick --rounds 1 --steps 1",
    "input_pipeline": "--repeats 1",
    "loop_overhead": "--rounds 1 --steps 2",
    "matching": "--rounds 1",
    "scaling": "--quick",
    "sweep_trial_cost": "--trials 2",
    "supervision": "--rounds 1 --steps 5",
    "tpu_compiled": "--quick",
    "train_step": "--quick --rounds 1 --steps 1",
}
EVERY = ("train.log_every", "eval.every", "checkpoint.every")


@dataclass
class Part:
    """Lines of a document that are executed together: a command with what it prints, or other text (Python, YAML)."""

    text: str
    command: str = ""
    printed: str = ""


def parts(text: str) -> list[Part]:
    """The code blocks of a Markdown text, in parts."""
    found: list[Part] = []
    for block in re.findall(r"<pre><code>(.*?)</code></pre>", markdown(text), re.DOTALL):
        lines = html.unescape(block).replace("\\\n", "").splitlines()
        found.append(Part(""))
        for line in lines:
            if COMMAND.match(line):
                shown = line.startswith("$ ")
                found.append(Part("", command=line.removeprefix("$ "), printed="\n" if shown else ""))
            elif found[-1].printed:
                found[-1].printed += line + "\n"
            elif found[-1].command and line.strip():
                found.append(Part(line + "\n"))
            elif not found[-1].command:
                found[-1].text += line + "\n"
    return [part for part in found if part.command or part.text.strip()]


def commands_of(config: Path) -> list[list[str]]:
    """The commands in the docstring of a config, one list for each argument that it names: what follows on training."""
    docstring = config.read_text().split('"""')[1]
    block = re.search(r"^Command:  (.*\n(?: {10}.*\n)*)", docstring, re.MULTILINE)
    whole = re.sub(r"\\\n +", "", block[1])
    lines = [re.sub(r"  +\(.*", "", line.strip()) for line in whole.splitlines()]
    found: list[list[str]] = []
    for line in (line for line in lines if COMMAND.match(line)):
        optional = re.search(r"\[(:.*?)\]", line)
        arguments = ["", *optional[1].split("|")] if optional else [""]
        variants = [line.replace(optional[0], argument) if optional else line for argument in arguments]
        if found and " train " not in line:
            found[-1] += variants
        else:
            found += [[variant] for variant in variants]
    return found


def shortened(command: str) -> list[str]:
    """The arguments of a command of a document, to this Python; training takes two steps."""
    words = shlex.split(command, comments=True)
    while "=" in words[0].split("/")[0]:  # variables of the environment
        words = words[1:]
    if words[0] == ".venv/bin/python":
        return [*words[1:], *SHORT_BENCHMARKS[Path(words[1]).stem].split()]
    words = ["-m", "jaxformer", *(word.replace("checkpoints/100", "checkpoints/1") for word in words[1:])]
    trains = words[2] in ("train", "sweep") and "--config" in words
    if trains or words[2:4] == ["launch", "local"]:
        nested = files.read(words[words.index("--config") + 1])
        short = {"train.total": "2 steps"} | dict.fromkeys(EVERY, "1 step")
        own = any(word.startswith(("--config.data.name=", "--config.eval.split=")) for word in words)
        split = nested["eval"].get("split", "test")
        short |= {"eval.split": f"{split}[:16]"} if split.isalpha() and not own else {}
        short |= {"schedule.warmup": "1 step"} if "warmup" in nested["schedule"] else {}
        words += [f"--config.{path}={value}" for path, value in short.items()]
    return words


def run(arguments: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Executes Python with these arguments in a folder, as a user would, and shows what a failure printed."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "MPLBACKEND")
    }
    environment |= {"PYTHONPATH": f"{folder}:{ROOT}", "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    environment |= {"JAXFORMER_CACHE": str(folder / "cache"), **variables}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done


def succeeds(arguments: list[str], folder: Path, **variables: str) -> str:
    """What a command prints; an assertion that it ends well and shows no traceback."""
    done = run(arguments, folder, **variables)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    return done.stdout
