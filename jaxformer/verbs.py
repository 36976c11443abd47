"""What each verb of the command line does. Each takes the parsed flags and the overrides; returns an exit code."""

import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError

OVERRIDES = list[str]


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs (JAX_COMPILATION_CACHE_DIR; default ~/.cache/jaxformer/xla)."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxformer" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def train(arguments: Namespace, overrides: OVERRIDES) -> int:
    """Trains, or goes on; 75 if SIGTERM came and the run was saved."""
    from jaxformer import configfile

    config = configfile.read(arguments.config, overrides)
    use_compilation_cache()
    from jaxformer.config import resolve
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


def evaluate(arguments: Namespace, overrides: OVERRIDES) -> int:
    """Evaluates a checkpoint; prints the metrics as JSON."""
    use_compilation_cache()
    from jaxformer.evaluation.evaluator import evaluate as measure
    from jaxformer.files import to_json, write_json
    from jaxformer.inference.restore import Trained
    from jaxformer.observe.logs import make_console, terminal_logging

    with terminal_logging(make_console()):
        trained = Trained(arguments.run, arguments.checkpoint, split=arguments.split)
        assembly = trained.assembly
        evaluation = measure(
            assembly.eval_step(), trained.variables, assembly.task, assembly.eval_batches, assembly.layout
        )
    written = {"step": trained.step, "metrics": evaluation.metrics, **evaluation.tables}
    if arguments.split is None:
        write_json(trained.run.evaluation, written)
    split = assembly.experiment.eval.split
    printed = {"step": trained.step, "split": split, **evaluation.metrics}
    sys.stdout.write(json.dumps(to_json(printed), allow_nan=False) + "\n")
    return 0


def predict(arguments: Namespace, overrides: OVERRIDES) -> int:
    """Classifies image files; prints a JSON line a file."""
    use_compilation_cache()
    from jaxformer.inference.predict import predict_files
    from jaxformer.inference.restore import Trained
    from jaxformer.observe.logs import make_console, terminal_logging

    with terminal_logging(make_console()):
        trained = Trained(arguments.run, arguments.checkpoint)
        predict_files(
            arguments.images,
            trained.probabilities,
            trained.preprocess,
            trained.class_names,
            arguments.output or arguments.run / "predictions",
            top=arguments.top,
            skip_broken=arguments.skip_broken,
            batch_size=trained.batch_size,
            lines=sys.stdout,
        )
    return 0


def report(arguments: Namespace, overrides: OVERRIDES) -> int:
    """Writes a run's report, or a comparison; prints where it is."""
    from jaxformer.observe.report import compare_runs, write_report

    if len(arguments.runs) > 1:
        written = compare_runs(arguments.runs, arguments.output or Path("comparison.html"))
    elif arguments.output is not None:
        raise UserError("--output is for comparisons of several runs; a run's report is RUN/report.html")
    else:
        written = write_report(arguments.runs[0])
    sys.stdout.write(f"{written}\n")
    return 0


def describe(arguments: Namespace, overrides: OVERRIDES) -> int:
    """Prints what a config would train and what it would take."""
    mesh = parse_mesh(arguments.mesh)
    if mesh is not None:
        pretend_devices(mesh)
    from jaxformer import configfile
    from jaxformer.describe import assemble, for_preset
    from jaxformer.describe import describe as text_of

    if arguments.config is not None:
        config = configfile.read(arguments.config, overrides)
    else:
        config = for_preset(arguments.preset)
        configfile.apply_overrides(config, overrides)
    if mesh is not None:
        config["parallel"] = {"mode": "jit", "mesh": mesh}
    use_compilation_cache()
    from jaxformer.config import resolve

    assembly = assemble(resolve(config))
    assembly.check()
    sys.stdout.write(text_of(assembly, compile_step=not arguments.no_compile) + "\n")
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


def data(arguments: Namespace, overrides: OVERRIDES) -> int:
    """Lists, shows and imports datasets."""
    actions: dict[str, Any] = {"list": data_list, "show": data_show, "import": data_import}
    return actions[arguments.action](arguments)


def data_list(arguments: Namespace) -> int:
    """Prints the datasets that are prepared."""
    from jaxformer.data import dataset_table

    sys.stdout.write(dataset_table(arguments.data_dir) + "\n")
    return 0


def data_show(arguments: Namespace) -> int:
    """Writes a contact sheet and prints where it is."""
    from jaxformer.data import DataConfig, contact_sheet

    config = DataConfig(name=arguments.name, data_dir=arguments.data_dir)
    output = arguments.output or Path(f"{arguments.name.replace('/', '-')}.png")
    sys.stdout.write(f"{contact_sheet(config, arguments.split, output, arguments.count)}\n")
    return 0


def data_import(arguments: Namespace) -> int:
    """Makes a dataset of a user's own images and prints what is in it."""
    from jaxformer.data import import_images

    made = import_images(
        arguments.source, arguments.name, arguments.data_dir, arguments.test_share, arguments.skip_broken
    )
    splits = ", ".join(f"{name}: {count:,}" for name, count in made.splits.items())
    sys.stdout.write(f"{made.folder}: {splits}; {len(made.class_names)} classes\n")
    for path, reason in made.broken:
        sys.stdout.write(f"left out: {path}: {reason}\n")
    if made.duplicates:
        sys.stdout.write(f"left out: {len(made.duplicates)} copies of other pictures\n")
    return 0
