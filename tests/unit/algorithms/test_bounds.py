"""Exact extremes and fronts against every architecture of a space, or many of a space too large for that."""

import dataclasses
import itertools

import numpy as np
import pytest

from luts.format.errors import InfeasibleError
from search.algorithms import Constraints, LutPrice, bounds, latency_bounds, search
from search.algorithms.bounds import Goal, exact_front, fastest
from search.algorithms.cost import CompiledSpace
from search.algorithms.feasible import UNLIMITED, ChannelLimits, FeasibleSet, extreme
from search.algorithms.pareto import pareto_rows
from search.algorithms.study import Candidates
from tests.support.search_world import NANO, XXS, Accuracy, make_price


@pytest.fixture(scope="module")
def xxs():
    return CompiledSpace(XXS, make_price(XXS))


def test_extremes_are_exact(nano, everything):
    _, totals, _ = everything
    for channel, values in enumerate(totals):
        least = extreme(nano, channel, UNLIMITED, largest=False)
        most = extreme(nano, channel, UNLIMITED, largest=True)
        assert nano.channel(least, channel)[0] == pytest.approx(values.min())
        assert nano.channel(most, channel)[0] == pytest.approx(values.max())


@pytest.mark.parametrize(("channel", "sign"), [*itertools.product((3, 4, 5), (1, -1))])
def test_fronts_are_exact(nano, everything, channel, sign):
    _, totals, _ = everything
    wanted = np.column_stack([totals[1], sign * totals[channel]])
    codes = exact_front(nano, (Goal(1), Goal(channel, sign)), UNLIMITED)
    found = nano.totals(codes)[0]
    assert found[1] == pytest.approx(wanted[pareto_rows(wanted), 0])
    assert sign * found[channel] == pytest.approx(wanted[pareto_rows(wanted), 1])


def test_fronts_within_limits_are_exact(nano, everything):
    codes, totals, memory = everything
    largest = {2: np.quantile(totals[2], 0.6), 4: np.quantile(totals[4], 0.5), 5: np.quantile(totals[5], 0.4)}
    limits = ChannelLimits((0, *largest), (np.inf, *largest.values()), float(np.quantile(memory, 0.7)))
    within = limits.allow(nano, codes)
    assert 0 < within.sum() < len(codes) / 2
    wanted = np.column_stack([totals[0], -totals[5]])[within]
    found = nano.totals(exact_front(nano, (Goal(0), Goal(5, -1)), limits))[0]
    assert found[0] == pytest.approx(wanted[pareto_rows(wanted), 0])
    assert fastest(nano, limits).latency_ms == pytest.approx(wanted[:, 0].min())


def test_architectures_on_the_limit_are_found(nano, everything):
    codes, totals, _ = everything
    for row in range(0, len(codes), 211):
        limits = ChannelLimits((0, 2, 4), (np.inf, float(totals[2, row]), float(totals[4, row])))
        within = limits.allow(nano, codes)
        assert within[row]
        assert fastest(nano, limits).latency_ms == pytest.approx(totals[0, within].min())


@pytest.mark.parametrize("enumerated", [20_000, 5])
def test_the_fastest_with_enough_parameters_is_exact(monkeypatch, nano, everything, enumerated):
    monkeypatch.setattr(bounds, "ENUMERATED", enumerated)
    _, totals, _ = everything
    for low, high in ((0.2, 0.25), (0.5, 1.0), (0.99, 1.0)):
        least, most = (int(np.quantile(totals[4], q)) for q in (low, high))
        within = (least <= totals[4]) & (totals[4] <= most)
        constraints = Constraints(
            latency_ms=1.0, further_latency_ms=(1e9,), least_params=least, params=most, cautious=False
        )
        found = fastest(nano, ChannelLimits.of(nano, constraints))
        assert found.latency_ms == pytest.approx(totals[0, within].min())
        assert least <= found.params <= most


