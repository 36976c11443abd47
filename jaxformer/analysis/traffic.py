"""How many bytes a compiled program reads from and writes to a device's main memory."""

import re
from collections.abc import Collection, Mapping

from jaxformer.analysis.hlo import ARRAY, FREE, KERNEL, Instruction, Module, kind_of, size_of

SLICES = ("dynamic-slice", "slice", "gather", "slice-start")
WHOLE = re.compile(f"({ARRAY.pattern})")


def memory_bytes(module: Module) -> float:
    """Bytes that a step reads and writes: an estimate from what instructions take and give.

    XLA's own figure, "bytes accessed", counts what a loop runs once.
    """
    return sum(moved(module, made, around) * times for made, around, times in module.running())


def moved(module: Module, made: Instruction, around: Mapping[str, Instruction]) -> float:
    """Bytes that one instruction reads and writes.

    Args:
      module: the program.
      made: the instruction.
      around: the computation that it is in.
    """
    of_xla = made.op == "custom-call" and KERNEL not in made.rest  # buffers that are set aside, and the like
    if of_xla or made.op in FREE or made.op.endswith("-done"):
        return 0
    takes = [around[name].shape for name in made.operands if name in around]
    if made.op in ("copy-start", *SLICES):
        parts = ARRAY.findall(made.shape)
        kind, sides, _ = parts[1] if made.op == "slice-start" else parts[0]
        part, into = size_of(f"{kind}[{sides}]"), size_of(made.shape, False) if made.op in SLICES[:3] else 0
        return into + min(part, size_of(takes[0], False) if takes else 0)
    if inner := module.inside(made) if made.op == "fusion" else {}:
        return read_by_fusion(inner, takes) + written_by_fusion(inner, made.shape)
    return size_of(made.shape, False) + sum(size_of(shape, False) for shape in takes)


def read_by_fusion(inner: Mapping[str, Instruction], takes: list[str]) -> float:
    """Bytes that a fusion reads: of what it only slices, the slices; nothing of what it hands to a collective."""
    numbered = {int(made.operands[0]): made.name for made in inner.values() if made.op == "parameter"}
    total = 0.0
    for number, shape in enumerate(takes):
        names = {numbered.get(number)}
        uses: list[Instruction] = []
        for made in inner.values():
            if names & set(made.operands):
                if made.op == "bitcast":
                    names.add(made.name)
                else:
                    uses.append(made)
        parts = [part_read(use, names) for use in uses]
        whole = size_of(shape, False)
        total += min(whole, sum(part for part in parts if part is not None)) if None not in parts else whole
    return total


def part_read(use: Instruction, names: Collection[str | None]) -> float | None:
    """Bytes that an instruction reads of the arrays `names`; None where it reads the whole."""
    if use.op in SLICES:
        return size_of(use.shape)
    updates = use.op == "dynamic-update-slice" and use.operands[0] in names
    return 0 if updates or use.op in ("tuple", "custom-call") or kind_of(use.op) else None


def written_by_fusion(inner: Mapping[str, Instruction], shape: str) -> float:
    """Bytes that a fusion writes: of an array that it updates in place, the part that is new."""
    root = list(inner.values())[-1]
    given = [root] if root.op != "tuple" else [inner[name] for name in root.operands if name in inner]
    arrays = [found[0] for found in WHOLE.findall(shape)]
    if len(given) != len(arrays):
        return size_of(shape, False)
    return sum(part_written(inner, made, array) for made, array in zip(given, arrays))


def part_written(inner: Mapping[str, Instruction], made: Instruction, shape: str) -> float:
    """Bytes of one result of a fusion that are written anew."""
    whole = size_of(shape, False)
    if made.op == "bitcast":
        made = inner.get(made.operands[0], made)
    if made.op == "dynamic-update-slice" and made.operands[1] in inner:
        return min(whole, size_of(inner[made.operands[1]].shape))
    return 0 if made.op in ("parameter", "get-tuple-element", "custom-call") or kind_of(made.op) else whole
