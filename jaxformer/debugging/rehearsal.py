"""A training rehearsed in seconds: two steps, one batch of the evaluation, a save; then the third step, twice.

The second time it is taken in a new process, from the checkpoint. `rehearse` starts both processes, one after the
other, and touches no device itself: an accelerator belongs to one process at a time.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.files import write_json
from jaxformer.reading import load_json

SAVED = 2  # the step after which it is saved
BEGIN, AGAIN = "begin", "again"
CONFIG, CHECKPOINTS = "config.json", "checkpoints"
PROGRAM = "import sys; from jaxformer.debugging.rehearsal import part; part(*sys.argv[1:])"


def rehearse(config: Mapping[str, Any], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Yields lines about a rehearsal of a config, with the seconds and bytes that it takes.

    Args:
      config: a resolved config, as JSON values.
      folder: an empty folder, which gets a checkpoint of the whole state.
      environment: variables of both processes.

    Raises:
      UserError: what a training would refuse, or the third step is another one from the checkpoint.
      RuntimeError: a process failed otherwise; its last lines.
    """
    write_json(folder / CONFIG, config)
    done: dict[str, dict[str, Any]] = {}
    for name in (BEGIN, AGAIN):
        command = [sys.executable, "-c", PROGRAM, name, str(folder)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(environment))
        with suppress(FileNotFoundError):
            done[name] = load_json(folder / f"{name}.json")
        if name not in done:
            raise RuntimeError(
                f"the rehearsal failed (exit code {ended.returncode}):\n{ended.stderr[-2000:]}"
            )
        if lines := done[name].get("refused"):
            raise UserError(*lines)
        yield from (f"{seconds:9.2f} s  {what}" for what, seconds in done[name]["seconds"].items())
    size = sum(file.stat().st_size for file in (folder / CHECKPOINTS).rglob("*") if file.is_file())
    yield f"{size:,} bytes in the checkpoint"
    before, after = (done[name]["digests"] for name in (BEGIN, AGAIN))
    if different := [path for path in before if before[path] != after.get(path)]:
        lost = f"{len(different)} of {len(before)} arrays of the state differ, such as {different[0]}"
        raise UserError(f"step {SAVED + 1} is another one when it is taken from the checkpoint: {lost}")
    yield f"step {SAVED + 1} is the same from the checkpoint, bit for bit ({len(before)} arrays of the state)"


def part(name: str, folder: str) -> None:
    """What one of the processes does; its results are left in the folder, in a file of its name."""
    file = Path(folder) / f"{name}.json"
    try:
        write_json(file, three_steps(Path(folder)) if name == BEGIN else third_step(Path(folder)))
    except UserError as error:
        write_json(file, {"refused": error.lines})


def three_steps(folder: Path) -> dict[str, Any]:
    """Takes the steps, with the evaluation and the save after the second."""
    from jaxformer.checkpoints import Checkpoints
    from jaxformer.evaluation.evaluator import GivenUp
    from jaxformer.state import to_items

    clock, experiment, take = prepared(folder)
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        with clock.phase("the fresh state"):
            state = experiment.init_state()
        for number, batch in enumerate(experiment.train_batches(state, stop=SAVED), 1):
            state = take(state, batch, f"step {number}" + ", with compiling" * (number == 1))
        asked = iter([False])
        with clock.phase("evaluating a batch, with compiling"), suppress(GivenUp):
            experiment.evaluate(state, lambda: next(asked, True))
        with clock.phase("saving"):
            checkpoints.save(SAVED, to_items(state), {})
            checkpoints.wait()
    for batch in experiment.train_batches(state, stop=SAVED + 1):
        state = take(state, batch, f"step {SAVED + 1}")
    return {"seconds": dict(clock.seconds), "digests": digests(state)}


def third_step(folder: Path) -> dict[str, Any]:
    """Takes the step after the save from the checkpoint."""
    from jaxformer.checkpoints import Checkpoints
    from jaxformer.state import from_items, to_items

    clock, experiment, take = prepared(folder)
    with (
        clock.phase("restoring, in a new process"),
        Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints,
    ):
        restored = checkpoints.restore(to_items(experiment.state_shapes), SAVED)
        assert restored is not None
        state = from_items(restored.items)
    for batch in experiment.train_batches(state, stop=SAVED + 1):
        state = take(state, batch, f"step {SAVED + 1}, with compiling")
    return {"seconds": dict(clock.seconds), "digests": digests(state)}


def prepared(folder: Path) -> tuple[Any, Any, Any]:
    """The clock, the experiment of the folder's config, and (state, batch, name of the phase) -> state."""
    import jax

    from jaxformer.analysis.memory import check_memory, memory_errors_explained
    from jaxformer.config.sections import resolve
    from jaxformer.experiment import Experiment
    from jaxformer.observe.timing import Clock
    from jaxformer.teacher import load_teacher

    clock = Clock()
    with clock.phase("starting, with the data"):
        experiment = Experiment(resolve(load_json(folder / CONFIG)))
        experiment.check()
        check_memory(experiment)
        teacher = load_teacher(experiment)
        fixed = () if teacher is None else (teacher.variables,)
        train_step = experiment.train_step(teacher)

    def take(state: Any, batch: Any, phase: str) -> Any:
        with clock.phase(phase), memory_errors_explained(experiment):
            return jax.block_until_ready(train_step(state, batch, *fixed))[0]

    return clock, experiment, take


def digests(state: Any) -> dict[str, str]:
    """Path -> a digest of the bytes of each array of a state."""
    import numpy as np

    from jaxformer.paths import leaves_by_path
    from jaxformer.state import to_items

    arrays = leaves_by_path(to_items(state))
    return {path: hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest() for path, leaf in arrays.items()}
