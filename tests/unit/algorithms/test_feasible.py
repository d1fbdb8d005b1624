"""Architectures within limits: enumerated exactly, and drawn uniformly."""

import numpy as np
import pytest
from scipy import stats

from luts.format.errors import InfeasibleError
from search.algorithms import CompiledSpace, Constraints
from search.algorithms.feasible import UNLIMITED, ChannelLimits, FeasibleSet, extreme, least_memory_bytes
from search.algorithms.record import ClassifierParams
from search.algorithms.study import Candidates
from search.spaces import Arch, get_space
from search.spaces.registry import without_task
from tests.support.search_world import NANO, XXS, make_model, make_price


def _limits(everything, shares, memory_share=1.0):
    _, totals, memory = everything
    largest = tuple(float(np.quantile(totals[channel], share)) for channel, share in shares.items())
    return ChannelLimits(tuple(shares), largest, float(np.quantile(memory, memory_share)))


LIMITS = [
    {1: 0.02},
    {1: 0.3},
    {0: 0.3, 4: 0.4},
    {1: 0.5, 3: 0.4, 4: 0.5},
    {0: 0.6, 2: 0.5, 4: 0.6, 5: 0.6},
]


@pytest.mark.parametrize(("cautious", "channels"), [(False, (0, 2)), (True, (1, 3))])
def test_cautious_limits_are_of_upper_bounds(nano, cautious, channels):
    """A LUT's channels are its prediction and the upper bound of that."""
    limits = ChannelLimits.of(nano, Constraints(latency_ms=8.0, further_latency_ms=(9.0,), cautious=cautious))
    assert (limits.channels, limits.largest) == (channels, (8.0, 9.0))


def test_no_architecture_has_the_least_of_a_channel_without_memory(nano):
    limits = ChannelLimits((), (), memory_bytes=1.0)
    assert [len(extreme(nano, 0, limits, largest=most)) for most in (False, True)] == [0, 0]


def test_least_memory_is_that_of_the_smallest_architecture(nano, everything):
    assert least_memory_bytes(nano) == everything[2].min()


@pytest.mark.parametrize("shares", LIMITS)
@pytest.mark.parametrize("memory_share", [1.0, 0.6])
def test_enumeration_is_exact(nano, everything, shares, memory_share):
    limits = _limits(everything, shares, memory_share)
    feasible = FeasibleSet(nano, limits)
    wanted = everything[0][limits.allow(nano, everything[0])]
    found = feasible.enumerate()
    assert {row.tobytes() for row in found} == {row.tobytes() for row in np.ascontiguousarray(wanted)}
    assert len(found) == len(wanted) <= feasible.most


@pytest.mark.parametrize("shares", LIMITS)
def test_samples_are_uniform(nano, everything, shares):
    """Chi-square test at a fixed seed; a sampler that favoured some by a tenth would fail."""
    limits = _limits(everything, shares, 0.8)
    within = int(limits.allow(nano, everything[0]).sum())
    drawn = FeasibleSet(nano, limits).sample(100 * within, np.random.default_rng(1))
    assert limits.allow(nano, drawn.codes).all()
    assert len(drawn.codes) == 100 * within <= drawn.proposed
    _, counts = np.unique(drawn.codes, axis=0, return_counts=True)
    assert len(counts) == within
    assert stats.chisquare(counts).pvalue > 1e-3


def test_architectures_on_the_limit_are_within(nano, everything):
    """Whatever the order of summation: each architecture is drawn when its own price is the budget."""
    codes, totals, _ = everything
    for row in range(0, len(codes), 97):
        limits = ChannelLimits((0, 3, 4), tuple(float(totals[channel, row]) for channel in (0, 3, 4)))
        found = FeasibleSet(nano, limits).enumerate()
        assert codes[row].tobytes() in {other.tobytes() for other in np.ascontiguousarray(found)}


def test_a_large_space_is_enumerated_in_parts(monkeypatch):
    xxs = CompiledSpace(XXS, make_price(XXS))
    least = float(xxs.channel(extreme(xxs, 0, UNLIMITED, largest=False))[0])
    feasible = FeasibleSet(xxs, ChannelLimits((0,), (1.03 * least,)))
    whole = feasible.enumerate()
    monkeypatch.setattr("search.algorithms.feasible.ROWS", 100)
    assert 1000 < len(whole) <= feasible.most
    assert {row.tobytes() for row in feasible.enumerate()} == {row.tobytes() for row in whole}


def test_sampling_gives_up_after_many_draws(nano, everything, monkeypatch):
    monkeypatch.setattr("search.algorithms.feasible.CELLS", 1)
    monkeypatch.setattr("search.algorithms.feasible.MAX_PROPOSED", 1)
    limits = _limits(everything, {0: 0.5})
    drawn = FeasibleSet(nano, limits).sample(200, np.random.default_rng(0))
    assert 50 < len(drawn.codes) < 200 == drawn.proposed
    assert limits.allow(nano, drawn.codes).all()


def test_no_limit_counts_the_whole_space():
    for space in (NANO, XXS):
        feasible = FeasibleSet(CompiledSpace(space, make_price(space)), UNLIMITED)
        assert feasible.most == space.size()


