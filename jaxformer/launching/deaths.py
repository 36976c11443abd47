"""Which machine died first, each time that the processes of a training died together.

Every supervisor notes the ends of its own processes in its own ledger, by its machine's clock. Here the ledgers of a
run are looked at together: where one machine is always the first, it may be that machine.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from jaxformer.launching.attempts import Attempt
from jaxformer.launching.decisions import kind_of

OF_ANOTHER = (69, 134)  # exit codes of a process that ends because another one has died, or is not there


def died_first(ledgers: Mapping[str, Sequence[Attempt]]) -> Counter[str]:
    """How often each machine died first.

    Args:
      ledgers: the attempts of each machine, by its name.
    """
    deaths = [
        (attempt, name)
        for name, attempts in ledgers.items()
        for attempt in attempts
        if attempt.end is not None and kind_of(attempt.exit) in ("infrastructure", "failed")
    ]
    return Counter(first for first in each_first(sorted(deaths, key=lambda death: death[0].end or 0.0)))


def each_first(deaths: Sequence[tuple[Attempt, str]]) -> Iterator[str]:
    """Yields who died first of those that died together: of those that had begun when the earliest of them died.

    Args:
      deaths: attempts in the order of their ends, and whose they are.
    """
    while deaths:
        end = deaths[0][0].end or 0.0
        together = [death for death in deaths if death[0].start <= end]
        yield min(together, key=lambda death: death[0].exit in OF_ANOTHER)[1]  # the earliest of equals
        deaths = [death for death in deaths if death[0].start > end]
