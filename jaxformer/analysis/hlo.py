"""Reads the text of a module that XLA compiled: which instructions run, how often, and what they move.

A computation that a loop runs counts as often as the loop does, which XLA's own cost analysis leaves out.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from jaxformer.analysis.collectives import KINDS, Collective, collective, first_group

ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
CHANNEL = re.compile(r"channel_id=(\d+)")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
NAMES = re.compile(r"%([\w.\-]+)")
CALLED = re.compile(r"\b(?:calls|to_apply|body|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# What moves nothing itself.
FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "call-start",
    "iota",
}
FREE |= {"after-all", "partition-id", "replica-id", "opt-barrier"}
KERNEL = 'custom_call_target="tpu_custom_call"'  # a Pallas kernel
BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "token": 0}  # bytes a number, where the name does not say the bits


@dataclass(frozen=True)
class Instruction:
    """A line of a computation."""

    name: str
    """Its name, without "%"."""
    shape: str
    """What it gives, as XLA writes it: "f32[8,128]{1,0:T(8,128)}", or several in parentheses."""
    op: str
    """What it does: "fusion", "all-reduce"."""
    operands: tuple[str, ...]
    """The names of what it takes."""
    rest: str
    """Its attributes, as XLA writes them."""

    def called(self) -> list[str]:
        """The computations that it runs; of a conditional's the first, JAX's False: what a step usually does."""
        if branches := BRANCHES.search(self.rest):
            return NAMES.findall(branches[1])[:1]
        return CALLED.findall(self.rest)


def size_of(shape: str, everywhere: bool = True) -> float:
    """Bytes of the arrays of a shape; with `everywhere=False` of those alone that lie in the device's main memory."""
    total = 0.0
    for kind, sides, layout in ARRAY.findall(shape):
        if everywhere or not re.search(r"S\([1-9]", layout):
            total += math.prod(map(int, filter(None, sides.split(",")))) * item_size(kind)
    return total


def item_size(kind: str) -> float:
    """Bytes of a number of XLA's type: "bf16" has 2."""
    bits = re.search(r"\d+", kind)
    return BYTES[kind] if kind in BYTES else int(bits[0]) / 8 if bits else 0


def closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` is closed."""
    depth = 0
    for place in re.finditer(r"[()]", text[start:]):
        depth += 1 if place[0] == "(" else -1
        if not depth:
            return start + place.start()
    return len(text)


def read_instruction(line: str) -> Instruction | None:
    """An instruction from its line; None where there is none."""
    name, equals, given = line.strip().removeprefix("ROOT ").partition(" = ")
    if not equals:
        return None
    end = closing(given, 0) + 1 if given.startswith("(") else given.find(" ")
    opens = given.find("(", end)
    if opens < 0:
        return None
    closes = closing(given, opens)
    inside = given[opens + 1 : closes]
    return Instruction(
        name.lstrip("%"),
        given[:end],
        given[end:opens].strip(),
        tuple(NAMES.findall(inside)) or (inside,),
        given[closes + 1 :],
    )


@dataclass
class Module:
    """A compiled module."""

    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)
    """By name, the instructions of each computation by their names, in order; the last is the result."""
    entry: str = ""
    """The computation that runs."""

    @classmethod
    def read(cls, text: str) -> "Module":
        """The module of `compiled.as_text()`."""
        module, current = cls(), None
        for line in text.splitlines():
            if line[:1] not in (" ", "}", "") and line.endswith("{") and (head := HEAD.match(line)):
                current = module.computations[head[2]] = {}
                module.entry = head[2] if head[1] else module.entry
            elif current is not None and (found := read_instruction(line)) is not None:
                current[found.name] = found
        return module

    @cached_property
    def runs(self) -> Counter[str]:
        """How often each computation runs in a step; what fusions and reductions are made of is not among them."""
        runs: Counter[str] = Counter()

        def walk(name: str, times: int) -> None:
            runs[name] += times
            for made in self.computations.get(name, {}).values():
                if made.op in ("while", "conditional", "call", "call-start", "async-start"):
                    for called in made.called():
                        walk(called, times * (self.trips(made) if made.op == "while" else 1))

        walk(self.entry, 1)
        return runs

    def inside(self, made: Instruction) -> dict[str, Instruction]:
        """What a fusion is made of."""
        return self.computations.get(next(iter(made.called()), ""), {})

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs: as XLA says, or as the constant says to which its condition compares; else once."""
        if known := TRIPS.search(loop.rest):
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        lines = self.computations.get(condition[1] if condition else "", {}).values()
        constants = [
            int(made.operands[0]) for made in lines if made.op == "constant" and made.operands[0].isdigit()
        ]
        return max(constants, default=1)

    def running(self) -> Iterator[tuple[Instruction, dict[str, Instruction], int]]:
        """Yields every instruction that runs, its computation, and how often it does."""
        for name, times in self.runs.items():
            computation = self.computations.get(name, {})
            for made in computation.values():
                yield made, computation, times

    def cycles(self) -> int:
        """The compiler's estimate of a step in cycles; kernels and collectives have none."""
        estimates = ((CYCLES.search(made.rest), times) for made, _, times in self.running())
        return sum(int(found[1]) * times for found, times in estimates if found)

    def kernels(self) -> int:
        """How many kernels run in a step of which the compiler knows nothing."""
        return sum(times for made, _, times in self.running() if KERNEL in made.rest)

    def collectives(self, mesh: Mapping[str, int]) -> list[Collective]:
        """What devices exchange in a step.

        Args:
          mesh: the size of each axis, in the order of the program's devices.
        """
        found: list[Collective] = []
        fused: dict[str, Collective] = {}

        def read(made: Instruction, kind: str, times: int) -> Collective | None:
            return collective(kind, whole_size(made, mesh), made.rest, mesh, times, place(made.rest))

        for made, _, times in self.running():
            if kind := kind_of(made.op):
                found += filter(None, [read(made, kind, times)])
            for inner in self.inside(made).values() if made.op == "fusion" else ():
                if kind := kind_of(inner.op):
                    scatters = inner.op == "all-reduce" and "all-reduce-scatter" in made.rest
                    one = read(inner, "reduce-scatter" if scatters else kind, times)
                    # One that runs beside other work stands in several fusions: at its start, its end and between.
                    channel = (CHANNEL.findall(inner.rest) or [inner.name])[0]
                    if one and (channel not in fused or times < fused[channel].times):
                        fused[channel] = one
        return [*found, *fused.values()]

    def largest(self, count: int) -> list[tuple[float, str, str]]:
        """The largest arrays that a step makes in a device's main memory: bytes, shape, place in the model."""
        sizes: dict[tuple[str, str], float] = {}
        for made, _, _ in self.running():
            if made.op not in FREE and not made.op.endswith(("-start", "-done")):
                for kind, sides, layout in ARRAY.findall(made.shape):
                    if not re.search(r"S\([1-9]", layout):
                        shape = f"{kind}[{sides}]"
                        sizes.setdefault((shape, place(made.rest)), size_of(shape))
        ranked = sorted(sizes.items(), key=lambda item: -item[1])
        return [(size, shape, where) for (shape, where), size in ranked[:count]]


def kind_of(op: str) -> str | None:
    """The kind of a collective; None of anything else, and of where one ends."""
    name = op.removesuffix("-start")
    return name if name in KINDS else None


def whole_size(made: Instruction, mesh: Mapping[str, int]) -> float:
    """Bytes of the whole arrays of a collective on one device: what a gather gives, what a reduction takes."""
    if made.op in ("all-gather-start", "collective-permute-start"):
        # What it takes stands before what it gives.
        arrays = [size_of(f"{kind}[{sides}]") for kind, sides, _ in ARRAY.findall(made.shape) if sides]
        return sum(arrays[len(arrays) // 2 :])
    parts = len(first_group(made.rest, math.prod(mesh.values()))) if made.op == "reduce-scatter" else 1
    return size_of(made.shape) * parts


def place(rest: str) -> str:
    """The place in the model that an instruction's attributes name."""
    found = re.search(r'op_name="([^"]*)"', rest)
    return found[1] if found else ""
