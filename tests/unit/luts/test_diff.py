"""LUTs side by side, with numbers by hand."""

import pytest

from luts.diff import diff_luts
from tests.support.errors import raises
from tests.support.report_world import entry
from tests.support.report_world import make_lut as any_lut


def lut_of(reference_ms=2.0, reference_id="r", **costs):
    """Entries `kind_name` of so many milliseconds, each within 10 % of it."""
    rows = tuple(
        entry(key, key.partition("_")[0], ms=ms, ci_low=0.9 * ms, ci_high=1.1 * ms)
        for key, ms in sorted(costs.items())
    )
    lut = any_lut()
    meta = lut.meta.model_copy(update={"reference_ms": reference_ms, "reference_id": reference_id})
    return type(lut)(meta, rows, lut.models, lut.samples)


FIRST = lut_of(2.0, a_1=4.0, a_2=1.0, b_1=2.0, b_2=0.0, b_3=9.0)
SECOND = lut_of(3.0, a_1=2.0, a_2=1.2, b_1=6.0, b_2=0.1, c_1=5.0)
THIRD = lut_of(1.0, "other", a_1=4.2, a_2=1.15, b_1=2.0, b_2=0.0)


def test_three_luts_by_hand():
    diff = diff_luts(FIRST, SECOND, THIRD)
    assert [(e.key, e.kind, e.ms, e.ranks, e.overlap) for e in diff.entries] == [
        ("a_1", "a", (4.0, 2.0, 4.2), (1, 2, 1), False),  # 3.6 to 4.4, 1.8 to 2.2
        ("a_2", "a", (1.0, 1.2, 1.15), (3, 3, 3), True),  # up to 1.1, from 1.08, from 1.035
        ("b_1", "b", (2.0, 6.0, 2.0), (2, 1, 2), False),
        ("b_2", "b", (0.0, 0.1, 0.0), (4, 4, 4), False),
    ]
    assert [e.ratios for e in diff.entries] == [
        (1.0, 0.5, pytest.approx(1.05)),
        (1.0, 1.2, 1.15),
        (1.0, 3.0, 1.0),
        (None, None, None),
    ]
    assert [(k.kind, k.blocks) for k in diff.kinds] == [("a", 2), ("b", 2)]
    assert [k.ms for k in diff.kinds] == [pytest.approx((5.0, 3.2, 5.35)), pytest.approx((2.0, 6.1, 2.0))]
    assert [k.ratios for k in diff.kinds] == [pytest.approx((1, 0.64, 1.07)), pytest.approx((1, 3.05, 1))]
    assert diff.missing == (("b_3",), ("c_1",), ())
    assert diff.overlap_share == 0.25
    assert diff.reference_ratios == (1.0, 1.5, None)
    # of six pairs, one (a_1 with b_1) is turned round in the second, none in the third
    assert diff.rank_correlations == pytest.approx((1.0, 4 / 6, 1.0))


def test_overlap_needs_a_common_value():
    diff = diff_luts(lut_of(a=1.0), lut_of(a=1.2), lut_of(a=1.4))  # up to 1.1, 1.08 to 1.32, from 1.26
    assert not diff.entries[0].overlap


def test_equal_costs_share_a_rank():
    diff = diff_luts(lut_of(a=1.0, b=1.0, c=3.0, d=0.5), lut_of(a=1.0, b=2.0, c=3.0, d=4.0))
    assert [e.ranks for e in diff.entries] == [(2, 4), (2, 3), (1, 2), (4, 1)]


def test_nothing_in_common():
    diff = diff_luts(lut_of(a=1.0), lut_of(b=1.0))
    assert (diff.entries, diff.kinds, diff.overlap_share) == ((), (), None)
    assert diff.missing == (("a",), ("b",))
    assert diff.rank_correlations == (None, None)


def test_one_lut_is_refused():
    with raises("too_few_luts"):
        diff_luts(FIRST)
