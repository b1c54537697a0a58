import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.release.student import NORMAL, two_sided_p


@given(st.floats(-60, 60), st.floats(0.5, NORMAL))
def test_it_agrees_with_scipy(t: float, degrees: float) -> None:
    assert two_sided_p(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-7, abs=1e-290)


def test_it_agrees_with_a_table() -> None:
    # 5 % two-sided: 12.706 at one degree of freedom, 2.228 at ten, 1.960 in the limit
    for t, degrees in ((12.7062047, 1), (2.22813885, 10), (1.95996398, 1e12)):
        assert two_sided_p(t, degrees) == pytest.approx(0.05, rel=1e-6)


def test_no_difference_is_certain_and_nothing_is_not_a_number() -> None:
    assert (two_sided_p(0.0, 5), two_sided_p(1e-200, 5), two_sided_p(math.inf, 5)) == (1.0, 1.0, 0.0)
    assert math.isnan(two_sided_p(math.nan, 5))
    assert math.isnan(two_sided_p(1.0, 0))
