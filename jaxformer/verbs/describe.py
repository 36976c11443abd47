"""What a config would train, and what its fields mean."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from jaxformer.config.fields import Constraint
from jaxformer.parallel.topologies import topology, topology_devices
from jaxformer.verbs.common import cpu_devices, print_note, print_table, print_text, use_compilation_cache
from jaxformer.verbs.options import COMMAS, Verb, flag, summary

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig

MOST_DEVICES = 2**14
SIZES = f"AXIS=SIZE, ... with sizes of 1 to {MOST_DEVICES}, as in data=8,fsdp=4"
SIZED = Constraint(SIZES, lambda part: re.fullmatch(r"[^=]+=0*[1-9][0-9]{0,4}", part) is not None)


@dataclass(frozen=True, kw_only=True)
class OnDevices(Verb):
    """A verb that looks at a config on devices that need not be here."""

    config: str | None = flag(None, "FILE[:ARG]")
    """A config file, or a shipped config's name."""
    preset: str | None = None
    """A model preset, trained as ImageNet at 224 pixels."""
    mesh: Annotated[tuple[Annotated[str, SIZED], ...], COMMAS] | None = flag(None, "AXIS=N,...")
    """As if on these devices: data=8,fsdp=4,tensor=2."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the config and their values."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        axes = Counter(part.partition("=")[0] for part in self.mesh or ())
        yield from (f"mesh: {axis} is there twice; give it once" for axis in axes if axes[axis] > 1)

        if (count := math.prod(self.sizes().values())) > MOST_DEVICES:
            yield f"mesh: makes {count} devices; expected {MOST_DEVICES} at most"

    def sizes(self) -> dict[str, int]:
        """The size of each axis."""
        return {name: int(size) for name, _, size in (part.partition("=") for part in self.mesh or ())}

    def resolved(self) -> "ExperimentConfig":
        """The config with what the flags say; JAX keeps what it compiles from now on."""
        from jaxformer.analysis.describe import for_preset
        from jaxformer.config import files

        if self.config is not None:
            config = files.read(self.config, self.overrides)
        else:
            config = for_preset(str(self.preset))
            files.apply_overrides(config, self.overrides or {})
        if mesh := self.sizes():
            config["parallel"] = dict(config.get("parallel") or {}) | {"mesh": mesh}
        use_compilation_cache()
        from jaxformer.config.sections import resolve

        return resolve(config)


@dataclass(frozen=True, kw_only=True)
class Describe(OnDevices):
    """Show what a config would train, and what it takes, without training it; or what the fields of a config mean."""

    fields: str | None = flag(None, "PATH")
    """The fields that can stand there in a config, such as model.vit, data.examples.images or model.my_file:MyModel; ""
    shows the sections."""
    topology: str | None = flag(None, "SLICE")
    """Compile it for a slice of TPUs by their compiler, which the extra aot installs: v5e:4x4, v5litepod-16, v5p-32."""
    no_compile: bool = False
    """Leave out what needs the step compiled: the memory of activations."""
    trace: bool = False
    """Show the shapes through the model instead, module by module."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if sum(given is not None for given in (self.config, self.preset, self.fields)) != 1:
            yield "describe: give one of --config, --preset and --fields"
        yield from super().problems()

    def __call__(self) -> None:
        if self.fields is not None:
            print_fields(self.fields)
            return
        if self.topology is not None:
            topology(self.topology)
            os.environ["JAX_PLATFORMS"] = "cpu"
        elif mesh := self.sizes():
            os.environ |= cpu_devices(math.prod(mesh.values()))
        from jaxformer.analysis.describe import assemble, describe, devices_in_words

        config = self.resolved()
        devices = None if self.topology is None else topology_devices(self.topology)
        experiment = assemble(config, devices)
        experiment.check()
        if self.trace:
            from jaxformer.analysis.trace import trace

            print_text(trace(experiment) + "\n")
            return
        if not self.no_compile:
            print_note(
                f"compiling the train step for {devices_in_words(experiment)}; --no-compile leaves that out"
            )
        print_text(describe(experiment, compile_step=not self.no_compile) + "\n")


def print_fields(path: str) -> None:
    """Prints the fields at a path of a config, or the classes that can be chosen there.

    Raises:
      UserError: there is nothing at this path.
    """
    from jaxformer.config.reference import at, inner, reference
    from jaxformer.config.sections import ExperimentConfig

    walked, here = at(ExperimentConfig, path)
    if isinstance(here, dict):
        head: tuple[str, ...] = ("name", "meaning")
        title, caption = f"{walked}.name, or package.module:Class of your own", None
        rows: list[tuple[str, ...]] = [(name, summary(cls)) for name, cls in here.items()]
    else:
        head, title = ("field", "type", "default", "meaning"), summary(here)
        caption = f"with fields of their own: {', '.join(inner(here))}" if inner(here) else None
        rows = [(f.name, f.type, f.default or "required", f.doc) for f in reference(here)]
    print_table(head, rows, width=140, title=title, caption=caption)
