"""The Pareto front: the trials that no other one beats, where a sweep has several objectives."""

import math
from collections.abc import Mapping, Sequence


def pareto_front(values: Mapping[int, Sequence[float | None] | None], modes: Sequence[str]) -> list[int]:
    """The numbers of the trials on the front, from the best to the worst by the first objective, then by number.

    A trial beats another one if it is at least as good in every objective, and better in one. Trials that are alike in
    all are on the front together. One that failed (None), or gave a NaN or an infinity, is never on it.

    Args:
      values: number -> its objectives.
      modes: for each objective whether more of it is better ("max") or less ("min").
    """
    signs = [1.0 if mode == "max" else -1.0 for mode in modes]
    good: dict[int, tuple[float, ...]] = {}
    for number, objectives in values.items():
        found = [math.nan if value is None else float(value) for value in objectives or [math.nan]]
        if all(map(math.isfinite, found)):
            good[number] = tuple(sign * value for sign, value in zip(signs, found, strict=True))

    def is_beaten(point: tuple[float, ...]) -> bool:
        return any(
            other != point and all(a >= b for a, b in zip(other, point, strict=True))
            for other in good.values()
        )

    front = [number for number, point in good.items() if not is_beaten(point)]
    return sorted(front, key=lambda number: (-good[number][0], number))
