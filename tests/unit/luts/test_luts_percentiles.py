"""Percentiles of single calls: by hand, against the binomial, and how often their intervals hold the truth."""

import numpy as np
import pytest
from scipy.stats import binom

from luts.estimate.statistics import Percentile, calls_needed, percentiles
from luts.format.schema import Floats


def calls_of(count: int) -> Floats:
    """1, 2, … ms."""
    return np.asarray(np.arange(1.0, count + 1.0), dtype=np.float64)


def test_as_many_calls_as_an_interval_takes():
    """The highest of n calls is below p99 with 0.99^n: 0.0252 at 366, 0.0247 at 368."""
    for share, needed in ((0.5, 6), (0.9, 36), (0.99, 368)):
        assert calls_needed(share) == needed
        assert share**needed <= 0.025 < share ** (needed - 1)


def test_percentile_is_absent_with_too_few_calls():
    assert percentiles([]) == percentiles([calls_of(0)])
    few = percentiles([calls_of(35)])
    assert (few.calls, few.p90, few.p99) == (35, None, None)
    assert few.p50 is not None
    assert few.p50.ms == 18.0
    assert percentiles([calls_of(367)]).p99 is None
    assert percentiles([calls_of(368)]).p99 is not None


def test_percentile_interval_of_independent_calls():
    """100 calls of 1 to 100 ms in one load: the ranks between which the median lies with 95 %, 40 and 61."""
    found = percentiles([np.random.default_rng(0).permutation(calls_of(100))])
    assert found.p50 == Percentile(50.5, 40.0, 61.0)
    assert binom.cdf(60, 100, 0.5) - binom.cdf(39, 100, 0.5) >= 0.95
    assert found.columns()["p90_ms"] == pytest.approx(90.1)


def test_loads_that_differ_are_worth_fewer_calls():
    """Two loads of 100 calls, one wholly below the other: the calls are worth two, which reach neither end."""
    fast, slow = np.linspace(1.0, 1.1, 100), np.linspace(2.0, 2.1, 100)
    apart, mixed = percentiles([fast, slow]).p50, percentiles([np.sort(np.r_[fast, slow])]).p50
    assert apart is not None
    assert (apart.low, apart.high) == (None, None)
    assert mixed is not None
    assert mixed.low == pytest.approx(1 + 0.1 * 85 / 99), "the 86th of 200"


@pytest.mark.parametrize("share", [50, 90])
def test_intervals_hold_the_truth(share):
    """Eight loads of 20 calls, loads 1 % apart, calls 2 %, and 5 % of them in bursts that cost 10 to 100 %."""
    rng = np.random.default_rng(7)

    def load(calls=20):
        burst, spoilt = False, np.zeros(calls)
        for call in range(calls):
            burst = rng.random() < (0.6 if burst else 0.021)
            spoilt[call] = np.log(rng.uniform(1.1, 2.0)) if burst else 0.0
        return np.exp(rng.normal(0, 0.01) + rng.normal(0, 0.02, calls) + spoilt)

    truth = np.percentile(np.concatenate([load() for _ in range(4000)]), share)
    held = []
    for _ in range(200):
        told = getattr(percentiles([load() for _ in range(8)]), f"p{share}")
        held.append((told.low or 0) <= truth <= (told.high or np.inf))
    assert np.mean(held) >= 0.90
