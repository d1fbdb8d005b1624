"""A budget that also asks for parameters enough: what it holds, and the fastest within."""

import numpy as np
import pytest

from search.algorithms import CompiledSpace, Constraints, InfeasibleError, bounds
from search.algorithms.bounds import fastest
from search.algorithms.cost import ChannelLimits
from search.algorithms.feasible import FeasibleSet
from search.algorithms.study import Candidates
from tests.support.search_world import NANO, XXS, make_price

ARCHS = list(NANO)
PARAMS = np.array([arch.params() for arch in ARCHS])
COMPILED = CompiledSpace(NANO, make_price())
LATENCY = COMPILED.channel(COMPILED.encode(ARCHS))


def _limits(latency_ms, least, most=None):
    budget = Constraints(latency_ms=latency_ms, least_params=least, params=most, cautious=False)
    return ChannelLimits.of(COMPILED, budget)


@pytest.mark.parametrize(("share", "low", "high"), [(0.3, 0.3, 0.8), (0.8, 0.5, 0.55), (1.0, 0.9, 1.0)])
def test_holds_exactly_what_is_large_enough(share, low, high):
    least, most = (int(np.quantile(PARAMS, q)) for q in (low, high))
    latency_ms = float(np.quantile(LATENCY, share))
    found = FeasibleSet(COMPILED, _limits(latency_ms, least, most)).enumerate()
    within = (least <= PARAMS) & (most >= PARAMS) & (latency_ms >= LATENCY)
    assert within.any()
    assert set(COMPILED.decode(found)) == {ARCHS[row] for row in np.flatnonzero(within)}


@pytest.mark.parametrize("enumerated", [20_000, 5])
def test_the_fastest_that_is_large_enough_is_found_exactly(monkeypatch, enumerated):
    monkeypatch.setattr(bounds, "ENUMERATED", enumerated)
    for low, high in ((0.2, 0.25), (0.5, 1.0), (0.99, 1.0)):
        least, most = (int(np.quantile(PARAMS, q)) for q in (low, high))
        within = (least <= PARAMS) & (most >= PARAMS)
        found = fastest(COMPILED, _limits(1.0, least, most))
        assert found.latency_ms == pytest.approx(LATENCY[within].min())
        assert least <= found.params <= most


def test_nothing_large_enough_is_said_in_one_line():
    rng = np.random.default_rng(0)
    for least, most, latency_ms, why in (
        (10**9, None, 1e3, f"at least 1000000000 parameters; the largest has {PARAMS.max()} parameters"),
        (200_000, 150_000, 1e3, "at most 150000 parameters and at least 200000 parameters at any latency"),
        (200_000, None, 1e-3, "0.001 ms and at least 200,000 parameters; the smallest latency"),
    ):
        budget = Constraints(latency_ms=latency_ms, least_params=least, params=most, cautious=False)
        with pytest.raises(InfeasibleError, match=why) as caught:
            Candidates(NANO, make_price(), budget, 100, rng)
        assert "\n" not in str(caught.value)


def test_a_range_of_a_large_space_is_drawn_from_directly():
    least, most = 1_000_000, 1_849_999
    budget = Constraints(latency_ms=1e6, least_params=least, params=most, cautious=False)
    found = fastest(
        CompiledSpace(XXS, make_price(XXS)), ChannelLimits.of(CompiledSpace(XXS, make_price(XXS)), budget)
    )
    tight = budget.model_copy(update={"latency_ms": 1.1 * found.latency_ms})
    candidates = Candidates(XXS, make_price(XXS), tight, 500, np.random.default_rng(0))
    params = candidates.compiled.price(candidates.pool).params
    assert least <= params.min() <= params.max() <= most
    assert candidates.priced < 3 * 500, "a floor costs few draws"
