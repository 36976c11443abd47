"""Launching: each launcher is a verb, its fields are the flags."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxformer.config.schema import load
from jaxformer.errors import UserError
from jaxformer.launching import LAUNCHERS
from jaxformer.launching.base import PLACEHOLDER, Folder, Job, Label, Launcher
from jaxformer.launching.checkout import Checkout, checkout
from jaxformer.verbs.common import print_note, print_text
from jaxformer.verbs.options import Verb, flag
from jaxformer.verbs.train import Train, run_name

NO_TASKS = f"{PLACEHOLDER} is the number of a task of `launch slurm --array`, and there are none here"


@dataclass(frozen=True, kw_only=True)
class Launch(Launcher, Verb):
    """What all launchers take; see `launching.base.Launcher` for what each does."""

    config: str = flag(metavar="FILE[:ARG]")
    """A config file, or a shipped config's name."""
    workdir: Folder | None = flag(None, "DIR", "--workdir", "--run")
    """The folder of the run, as the hosts see it (default: a folder of the config's name)."""
    name: Label | None = None
    """What everything is called that is made for it (default: the config's name)."""
    dry_run: bool = False
    """Print what would be written and run, as a script that does the same, and do nothing."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the config and their values."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        tasks = self.tasks()
        if tasks and PLACEHOLDER not in (self.workdir or ""):
            yield (
                f"workdir: all tasks would train in the same folder; write {PLACEHOLDER} where they differ: "
                f"--workdir runs/seed-{PLACEHOLDER} --config.seed={PLACEHOLDER}"
            )
        if not tasks and PLACEHOLDER in (self.workdir or ""):
            yield f"workdir: {NO_TASKS}"
        for path, value in ({} if tasks else self.overrides or {}).items():
            if PLACEHOLDER in str(value):
                yield f"{path}: {NO_TASKS}"
        yield from super().problems()

    def __call__(self) -> int:
        """The exit code of the first command that fails."""
        self.check()
        plan = self.render(self.training(self.checked_out()))
        if self.dry_run:
            print_text(plan.script())
            return 0
        return self.run(plan)

    def check(self) -> None:
        """Refuses what the training itself would refuse on the hosts, as far as it can be known here.

        Raises:
          UserError: the config is wrong, or the devices cannot share its batch.
        """
        from jaxformer.config import files
        from jaxformer.config.sections import check_devices, resolve

        first = {path: in_first(value, self.tasks()) for path, value in (self.overrides or {}).items()}
        config = resolve(files.read(self.config, first))
        if (count := self.devices()) is not None:
            check_devices(config, count)

    def training(self, found: Checkout | None) -> Job:
        """The training that is launched from a checkout."""
        workdir = Path(self.workdir or self.folder(run_name(self.config)))
        train = Train(config=self.config, workdir=workdir, overrides=self.overrides)
        _, *of_config = replace(train, workdir=None).words()
        return Job(
            name=self.name or label(run_name(self.config)),
            command=("jaxformer", *train.words()),
            workdir=str(workdir),
            preflight=("jaxformer", "preflight", *of_config) if find_spec("libtpu") else (),
            checkout=found,
        )

    def checked_out(self) -> Checkout | None:
        """The checkout whose top is the working directory; says in which state it is where it is copied.

        Raises:
          UserError: the config would not be copied.
        """
        found = checkout(Path.cwd())
        if found is None or Path(found.top) != Path.cwd():
            return None
        if self.copies_checkout:
            file = self.config.partition(":")[0]
            if os.path.normpath(file) in found.unknown:
                raise UserError(
                    f"config={self.config}: git does not know this file, so that it would not be copied; git add it"
                )
            if found.is_changed:
                print_note(f"jaxformer: tracked files were changed, and go along: revision {found.revision}")
            if found.unknown:
                few = ", ".join(found.unknown[:3]) + " ..." * (len(found.unknown) > 3)
                print_note(f"jaxformer: stays here, because git does not know it: {few}")
        return found


def label(name: str) -> str:
    """ "vit_digits-small" as "vit-digits-small": what all of these systems take as a name."""
    words = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    return (words if words[:1].isalpha() else f"run-{words}")[:40].strip("-")


def in_first(value: Any, tasks: list[str]) -> Any:
    """A value of an override in the first of several trainings that are launched together."""
    if tasks and isinstance(value, str) and PLACEHOLDER in value:
        from jaxformer.config.files import literal

        return literal(value.replace(PLACEHOLDER, tasks[0]))
    return value


def __getattr__(where: str) -> type[Verb]:
    """The verb of a launcher, by its name in LAUNCHERS; only that one is imported."""
    if where not in LAUNCHERS:
        raise AttributeError(where)
    launcher = load(f"jaxformer.launching.{LAUNCHERS[where]}")
    made = type(f"Launch{launcher.__name__}", (launcher, Launch), {"__doc__": launcher.__doc__})
    return dataclass(frozen=True, kw_only=True)(made)
