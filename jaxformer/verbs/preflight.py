"""What a launch would find out: compiling for the target beforehand."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from jaxformer.config.fields import PositiveFloat
from jaxformer.files import write_json, writing_to
from jaxformer.parallel.topologies import topology_devices
from jaxformer.verbs.common import print_note, print_text
from jaxformer.verbs.describe import OnDevices
from jaxformer.verbs.options import Named, flag


@dataclass(frozen=True, kw_only=True)
class Preflight(OnDevices):
    """Compile a config for a slice of TPUs before the launch, and say whether it fits, what it takes and how long."""

    topology: Named = flag(metavar="SLICE")
    """The slice: v5e:4x4, v5litepod-16, v5p-32. Its compiler is in the extra aot."""
    price: PositiveFloat | None = flag(None, "DOLLARS")
    """What a chip costs for an hour."""
    sweep_mesh: bool = False
    """A table of all sensible meshes of the slice, best first."""
    json: Path | None = None
    """Where the same numbers are written as JSON, too."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if (self.config is None) == (self.preset is None):
            yield "preflight: give one of --config and --preset"
        if self.sweep_mesh and self.mesh is not None:
            yield "preflight: --sweep-mesh tries all meshes; leave out --mesh"
        if self.json is not None and (self.json.is_dir() or not self.json.absolute().parent.is_dir()):
            yield f"json={str(self.json)!r}: no file can be there; name one in a folder that is there"
        yield from super().problems()

    def __call__(self) -> int:
        """Prints the report; 1 if nothing fits."""
        if self.json is not None:
            with writing_to(self.json):  # before compiling for minutes
                TemporaryFile(dir=self.json.absolute().parent).close()
        os.environ["JAX_PLATFORMS"] = "cpu"
        devices = topology_devices(self.topology)
        from jaxformer.analysis.describe import assemble, devices_in_words
        from jaxformer.analysis.preflight import check_mode, preflight
        from jaxformer.analysis.preflight_text import report_text, sweep_text
        from jaxformer.analysis.sweep import sweep

        config = self.resolved()
        if self.sweep_mesh:
            reports = sweep(config, self.topology, devices, self.price, print_note)
            shown = sweep_text(reports)
        else:
            experiment = assemble(config, devices)
            check_mode(experiment)
            experiment.check()
            print_note(f"compiling the train step for {devices_in_words(experiment)}")
            reports = [preflight(experiment, self.topology, self.price)]
            shown = report_text(reports[0])
        print_text(shown + "\n")
        if self.json is not None:
            with writing_to(self.json):
                write_json(self.json, reports if self.sweep_mesh else reports[0])
        return 0 if any(report["fits"] for report in reports) else 1
