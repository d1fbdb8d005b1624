"""Exact extremes and fronts, against every architecture of a space or against many of one too large for that."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from luts.format.errors import UsageError
from search.algorithms import CompiledSpace, Constraints, LutPrice, latency_bounds, search
from search.algorithms.bounds import Goal, InfeasibleError, exact_front, fastest
from search.algorithms.cost import UNLIMITED, ChannelLimits
from search.algorithms.feasible import FeasibleSet, extreme
from search.algorithms.pareto import pareto_rows
from tests.support.search_world import NANO, XXS, Accuracy, make_price


@pytest.fixture(scope="module")
def nano():
    return CompiledSpace(NANO, [make_price(), make_price(salt="other")])


@pytest.fixture(scope="module")
def everything(nano):
    """All 2,176 architectures, straight from the space."""
    codes = nano.encode(list(NANO))
    return codes, *nano.totals(codes)


@pytest.fixture(scope="module")
def xxs():
    return CompiledSpace(XXS, make_price(XXS))


def _beaten(costs):
    return [any((a <= b).all() and (a < b).any() for a in costs) for b in costs]


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_skyline_by_definition(columns):
    costs = np.random.default_rng(columns).integers(0, 6, (200, columns)).astype(float)
    kept = pareto_rows(costs)
    wanted = {tuple(row) for row, beaten in zip(costs, _beaten(costs), strict=True) if not beaten}
    rows = [tuple(row) for row in costs[kept]]
    assert rows == sorted(wanted)


def test_skyline_of_more_rows_than_a_block_and_of_none():
    costs = np.random.default_rng(0).random((3000, 3))
    assert set(pareto_rows(costs)) == {i for i, beaten in enumerate(_beaten(costs)) if not beaten}
    assert pareto_rows(np.empty((0, 2))).size == pareto_rows(np.empty((0, 3))).size == 0


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
    bounds = {2: np.quantile(totals[2], 0.6), 4: np.quantile(totals[4], 0.5), 5: np.quantile(totals[5], 0.4)}
    limits = ChannelLimits((0, *bounds), (np.inf, *bounds.values()), float(np.quantile(memory, 0.7)))
    within = limits.allow(nano, codes)
    assert 0 < within.sum() < len(codes) / 2
    wanted = np.column_stack([totals[0], -totals[5]])[within]
    found = nano.totals(exact_front(nano, (Goal(0), Goal(5, -1)), limits))[0]
    assert found[0] == pytest.approx(wanted[pareto_rows(wanted), 0])
    assert fastest(nano, limits).latency_ms == pytest.approx(wanted[:, 0].min())


def test_what_lies_on_the_limit_is_found(nano, everything):
    codes, totals, _ = everything
    for row in range(0, len(codes), 211):
        limits = ChannelLimits((0, 2, 4), (np.inf, float(totals[2, row]), float(totals[4, row])))
        within = limits.allow(nano, codes)
        assert within[row]
        assert fastest(nano, limits).latency_ms == pytest.approx(totals[0, within].min())


def test_reach_of_a_space_too_large_to_enumerate(xxs):
    reach = latency_bounds(XXS, make_price(XXS), Constraints(latency_ms=1, cautious=False))
    sample = FeasibleSet(xxs, UNLIMITED).sample(5000, np.random.default_rng(0)).codes
    batch = xxs.price(sample)
    latencies, macs = batch.latency_ms[0], batch.macs
    assert reach.smallest.latency_ms <= latencies.min() <= latencies.max() <= reach.largest.latency_ms
    ms = np.array([corner.latency_ms for corner in reach.most_macs])
    most = np.array([corner.macs for corner in reach.most_macs])
    assert (np.diff(ms) > 0).all()
    assert (np.diff(most) > 0).all()
    assert (macs <= most[np.searchsorted(ms, latencies * (1 + 1e-12), side="right") - 1]).all()
    assert reach.fewest_params[0] == reach.smallest


def test_limits_hold_for_the_lean_and_memory_for_all(xxs):
    budget = Constraints(latency_ms=1, params=900_000, macs=200_000_000, memory_bytes=3_000_000)
    reach = latency_bounds(XXS, make_price(XXS), budget)
    assert max(corner.params for corner in reach.fewest_params) <= 900_000
    assert max(corner.macs for corner in reach.fewest_params) <= 200_000_000
    for front in (reach.fewest_params, reach.most_params, reach.most_macs):
        assert max(corner.memory_bytes for corner in front) <= 3_000_000
    assert reach.smallest.latency_high_ms == reach.fewest_params[0].latency_high_ms


def test_what_counts_is_the_bound_where_the_budget_is_cautious():
    price = make_price()
    cautious = latency_bounds(NANO, price, Constraints(latency_ms=1)).most_params
    point = latency_bounds(NANO, price, Constraints(latency_ms=1, cautious=False)).most_params
    assert [c.latency_high_ms for c in cautious] == sorted(c.latency_high_ms for c in cautious)
    assert [c.latency_ms for c in point] == sorted(c.latency_ms for c in point)


def test_what_no_latency_can_buy_is_named(nano, everything):
    _, totals, memory = everything
    price = make_price()
    for budget, text in (
        (Constraints(latency_ms=1, params=1000), f"smallest has {totals[4].min():.0f} parameters"),
        (Constraints(latency_ms=1, macs=1000), f"smallest has {totals[5].min():.0f} conv"),
        (Constraints(latency_ms=1, memory_bytes=10), f"smallest has {memory.min():.0f} bytes of activations"),
    ):
        with pytest.raises(InfeasibleError, match=text):
            latency_bounds(NANO, price, budget)
    small = ChannelLimits((1, 3), (np.inf, float(totals[3].min()) / 2))
    with pytest.raises(InfeasibleError, match="by LUT 2"):
        fastest(nano, small)


def test_of_several_luts_the_one_out_of_reach_is_named():
    phones = [
        dataclasses.replace(make_price(salt=name), name=f"{name}/autovit-nano/x/v1")
        for name in ("one", "two")
    ]
    least = min(LutPrice.of(phones[1]).model.predict(arch.keys(), arch.boundary_bytes()).ms for arch in NANO)
    small = Constraints(latency_ms=100, further_latency_ms=(0.5 * least,), cautious=False)
    with pytest.raises(
        InfeasibleError, match=f"smallest has {least:.4g} ms by two/autovit-nano/x/v1; allow more"
    ):
        latency_bounds(NANO, phones, small)
    quick = Constraints(latency_ms=0.1, further_latency_ms=(100,), cautious=False)
    with pytest.raises(InfeasibleError) as refused:
        search(NANO, phones, Accuracy(), quick)
    assert "meets 0.1 ms by one/autovit-nano/x/v1 and 100 ms by two/autovit-nano/x/v1;" in str(refused.value)
    assert re.search(
        r"reached within the rest is [0-9.]+ ms by one/autovit-nano/x/v1; allow", str(refused.value)
    )
    with pytest.raises(
        InfeasibleError, match=r"meets 0\.1 ms; the smallest latency that can be reached is \d"
    ):
        search(NANO, phones[0], Accuracy(), Constraints(latency_ms=0.1, cautious=False))


def test_a_budget_names_one_latency_for_each_lut(nano):
    with pytest.raises(UsageError, match="2 LUTs, but 1 latency"):
        ChannelLimits.of(nano, Constraints(latency_ms=1))
    limits = ChannelLimits.of(
        nano, Constraints(latency_ms=1, further_latency_ms=(2,), macs=7, memory_bytes=9)
    )
    assert limits == ChannelLimits((1, 3, 5), (1, 2, 7), 9)
    assert ChannelLimits.of(
        nano, Constraints(latency_ms=1, further_latency_ms=(2,), cautious=False)
    ).channels == (
        0,
        2,
    )