def test_tight_limits_in_a_large_space_need_few_draws():
    xxs = CompiledSpace(XXS, make_price(XXS))
    least = float(xxs.channel(extreme(xxs, 0, UNLIMITED, largest=False))[0])
    for factor in (1.0, 1.001, 1.05):
        feasible = FeasibleSet(xxs, ChannelLimits((0,), (least * factor,)))
        drawn = feasible.sample(200, np.random.default_rng(0))
        assert len(drawn.codes) == 200
        assert drawn.proposed < 300
        assert xxs.channel(drawn.codes).max() <= least * factor
    assert FeasibleSet(xxs, ChannelLimits((0,), (0.999 * least,))).most == 0
    assert (
        len(FeasibleSet(xxs, ChannelLimits((0,), (0.999 * least,))).sample(5, np.random.default_rng(0)).codes)
        == 0
    )


def test_repair_keeps_feasible_choices(nano, everything):
    limits = _limits(everything, {0: 0.3, 4: 0.5})
    feasible, codes = FeasibleSet(nano, limits), everything[0]
    within = limits.allow(nano, codes)
    repaired, fits = feasible.repair(codes, np.random.default_rng(0))
    assert (repaired[within] == codes[within]).all()
    assert fits[within].all()
    assert fits[~within].mean() > 0.8
    assert (fits == limits.allow(nano, repaired)).all()
    kept = (repaired[~within] == codes[~within]).mean(axis=0)
    assert kept[1] > 0.8, "the first stage gives way last"


def test_repair_mends_shrinking_widths(nano):
    feasible = FeasibleSet(nano, UNLIMITED)
    codes = np.array([[0, 1, 0, 15, 0], [0, 0, 0, 0, 0]], np.int16)
    repaired, fits = feasible.repair(codes, np.random.default_rng(0))
    assert fits.all()
    assert not np.isnan(nano.channel(repaired)).any()
    assert (repaired[:, :4] == codes[:, :4]).all()


def test_the_feasible_fraction_includes_the_acceptance_rate():
    """Five sums at once have few bins each: more than half of what fits by its bins is not within the budget."""
    salts = ("", "other", "third")
    models = [make_model(salt=salt) for salt in salts]
    archs = list(NANO)
    params, macs = ([cost(arch) for arch in archs] for cost in (Arch.params, lambda a: a.macs().conv_linear))
    constraints = Constraints(
        latency_ms=7.0,
        further_latency_ms=(7.0, 7.0),
        params=int(np.quantile(params, 0.5)),
        macs=int(np.quantile(macs, 0.5)),
        cautious=False,
    )
    within = [
        all(model.predict(arch.keys(), arch.boundary_bytes()).ms <= 7.0 for model in models)
        and used <= constraints.params
        and taken <= constraints.macs
        for arch, used, taken in zip(archs, params, macs, strict=True)
    ]
    truth = sum(within) / len(within)
    prices = [make_price(salt=salt) for salt in salts]
    drawn = Candidates(NANO, prices, constraints, 800, np.random.default_rng(0))
    assert not drawn.whole
    assert drawn.priced > 1.5 * 800
    assert drawn.share == pytest.approx(truth, rel=0.1)
    whole = Candidates(NANO, prices, constraints, NANO.size(), np.random.default_rng(0))
    assert whole.whole
    assert whole.share == truth


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.8), (0.5, 0.55)])
def test_ranges_of_parameters_are_exact(low, high):
    params = np.array([arch.params() for arch in NANO])
    least, most = (int(np.quantile(params, q)) for q in (low, high))
    limits = Constraints(latency_ms=7.0, least_params=least, params=most, cautious=False)
    price = make_price()
    candidates = Candidates(NANO, price, limits, NANO.size(), np.random.default_rng(0))
    latency = [price.model.predict(arch.keys(), arch.boundary_bytes()).ms for arch in NANO]
    within = {
        arch
        for arch, ms, used in zip(NANO, latency, params, strict=True)
        if ms <= 7.0 and least <= used <= most
    }
    assert set(candidates.compiled.decode(candidates.pool)) == within != set()


def test_a_range_of_a_large_space_needs_few_draws():
    limits = Constraints(latency_ms=400, least_params=1_000_000, params=1_849_999, cautious=False)
    candidates = Candidates(XXS, make_price(XXS), limits, 500, np.random.default_rng(0))
    params = candidates.compiled.price(candidates.pool).params
    assert 1_000_000 <= params.min() <= params.max() <= 1_849_999
    assert candidates.priced < 3 * 500


def test_the_scope_of_a_backbone_counts_the_parameters_of_its_classifier():
    space = get_space("autovit-nano.ssdlite")
    counts = {arch: without_task(arch).with_classes(10).params() for arch in space}
    least, most = (int(np.quantile(list(counts.values()), q)) for q in (0.2, 0.4))
    scope = ClassifierParams(classes=10, least_params=least, params=most)
    limits = Constraints(latency_ms=1e6, as_classifier=scope)
    candidates = Candidates(space, make_price(space), limits, space.size(), np.random.default_rng(0))
    assert candidates.whole
    assert set(candidates.compiled.decode(candidates.pool)) == {
        arch for arch, count in counts.items() if least <= count <= most
    }
    network = Constraints(
        latency_ms=1e6, as_classifier=scope, params=min(arch.params() for arch in space) + 1
    )
    with pytest.raises(InfeasibleError, match="parameters as a classifier"):
        Candidates(space, make_price(space), network, 100, np.random.default_rng(0))
