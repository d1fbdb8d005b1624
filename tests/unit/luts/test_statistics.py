"""Location and standard error, percentiles, quantiles and errors, by hand and against their coverage."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binom

from luts.estimate.latencies import quiet_latency
from luts.estimate.ratios import Segment
from luts.estimate.statistics import (
    Percentile,
    binomial_quantile,
    calls_needed,
    half_width,
    kendall_tau,
    location_and_se,
    mape,
    midmean,
    normal_quantile,
    percentiles,
    share_within,
    student_quantile,
)
from luts.format.schema import Floats


def test_midmean_averages_the_middle_half() -> None:
    assert midmean(np.array([9.0, 1.0, 2.0, 100.0, 4.0, 3.0, 5.0, -50.0])) == pytest.approx(
        (2 + 3 + 4 + 5) / 4
    )


def test_midmean_works_along_the_last_axis() -> None:
    values = np.array([[0.0, 1.0, 2.0, 30.0], [4.0, -9.0, 6.0, 5.0]])
    assert midmean(values).tolist() == [1.5, 4.5]


def test_location_ignores_a_fifth_of_gross_outliers() -> None:
    values = np.full(40, 0.1)
    values[::5] = 2.0
    location, _ = location_and_se(values)
    assert location == pytest.approx(0.1)


@pytest.mark.parametrize("count", [12, 20, 40])
@pytest.mark.parametrize("outlier_share", [0.0, 0.05])
def test_standard_error_is_the_spread_over_repetitions(count: int, outlier_share: float) -> None:
    generator = np.random.default_rng(1)
    locations, errors = [], []
    for _ in range(300):
        values = generator.normal(0, 0.02, count)
        values += (generator.random(count) < outlier_share) * generator.uniform(0.2, 1.0, count)
        location, se = location_and_se(values)
        locations.append(location)
        errors.append(se)
    spread = 1.4826 * np.median(np.abs(np.array(locations) - np.median(locations)))
    assert 0.8 < np.median(errors) / spread < 1.25


def test_standard_error_of_four_rounds_by_hand() -> None:
    """Two blocks of two have 0 to 4 ones: midmeans 0 and 1 in 5 of 16 cases each, so the middle 68 % reach both."""
    location, standard_error = location_and_se(np.array([0.0, 0.0, 1.0, 1.0]))
    assert location == 0.5
    assert standard_error == pytest.approx(0.5 * np.sqrt(4 / (4 - 2)))


def test_blocks_see_the_dependence_of_neighbouring_rounds() -> None:
    generator = np.random.default_rng(2)
    independent = generator.normal(0, 1, 60)
    dependent = np.repeat(independent[:15], 4)
    shuffled = generator.permutation(dependent)
    assert location_and_se(dependent)[1] > 1.3 * location_and_se(shuffled)[1]


def test_location_of_several_quantities() -> None:
    generator = np.random.default_rng(4)
    shared, own = generator.normal(0, 1, 60), generator.normal(0, 0.1, (2, 60))
    values = shared + own + np.array([[1.0], [3.0]])
    location, se = location_and_se(values)
    singles = [location_and_se(row) for row in values]
    assert location == pytest.approx((singles[0][0] + singles[1][0]) / 2)
    assert se == pytest.approx(singles[0][1], rel=0.1)
    assert location_and_se(values[:1]) == singles[0]


def calls_of(count: int) -> Floats:
    """1, 2, … ms."""
    return np.asarray(np.arange(1.0, count + 1.0), dtype=np.float64)


def test_calls_needed_for_an_interval():
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


def test_calls_of_two_loads_by_hand():
    """1 to 200 ms, 60 of the lower half in one load, 40 in the other: 2 (10^2 + 10^2) / 200^2 against 0.25 / 200.

    Eight calls are worth one, so the median of 25 calls counts: its ranks 8 and 18 are the 57th and 144th of 200.
    """
    calls = calls_of(200)
    first, second = np.r_[calls[:60], calls[100:140]], np.r_[calls[60:100], calls[140:]]
    assert percentiles([first, second]).p50 == Percentile(100.5, 57.0, 144.0)


@pytest.mark.parametrize("share", [50, 90])
def test_percentile_intervals_cover_the_truth(share):
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
        found = getattr(percentiles([load() for _ in range(8)]), f"p{share}")
        held.append((found.low or 0) <= truth <= (found.high or np.inf))
    assert np.mean(held) >= 0.90


PROBABILITIES = (0.001, 0.025, 0.05, 0.5, 0.9, 0.975, 0.999)


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_quantiles_equal_scipys(probability):
    assert normal_quantile(probability) == stats.norm.ppf(probability)
    for df in (1, 4, 7.5, 100):
        assert student_quantile(probability, df) == stats.t.ppf(probability, df)
    for trials in (1, 2, 10, 37, 400):
        for success in (0.1, 0.25, 0.4):
            assert binomial_quantile(probability, trials, success) == stats.binom.ppf(
                probability, trials, success
            )


MEASURED = [10.0, 20.0, 40.0]
PREDICTED = [11.0, 19.0, 40.0]


def test_prediction_errors_by_hand() -> None:
    assert mape(MEASURED, PREDICTED) == pytest.approx((0.1 + 0.05 + 0.0) / 3)
    assert share_within(MEASURED, PREDICTED, 0.06) == pytest.approx(2 / 3)


def test_kendall_tau_counts_pairs_in_order() -> None:
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1.0], [1.0]) is None
    assert kendall_tau([1.0, 2.0], [3.0, 3.0]) is None


def test_conformal_width_is_the_finite_sample_quantile() -> None:
    predicted = [10.0] * 19
    measured = [10.0 + 0.1 * number for number in range(1, 20)]
    assert half_width(measured, predicted, 0.95) == pytest.approx(0.19)
    assert half_width(measured, predicted, 0.90) == pytest.approx(0.18)


@pytest.mark.parametrize(("level", "needed"), [(0.90, 9), (0.95, 19)])
def test_too_few_models_give_no_width(level: float, needed: int) -> None:
    assert half_width([1.0] * (needed - 1), [1.0] * (needed - 1), level) is None
    assert half_width([1.0] * needed, [1.0] * needed, level) == 0.0


def test_conformal_intervals_hold_new_measurements() -> None:
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        predicted = generator.uniform(5, 50, 31)
        measured = predicted * np.exp(generator.standard_t(3, 31) * 0.01 + 0.01)
        width = half_width(measured[:30].tolist(), predicted[:30].tolist(), 0.90)
        assert width is not None
        hits.append(abs(measured[30] - predicted[30]) <= width * predicted[30])
    assert 0.88 < np.mean(hits) < 0.94


def contended_medians(generator: np.random.Generator, count: int) -> list[float]:
    """Medians of a reference of 10 ms; in half of the sessions something else slows it down, by 15 % on average."""
    slowdown = np.where(generator.random(count) < 0.5, 0.0, generator.exponential(0.15, count))
    sessions = (
        Segment(
            number, 0, ("r", "r"), (0, 1), np.log(1e7) + extra + generator.normal(0, 0.004, (2, 1))
            + generator.normal(0, 0.01, (2, 20)),
        )
        for number, extra in enumerate(slowdown)
    )  # fmt: skip
    return [ms for segment in sessions if (ms := segment.median_ms("r")) is not None]


@pytest.mark.parametrize("count", [12, 40])
def test_quiet_latency_sees_through_contention(count: int) -> None:
    generator = np.random.default_rng(1)
    latencies = [quiet_latency(contended_medians(generator, count), 0.004) for _ in range(100)]
    assert np.mean([quiet.low <= 10.0 <= quiet.high for quiet in latencies]) >= 0.95
    assert np.mean([quiet.ms for quiet in latencies]) == pytest.approx(10.0, rel=0.01)


def test_a_single_session_has_an_interval() -> None:
    quiet = quiet_latency(contended_medians(np.random.default_rng(3), 1), 0.004)
    assert quiet.low < quiet.ms < quiet.high
    quiet = quiet_latency([10.0], 0.004)
    half = 10 * normal_quantile(0.975) * 0.004 / np.sqrt(2)
    assert (quiet.low, quiet.high) == pytest.approx((10 - half, 10 + half)), "the mean of two copies"
