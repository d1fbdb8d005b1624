import numpy as np
import pytest

from luts.estimate.statistics import location_and_se, midmean


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


def test_blocks_see_the_dependence_of_neighbouring_rounds() -> None:
    generator = np.random.default_rng(2)
    independent = generator.normal(0, 1, 60)
    dependent = np.repeat(independent[:15], 4)
    shuffled = generator.permutation(dependent)
    assert location_and_se(dependent)[1] > 1.3 * location_and_se(shuffled)[1]


def test_standard_error_is_deterministic_and_positive() -> None:
    values = np.random.default_rng(3).normal(0, 0.01, 17)
    assert location_and_se(values) == location_and_se(values.copy())
    assert location_and_se(values)[1] > 0


def test_location_of_several_quantities() -> None:
    generator = np.random.default_rng(4)
    shared, own = generator.normal(0, 1, 60), generator.normal(0, 0.1, (2, 60))
    values = shared + own + np.array([[1.0], [3.0]])
    location, se = location_and_se(values)
    singles = [location_and_se(row) for row in values]
    assert location == pytest.approx((singles[0][0] + singles[1][0]) / 2)
    assert se == pytest.approx(singles[0][1], rel=0.1)
    assert location_and_se(values[:1]) == singles[0]
