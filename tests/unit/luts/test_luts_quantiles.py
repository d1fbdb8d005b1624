"""Quantiles: those of scipy's distributions, without their import."""

import pytest
from scipy import stats

from luts.estimate.statistics import binomial_quantile, normal_quantile, student_quantile

PROBABILITIES = (0.001, 0.025, 0.05, 0.5, 0.9, 0.975, 0.999)


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_equal_to_those_of_the_distributions(probability):
    assert normal_quantile(probability) == stats.norm.ppf(probability)
    for df in (1, 4, 7.5, 100):
        assert student_quantile(probability, df) == stats.t.ppf(probability, df)
    for trials in (1, 2, 10, 37, 400):
        for success in (0.1, 0.25, 0.4):
            assert binomial_quantile(probability, trials, success) == stats.binom.ppf(
                probability, trials, success
            )
