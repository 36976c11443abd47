"""Models on slices of TPUs of several sizes, by the TPU's own compiler: bytes a chip, what is sent, an estimated step.

    python benchmarks/scaling.py [--quick] [--models gpt2 vit-b16 ...] [--slices v5e-8 v5e:8x8 v5p:4x4x4 ...]
                                 [--json FILE]

Nothing runs on a TPU: libtpu compiles each train step (the extra `aot`), and `jaxformer.analysis.preflight` reads what
it made. Each model has so many examples a chip at every size, AdamW, bfloat16, its layers in a scan; small models are
data parallel, large ones have "fsdp" over all chips, or over as many as divide the width. Rows are printed as they
come, as Markdown; a minute or two each.
"""

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
from jaxformer.analysis.describe import assemble, for_preset
from jaxformer.analysis.preflight import Report, mesh_words, preflight
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.observe import text
from jaxformer.parallel.topologies import topology_devices


@dataclass(frozen=True)
class Row:
    """How a model is trained."""

    examples: int
    """A chip's examples in a step."""
    split: bool
    """Whether the train state is split over the chips ("fsdp")."""
    remat: str
    """What the backward pass keeps."""
    fields: tuple[tuple[str, Any], ...] = ()
    """Fields of the model other than the preset's."""


# The vocabulary is rounded up to a multiple of 128, and GPT-3 13B has the width of its 40 heads (5120; the paper's
# table says 5140), so that all is split evenly.
TOKENS = ("vocab_size", 50_304)
MODELS = {
    "vit-b16": Row(64, False, "none"),
    "vit-g14": Row(16, True, "full"),
    "r50-vit-b16": Row(64, False, "none"),
    "gpt2": Row(16, False, "none", (TOKENS,)),
    "gpt2-xl": Row(4, True, "full", (TOKENS,)),
    "gpt3-13b": Row(2, True, "full", (TOKENS, ("width", 5120))),
    "gpt3-175b": Row(2, True, "full", (TOKENS,)),
}
SLICES = [f"{version}-{size}" for version in ("v5e", "v6e") for size in (8, 64, 256)]
SLICES += ["v5p:2x2x2", "v5p:4x4x4", "v5p:4x8x8", "v5p:8x8x16"]
QUICK = ("vit-b16", "gpt2-xl"), ("v5e-8",)
HEAD = (
    "model",
    "slice",
    "mesh",
    "fits",
    "state",
    "temporaries",
    "sent",
    "most gathered",
    "step (estimate)",
    "MFU",
)


def measured(name: str, where: str) -> Report:
    """The preflight of a model on a slice."""
    row, devices = MODELS[name], topology_devices(where)
    config = for_preset(name)
    config["model"] |= {"scan": True, "remat": row.remat, **dict(row.fields)}
    config["data"]["batch_size"] = row.examples * len(devices)
    parts = math.gcd(resolve(config).model.width, len(devices)) if row.split else 1
    config["parallel"] = {"mode": "jit", "mesh": {"data": -1, "fsdp": parts}}
    experiment = assemble(resolve(config), devices)
    experiment.check()
    return preflight(experiment, where)


def cells(name: str, report: Report) -> list[str]:
    """A row of the table."""
    start = [name, report["topology"], mesh_words(report["mesh"])]
    if not report["fits"]:
        needs = report["needs"]
        return [*start, "no", text.data_size(report["bytes"]["state"]), f"{text.data_size(needs)} in all"] + [
            ""
        ] * 4
    held, step = report["bytes"], report["step"]
    return [
        *start,
        "yes",
        text.data_size(held["state"]),
        text.data_size(held["temporaries"]),
        text.data_size(report["sent"]),
        text.data_size(report["largest_gather"]),
        " to ".join(text.duration(seconds) for seconds in step["seconds"]),
        f"{step['mfu'][0]:.0%} to {step['mfu'][1]:.0%}",
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rows")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--slices", nargs="+", default=SLICES)
    parser.add_argument("--json", type=Path, help="a line for each row is added to this file")
    options = parser.parse_args()
    models, slices = QUICK if options.quick else (options.models, options.slices)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    for name in models:
        for where in slices:
            try:
                report = measured(name, where)
            except UserError as error:
                print(f"| {name} | {where} | {' '.join(error.lines)} |", flush=True)
                continue
            print(f"| {' | '.join(cells(name, report))} |", flush=True)
            if options.json:
                with options.json.open("a") as file:
                    file.write(json.dumps({"model": name, **report}) + "\n")


if __name__ == "__main__":
    main()
