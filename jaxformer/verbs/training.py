"""Training a config, looking at runs, and describing what a config would take."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from jaxformer.errors import UserError
from jaxformer.verbs.common import Overrides, use_compilation_cache


def train(arguments: Namespace, overrides: Overrides) -> int:
    """Trains, or goes on; 75 if SIGTERM came and the run was saved."""
    from jaxformer.config import files as configfile

    config = configfile.read(arguments.config, overrides)
    use_compilation_cache()
    from jaxformer.config.sections import resolve
    from jaxformer.observe.logs import make_console, terminal_logging
    from jaxformer.preemption import EXIT_CODE
    from jaxformer.train import NotFinite
    from jaxformer.train import train as run

    experiment = resolve(config)
    folder = arguments.run or Path("runs") / run_name(arguments.config)
    console = make_console()
    with terminal_logging(console):
        try:
            result = run(experiment, folder, profile=arguments.profile, console=console)
        except NotFinite as error:
            sys.stderr.write("".join(f"jaxformer: {line}\n" for line in error.lines))
            return 1
    return EXIT_CODE if result["status"] == "preempted" else 0


def run_name(config: str) -> str:
    """ "configs/vit_digits.py:small" as "vit_digits-small"."""
    name, _, argument = config.partition(":")
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in argument)
    return Path(name).stem + (f"-{safe}" if safe else "")


def report(arguments: Namespace, overrides: Overrides) -> int:
    """Writes a run's report, or a comparison and its table; prints where it is."""
    from jaxformer.observe.comparison import compare_runs
    from jaxformer.observe.report import write_report

    if len(arguments.runs) > 1:
        written = arguments.output or Path("comparison.html")
        sys.stdout.write(f"{compare_runs(arguments.runs, written)}\n")
    elif arguments.output is not None:
        raise UserError("--output is for comparisons of several runs; a run's report is RUN/report.html")
    else:
        written = write_report(arguments.runs[0])
    sys.stdout.write(f"{written}\n")
    return 0


def describe(arguments: Namespace, overrides: Overrides) -> int:
    """Prints what a config would train and what it would take."""
    mesh = parse_mesh(arguments.mesh)
    if mesh is not None:
        pretend_devices(mesh)
    from jaxformer.analysis.describe import assemble, for_preset
    from jaxformer.analysis.describe import describe as text_of
    from jaxformer.config import files as configfile

    if arguments.config is not None:
        config = configfile.read(arguments.config, overrides)
    else:
        config = for_preset(arguments.preset)
        configfile.apply_overrides(config, overrides)
    if mesh is not None:
        config["parallel"] = {"mode": "jit", "mesh": mesh}
    use_compilation_cache()
    from jaxformer.config.sections import resolve
    from jaxformer.observe.text import counted

    experiment = assemble(resolve(config))
    experiment.check()
    if not arguments.no_compile:
        devices = counted(experiment.layout.mesh.size, "device")
        sys.stderr.write(f"compiling the train step for {devices}; --no-compile leaves that out\n")
    sys.stdout.write(text_of(experiment, compile_step=not arguments.no_compile) + "\n")
    return 0


def parse_mesh(text: str | None) -> dict[str, int] | None:
    """ "data=8,fsdp=4" as a dict; every size must be given, since no device is here to count."""
    if text is None:
        return None
    mesh = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not size.isdecimal() or int(size) < 1:
            raise UserError(
                f"--mesh {text}: expected AXIS=SIZE, ... with sizes of 1 or more, as in data=8,fsdp=4"
            )
        if name.strip() in mesh:
            raise UserError(f"--mesh {text}: {name.strip()} is there twice; give it once")
        mesh[name.strip()] = int(size)
    return mesh


def pretend_devices(mesh: dict[str, int]) -> None:
    """Makes JAX show as many CPU devices as the mesh has; before JAX has looked for devices."""
    count = 1
    for size in mesh.values():
        count *= size
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of XLA errors alone: it warns of how arrays move
