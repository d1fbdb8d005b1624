import itertools

import numpy as np
import pytest

from luts.estimate.latencies import quiet_latency
from luts.estimate.ratios import Segment
from luts.estimate.statistics import half_width, kendall_tau, mape, share_within

MEASURED = [10.0, 20.0, 40.0]
PREDICTED = [11.0, 19.0, 40.0]


def test_errors_by_hand() -> None:
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


def test_two_runs_agree_on_quiet_latency_within_intervals() -> None:
    generator = np.random.default_rng(2)
    runs = [quiet_latency(contended_medians(generator, 15), 0.004) for _ in range(100)]
    meets = [one.low <= other.high and other.low <= one.high for one, other in itertools.pairwise(runs)]
    assert np.mean(meets) >= 0.95


def test_a_single_session_has_an_interval() -> None:
    quiet = quiet_latency(contended_medians(np.random.default_rng(3), 1), 0.004)
    assert quiet.low < quiet.ms < quiet.high
