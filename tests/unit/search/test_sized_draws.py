"""Draws within a range of parameters: all of what is there, nothing else, and evenly."""

import collections
import itertools
import random

import pytest
from scipy import stats

from search.spaces import get_space
from search.spaces.scope import ParameterRangeSampler

NANO = get_space("autovit-nano")
PARAMS = {arch: arch.params() for arch in NANO}


def test_extremes_are_those_of_the_space():
    draws = ParameterRangeSampler(NANO, 0, 1 << 40)
    assert (draws.least, draws.most) == (min(PARAMS.values()), max(PARAMS.values()))
    assert draws.heads == {3: ("fc",), 4: ("fc",)}


@pytest.mark.parametrize(("low", "high", "stages"), [(90_000, 96_000, 3), (190_000, 191_000, 4)])
def test_draws_are_uniform_among_all_within(low, high, stages):
    within = {a for a, params in PARAMS.items() if low <= params <= high and len(a.stages) == stages}
    draws, rng = ParameterRangeSampler(NANO, low, high), random.Random(0)
    counts = collections.Counter(draws.draw(rng, stages, 64) for _ in range(60 * len(within)))
    assert set(counts) == within
    assert len(within) > 5
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_one_network_alone_is_found_and_a_gap_is_empty():
    ordered = sorted(set(PARAMS.values()))
    params = next(p for p in ordered if list(PARAMS.values()).count(p) == 1)
    (arch,) = (a for a, own in PARAMS.items() if own == params)
    assert ParameterRangeSampler(NANO, params, params).draw(random.Random(0), len(arch.stages), 64) == arch
    gap = next(low + 1 for low, high in itertools.pairwise(ordered) if high > low + 1)
    assert ParameterRangeSampler(NANO, gap, gap).heads == {}