def test_bounds_of_a_large_space(xxs):
    found = latency_bounds(XXS, make_price(XXS), Constraints(latency_ms=1, cautious=False))
    costs = xxs.price(FeasibleSet(xxs, UNLIMITED).sample(5000, np.random.default_rng(0)).codes)
    latencies = costs.latency_ms[0]
    assert found.smallest.latency_ms <= latencies.min() <= latencies.max() <= found.largest.latency_ms
    ms = np.array([row.latency_ms for row in found.most_macs])
    most = np.array([row.macs for row in found.most_macs])
    assert (np.diff(ms) > 0).all()
    assert (np.diff(most) > 0).all()
    assert (costs.macs <= most[np.searchsorted(ms, latencies * (1 + 1e-12), side="right") - 1]).all()
    assert found.fewest_params[0] == found.smallest


def test_all_limits_hold_for_the_fewest_parameters_and_memory_for_all_fronts(xxs):
    limits = Constraints(latency_ms=1, params=900_000, macs=200_000_000, memory_bytes=3_000_000)
    found = latency_bounds(XXS, make_price(XXS), limits)
    assert max(row.params for row in found.fewest_params) <= 900_000
    assert max(row.macs for row in found.fewest_params) <= 200_000_000
    for front in (found.fewest_params, found.most_params, found.most_macs):
        assert max(row.memory_bytes for row in front) <= 3_000_000
    assert found.smallest.latency_high_ms == found.fewest_params[0].latency_high_ms


@pytest.mark.parametrize(("cautious", "name"), [(True, "latency_high_ms"), (False, "latency_ms")])
def test_cautious_constraints_count_the_upper_bound(cautious, name):
    front = latency_bounds(NANO, make_price(), Constraints(latency_ms=1, cautious=cautious)).most_params
    latencies = [getattr(row, name) for row in front]
    assert latencies == sorted(latencies)


def test_a_limit_that_nothing_meets_is_named(nano, everything):
    _, totals, memory = everything
    for constraints, text in (
        (Constraints(latency_ms=1, params=1000), f"smallest has {totals[4].min():.0f} parameters"),
        (Constraints(latency_ms=1, macs=1000), f"smallest has {totals[5].min():.0f} conv"),
        (Constraints(latency_ms=1, memory_bytes=10), f"smallest has {memory.min():.0f} bytes of activations"),
    ):
        with pytest.raises(InfeasibleError, match=text):
            latency_bounds(NANO, make_price(), constraints)
    with pytest.raises(InfeasibleError, match="by LUT 2"):
        fastest(nano, ChannelLimits((1, 3), (np.inf, float(totals[3].min()) / 2)))


@pytest.mark.parametrize(
    ("least", "most", "latency_ms", "text"),
    [
        (10**9, None, 1e3, "at least 1000000000 parameters; the largest has"),
        (200_000, 150_000, 1e3, "at most 150000 parameters and at least 200000 parameters at any latency"),
        (200_000, None, 1e-3, "0.001 ms and at least 200,000 parameters; the smallest latency"),
    ],
)
def test_too_many_parameters_are_infeasible(least, most, latency_ms, text):
    limits = Constraints(latency_ms=latency_ms, least_params=least, params=most, cautious=False)
    with pytest.raises(InfeasibleError, match=text):
        Candidates(NANO, make_price(), limits, 100, np.random.default_rng(0))


def test_the_infeasible_one_of_several_luts_is_named():
    prices = [dataclasses.replace(make_price(salt=name), name=f"{name}/x/v1") for name in ("one", "two")]
    model = LutPrice.of(prices[1]).model
    least = min(model.predict(arch.keys(), arch.boundary_bytes()).ms for arch in NANO)
    small = Constraints(latency_ms=100, further_latency_ms=(0.5 * least,), cautious=False)
    with pytest.raises(InfeasibleError, match=f"smallest has {least:.4g} ms by two/x/v1; allow more"):
        latency_bounds(NANO, prices, small)
    quick = Constraints(latency_ms=0.1, further_latency_ms=(100,), cautious=False)
    with pytest.raises(InfeasibleError) as refused:
        search(NANO, prices, Accuracy(), quick)
    assert "meets 0.1 ms by one/x/v1 and 100 ms by two/x/v1;" in str(refused.value)
    assert "reached within the rest is" in str(refused.value)
