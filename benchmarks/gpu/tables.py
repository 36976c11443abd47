"""Tables, in Markdown, of what run.sh measured.

python benchmarks/gpu/tables.py OUT/results.jsonl
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def tables(results: list[dict[str, Any]]) -> Iterator[str]:
    """Lines: parts that failed, checks, then ours beside its peers."""
    for each in results:
        if each["work"] == "part":
            outcome = {0: "ended well", 124: "ran out of time"}.get(each["exit"], "FAILED")
            yield f"- {each['name']}: {outcome} ({each['seconds']} s)"
    yield from ("", "| check | case | | kernel | ms, both passes | XLA's form |", "|---|---|---|---|---|---|")
    for each in results:
        if each["work"].startswith("check"):
            times = [
                f"{each[key]:.3f}" if key in each else "" for key in ("milliseconds", "milliseconds_of_xla")
            ]
            kernel = each.get("kernel") or ", ".join(each.get("why_not", [each.get("error", "")]))
            good = "right" if each["ok"] else "WRONG"
            yield f"| {each['work'].split()[-1]} | {each['case']} | {good} | {kernel} | {' | '.join(times)} |"
    header = ("work, device", "jaxformer", "MFU", "memory", "peer", "MFU", "memory", "ours is faster by")
    yield from ("", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}")
    sides = {(each["work"], each["dtype"], each["side"]): each for each in results if "side" in each}
    for work, dtype in dict.fromkeys(key[:2] for key in sides):
        ours, peer = (sides.get((work, dtype, side)) for side in ("jaxformer", "peer"))
        device = (ours or peer)["device"]
        both = f"{ours['rate'] / peer['rate']:.2f}" if ours and peer else ""
        yield f"| {work}, {dtype}, {device} | {figures(ours)} | {figures(peer)} | {both} |"


def figures(side: dict[str, Any] | None) -> str:
    """The cells of a side: its rate with the least and most of its rounds, MFU and peak memory."""
    if side is None:
        return "not measured | | "
    seconds = side["seconds"]
    spread = [side["rate"] * statistics.median(seconds) / pick(seconds) for pick in (max, min)]
    how = (
        {None: ", eager", "inductor": ", compiled"}.get(side.get("compile", ""), "")
        if side["side"] == "peer"
        else ""
    )
    mfu = f"{side['mfu']:.1%}" if side.get("mfu") else ""
    memory = f"{side['peak_bytes'] / 2**30:.2f} GiB" if side["peak_bytes"] else ""
    return (
        f"{side['rate']:,.0f} {side['unit']} ({spread[0]:,.0f} to {spread[1]:,.0f}){how} | {mfu} | {memory}"
    )


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text().splitlines()
    print("\n".join(tables([json.loads(line) for line in lines])))
