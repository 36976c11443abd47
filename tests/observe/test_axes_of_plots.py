"""Axes of the plots in a page: round ticks that lie on them."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from jaxformer.observe.svg import Scale, dots, path, scale


@example(0.0, 5e-324, 5)
@example(-1e300, 1e300, 5)
@example(1e16, 1e16 + 2, 5)
@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.integers(2, 9))
def test_ticks_are_round_and_on_the_axis(one, other, most):
    axis = scale(np.array([one, other]), 0, 100)
    ticks = axis.ticks(most)
    assert most / 5 - 1 <= len(ticks) <= most + 1
    gaps = np.diff(ticks)
    around = 1e-9 * (axis.high - axis.low)
    assert all(axis.low - around <= tick <= axis.high + around for tick in ticks)
    if abs(one - other) > 1e-6 * max(abs(one), abs(other)) > 0:  # digits suffice
        assert np.allclose(gaps, gaps[:1], rtol=1e-4)
        assert all(f"{gap:.3e}"[0] in "125" for gap in gaps)


def test_ticks_of_decades_are_powers_of_ten_and_not_too_many():
    assert Scale(0.02, 30.0, 0, 1, True).ticks(6) == [0.1, 1.0, 10.0]
    assert Scale(1e-12, 1.5, 0, 1, True).ticks(6) == [1e-12, 1e-10, 1e-08, 1e-06, 0.0001, 0.01, 1.0]
    assert Scale(2.5, 7.5, 0, 1).ticks(20, whole=True) == [3.0, 4.0, 5.0, 6.0, 7.0]


def test_a_line_has_gaps_and_dots_do_not():
    assert path([0, 1, 2, 3], [5.0, np.nan, 7.04, 8.0]) == "M0.0 5.0M2.0 7.0L3.0 8.0"
    assert dots([0, 1], [np.nan, 2.0]) == "M1.0 2.0h0"
