"""What is known before a fit: costs expected from physics, and entries of other devices."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import luts.format.store
from luts.estimate.design import (
    ROW_SD,
    TYPICAL_DEVICE,
    ExpectedCosts,
    Posterior,
    expected_from_lut,
    most_informative,
    prior_from_physics,
    prior_from_sources,
)
from luts.estimate.joint import JointFit, fit_entries
from luts.estimate.likelihood import (
    FitData,
    MarginalLikelihood,
    design_of,
    learn_deviations,
    mixed_covariance,
    prior_covariance,
    solve,
)
from luts.estimate.physics import WEIGHT_BYTES, physics_ms
from luts.estimate.sources import SourceEntries, source_from_lut, with_sources
from luts.estimate.statistics import predictive_quantile
from luts.format.lut import Lut
from luts.format.schema import Coefficients, KeyFeatures, KindPrior
from luts.format.store import LutRef, LutStore
from tests.support.errors import raises
from tests.support.lut_world import small_study

SHIPPED = LutStore([Path(luts.format.store.__file__).parents[1] / "data"])
PRICE = Coefficients(constant_ms=0.5, ms_per_mmac=0.1, ms_per_depthwise_mmac=0.4, ms_per_mib=2.0)
BLOCK = KeyFeatures(
    kind="conv",
    macs=5_000_000,
    depthwise_macs=2_000_000,
    traffic_bytes=3 * 2**20,
    params=2**20 // WEIGHT_BYTES,
)


def test_the_cost_of_a_block_by_hand() -> None:
    assert physics_ms(BLOCK, PRICE) == pytest.approx(0.5 + 3 * 0.1 + 2 * 0.4 + (3 + 1) * 2.0)


@pytest.mark.parametrize(
    ("unpriced", "ms"),
    [
        ((), 0.5 + 3 * 0.1 + 2 * 0.4 + 4 * 2.0),
        (("params",), 0.5 + 3 * 0.1 + 2 * 0.4 + 3 * 2.0),
        (("depthwise_macs",), 0.5 + 5 * 0.1 + 4 * 2.0),
    ],
)
def test_unpriced_features_cost_nothing(unpriced: tuple[str, ...], ms: float) -> None:
    expectation = ExpectedCosts("by hand", PRICE, unpriced=unpriced)
    assert expectation.ms({"a": BLOCK}) == {"a": pytest.approx(ms)}


def test_most_specific_cost_counts() -> None:
    none = Coefficients(constant_ms=0.0, ms_per_mmac=0.0, ms_per_mib=0.0)
    expectation = ExpectedCosts("by hand", none, {"conv": PRICE}, {"known": 7.0})
    other = BLOCK.model_copy(update={"kind": "other"})
    costs = expectation.ms({"known": BLOCK, "conv": BLOCK, "other": other})
    assert costs == {"known": 7.0, "conv": pytest.approx(9.6), "other": 1e-6}


@pytest.mark.parametrize("ref", SHIPPED.list(), ids=str)
def test_expected_costs_of_a_luts_own_blocks(ref: LutRef) -> None:
    """With weights left out, as planning once did, 9 to 23 % off."""
    lut = SHIPPED.load(ref.path)
    costs = replace(expected_from_lut(lut, str(ref)), entry_ms={}).ms(
        {row.key: row.features for row in lut.entries}
    )
    strays = np.log([costs[row.key] / row.ms for row in lut.entries])
    assert np.sqrt((strays**2).mean()) < 0.08


@pytest.fixture(scope="module")
def plain() -> Lut:
    """Its blocks' features tell neither weights nor depthwise MACs."""
    return small_study(removals=1).lut()


def test_lut_without_weights_does_not_price_them(plain: Lut) -> None:
    features = {row.key: row.features for row in plain.entries}
    expectation = replace(expected_from_lut(plain, "plain"), entry_ms={})
    fuller = {
        key: row.model_copy(update={"params": 10**7, "depthwise_macs": 1}) for key, row in features.items()
    }
    assert expectation.ms(fuller) == expectation.ms(features)


def test_mean_of_three_kinds_by_hand(plain: Lut) -> None:
    """Of 1, 2 and 6 ms a block, of 0.3, 0.1 and 0.2 ms a million MACs, of 8, 0 and 1 ms a MiB."""
    prices = {"a": (1.0, 0.3, 8.0), "b": (2.0, 0.1, 0.0), "c": (6.0, 0.2, 1.0)}
    prior = tuple(
        KindPrior(kind=kind, constant_ms=call, ms_per_mmac=mac, ms_per_mib=mib)
        for kind, (call, mac, mib) in prices.items()
    )
    lut = Lut(plain.meta.model_copy(update={"prior": prior}), plain.entries, plain.models, plain.samples)
    costs = expected_from_lut(lut, "by hand").ms(
        {
            "stranger": KeyFeatures(kind="d", macs=10_000_000, traffic_bytes=2**21),
            "known": KeyFeatures(kind="b", macs=10_000_000, traffic_bytes=2**21),
        }
    )
    assert costs == pytest.approx({"stranger": 3.0 + 10 * 0.2 + 2 * 3.0, "known": 2.0 + 10 * 0.1})


@pytest.fixture
def posterior() -> Posterior:
    features = {
        f"{kind}({number})": KeyFeatures(kind=kind, macs=number * 10**6, traffic_bytes=number * 2**18)
        for kind in ("conv", "attn")
        for number in (1, 5)
    }
    return prior_from_physics(features, TYPICAL_DEVICE, [("conv(1)", "attn(5)"), ("conv(5)", "attn(1)")])


def test_a_measured_network_conditions_the_covariance(posterior: Posterior) -> None:
    row = posterior.row(("conv(1)", "attn(1)"))
    conditioned = np.linalg.inv(np.linalg.inv(posterior.covariance) + np.outer(row, row) / ROW_SD**2)
    before = posterior.relative_se()
    posterior.learn(row)
    np.testing.assert_allclose(posterior.covariance, conditioned, rtol=1e-6, atol=1e-12)
    assert (posterior.relative_se() <= before).all()


def test_most_informative_network_leaves_least_variance(posterior: Posterior) -> None:
    candidates = np.stack([posterior.row(blocks) for blocks in (("conv(1)",), ("attn(5)", "conv(5)"))])
    targets = np.stack([posterior.row(("attn(5)", "conv(5)", "attn(1)"))])
    left = []
    for row in candidates:
        covariance = np.linalg.inv(np.linalg.inv(posterior.covariance) + np.outer(row, row) / ROW_SD**2)
        left.append(float((targets @ covariance @ targets.T).item()))
    assert most_informative(posterior, candidates, targets) == int(np.argmin(left)) == 1


MIB = 1 << 20
FEATURES = {
    f"{kind}{size}": KeyFeatures(
        kind=kind,
        macs=1_000_000 * size,
        depthwise_macs=100_000 * size if kind == "mb" else 0,
        traffic_bytes=MIB * (1 + size % 5),
        params=1000 * size,
    )
    for kind in ("mb", "attn", "conv")
    for size in range(1, 13)
}
KEYS = sorted(FEATURES)
GENERATOR = np.random.default_rng(5)
SHAPE = {key: (FEATURES[key].macs / 4e6 + 0.3) * float(np.exp(GENERATOR.normal(0, 0.4))) for key in KEYS}
"""Entries that physics tells badly, so that sources matter."""


def device(kinds: dict[str, float], own_sd: float, seed: int) -> dict[str, float]:
    own = np.random.default_rng(seed)
    return {
        key: SHAPE[key] * kinds[FEATURES[key].kind] * float(np.exp(own.normal(0, own_sd))) for key in KEYS
    }


TRUE = device({"mb": 2.0, "attn": 2.4, "conv": 1.8}, 0.03, 1)
LIKE = SourceEntries("like", device({"mb": 1.0, "attn": 1.0, "conv": 1.0}, 0.03, 2))
OTHER = SourceEntries("other", device({"mb": 0.5, "attn": 0.7, "conv": 0.4}, 0.06, 3))
SHUFFLED = SourceEntries(
    "shuffled", dict(zip(KEYS, np.random.default_rng(4).permutation(list(TRUE.values())), strict=True))
)


def networks(count: int, seed: int) -> list[tuple[str, ...]]:
    generator = np.random.default_rng(seed)
    return [tuple(generator.choice(KEYS, generator.integers(15, 30))) for _ in range(count)]


def total(blocks: tuple[str, ...]) -> float:
    return 0.2 + sum(TRUE[key] for key in blocks)


def rows(count: int, noise: float = 0.004) -> FitData:
    blocks = networks(count, 11)
    ms = np.array([total(keys) for keys in blocks]) * np.exp(
        np.random.default_rng(12).normal(0, noise, count)
    )
    return FitData(ms, noise**2 * np.eye(count), tuple(blocks), np.zeros(count))


def errors(fit: JointFit) -> np.ndarray:
    ms = dict(zip(fit.keys, fit.ms, strict=True))
    return np.array(
        [(fit.base_ms + sum(ms[key] for key in keys)) / total(keys) - 1 for keys in networks(200, 99)]
    )


def test_sources_improve_ten_networks() -> None:
    found = fit_entries(rows(10), FEATURES, [LIKE, OTHER])
    assert [source.name for source in found.sources] == ["like", "other"]
    assert not found.dropped
    error = np.abs(errors(found)).mean()
    scratch = np.abs(errors(fit_entries(rows(10), FEATURES))).mean()
    known = rows(10)
    sums = np.array([sum(LIKE.entry_ms[key] for key in keys) for keys in known.blocks])
    factor = (known.ms / sums).mean()
    one = np.mean(
        [
            abs(factor * sum(LIKE.entry_ms[key] for key in keys) / total(keys) - 1)
            for keys in networks(200, 99)
        ]
    )
    assert error < 0.7 * one
    assert error < 0.4 * scratch


def test_shuffled_source_is_dropped() -> None:
    scratch = fit_entries(rows(20), FEATURES)
    alone = fit_entries(rows(20), FEATURES, [SHUFFLED])
    assert alone.sources == ()
    assert alone.dropped["shuffled"] > 0
    np.testing.assert_array_equal(alone.ms, scratch.ms)
    together = fit_entries(rows(10), FEATURES, [LIKE, SHUFFLED, OTHER])
    np.testing.assert_array_equal(together.ms, fit_entries(rows(10), FEATURES, [LIKE, OTHER]).ms)


def test_misleading_sources_are_all_dropped() -> None:
    alike = [
        SourceEntries(
            f"wrong {seed}",
            {key: ms * float(np.exp(own.normal(0, 0.03))) for key, ms in SHUFFLED.entry_ms.items()},
        )
        for seed, own in ((seed, np.random.default_rng(seed)) for seed in (6, 7, 8))
    ]
    found = fit_entries(rows(10), FEATURES, alike)
    assert set(found.dropped) == {"wrong 6", "wrong 7", "wrong 8"}
    np.testing.assert_array_equal(found.ms, fit_entries(rows(10), FEATURES).ms)


def test_sources_need_positive_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not fit_entries(rows(10), FEATURES, [LIKE]).dropped
    monkeypatch.setattr("luts.estimate.sources.KEEP_LOG", 1000.0)
    found = fit_entries(rows(10), FEATURES, [LIKE])
    assert found.dropped["like"] < -2, "likelier with it, by less than was asked"
    np.testing.assert_array_equal(found.ms, fit_entries(rows(10), FEATURES).ms)


def test_intervals_cover_networks() -> None:
    found = fit_entries(rows(10), FEATURES, [LIKE, OTHER])
    blocks = networks(200, 99)
    half = predictive_quantile(found.left_out) * found.relative_se(blocks, [0.0] * len(blocks))
    assert (np.abs(errors(found)) < half).mean() > 0.9
    assert half.mean() < 0.05
    assert found.measured_share is not None
    assert ((found.measured_share >= 0) & (found.measured_share <= 1)).all()
    more = fit_entries(rows(60), FEATURES, [LIKE, OTHER])
    assert more.measured_share is not None
    assert more.measured_share.mean() > found.measured_share.mean()
    assert fit_entries(rows(10), FEATURES).measured_share is None


def test_errors_of_a_luts_entries_are_its_intervals_over_the_normal_quantile(plain: Lut) -> None:
    source, entry = source_from_lut("plain", plain), plain.entries[0]
    assert source.entry_se[entry.key] == pytest.approx((entry.ci_high - entry.ms) / 1.959964)


def test_proportional_source_is_scaled() -> None:
    """Every entry is the source's times 3: three networks tell the factor, and so every entry."""
    source = SourceEntries("self", {key: ms / 3 for key, ms in TRUE.items()}, 0.2 / 3)
    found = fit_entries(rows(3, 1e-5), FEATURES, [source])
    np.testing.assert_allclose(found.ms, [TRUE[key] for key in found.keys], rtol=2e-3)


def test_kinds_may_deviate_from_a_source() -> None:
    design = with_sources(design_of(rows(20), FEATURES), FEATURES, [LIKE])
    solution, _ = solve(design, *learn_deviations(design))
    first = 3 + len(design.keys)
    kinds = dict(zip(design.kinds, solution[first : first + 3], strict=True))
    assert kinds["conv"] < -0.02
    assert kinds["attn"] > 0.02


def test_a_source_tells_of_nine_tenths_of_base_and_transfer() -> None:
    alone = design_of(rows(20), FEATURES)
    np.testing.assert_allclose(with_sources(alone, FEATURES, [LIKE]).call_sd, alone.call_sd / 10)


def test_missing_entries_are_filled_by_physics() -> None:
    plain = {key: 0.5 + FEATURES[key].macs / 1e6 for key in KEYS}
    known = {key: ms for key, ms in plain.items() if key not in ("attn3", "conv7")}
    filled = SourceEntries("partial", known).filled(KEYS, FEATURES)
    assert filled[KEYS.index("attn3")] == pytest.approx(plain["attn3"], rel=1e-6)
    with raises("source_lacks_blocks"):
        SourceEntries("partial", dict(list(plain.items())[:3])).filled(KEYS, FEATURES)


def test_most_informative_network_fills_the_gap() -> None:
    """Sources that agree on all but attention's worth: a network full of attention tells most."""
    candidates = [("mb1",) * 10, ("attn5",) * 9 + ("mb1",), ("conv2",) * 10]
    posterior = prior_from_sources(FEATURES, [LIKE], networks(40, 3))
    for key in ("mb1", "conv2"):
        posterior.learn(posterior.row((key,) * 10))
    stacked = np.stack([posterior.row(blocks) for blocks in candidates])
    targets = np.stack([posterior.row(blocks) for blocks in networks(40, 3)])
    assert most_informative(posterior, stacked, targets) == 1


def test_quantile_of_calibrated_intervals_by_hand() -> None:
    """10 networks' worth of variance 1 and 4 errors of 3 deviations: (10 + 36) / 14, Student's t of 14 degrees.

    The quantile is never below the posterior's own width.
    """
    assert predictive_quantile(np.array([3.0, -3.0, 3.0, 3.0])) == pytest.approx(
        2.144787 * (46 / 14) ** 0.5, rel=1e-5
    )
    assert predictive_quantile(np.zeros(10)) == pytest.approx(2.085963, rel=1e-5)


def noisy(source: SourceEntries, relative_se: float, seed: int) -> SourceEntries:
    """The source as a LUT that knows its entries so well."""
    own = np.random.default_rng(seed).normal(0, relative_se, len(KEYS))
    ms = {key: source.entry_ms[key] * (1 + error) for key, error in zip(KEYS, own, strict=True)}
    return SourceEntries(
        source.name, ms, 0.1, entry_se={key: relative_se * source.entry_ms[key] for key in KEYS}
    )


def test_entry_intervals_hold_with_uncertain_sources() -> None:
    """95 % intervals hold the true entries if the source's errors of a fifth count, and too few otherwise."""
    held: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(3):
        source = noisy(LIKE, 0.2, 20 + seed)
        for counted in held:
            given = source if counted else SourceEntries(source.name, source.entry_ms, source.base_ms)
            found = fit_entries(rows(10), FEATURES, [given])
            true = np.array([TRUE[key] for key in found.keys])
            held[counted] += (np.abs(found.ms - true) <= found.reach * found.se).tolist()
    assert np.mean(held[True]) > 0.93
    assert np.mean(held[False]) < 0.92


def test_correlated_source_errors_widen_entries() -> None:
    """Two sources of the same errors: half of the mean's variance is in common; predictions go without it."""
    pair = [noisy(LIKE, 0.2, 20), noisy(LIKE, 0.2, 20)]
    design = with_sources(design_of(rows(10), FEATURES), FEATURES, pair)
    np.testing.assert_allclose(design.entry_se, design.correlated_se, rtol=1e-9)
    found = fit_entries(rows(10), FEATURES, pair)
    posterior = np.sqrt(np.diag(found.covariance)[2:])
    assert (found.se > posterior).all()
    assert found.measured_share is not None
    undecided = 1 - found.measured_share
    np.testing.assert_allclose(found.se**2 - posterior**2, undecided * design.correlated_se**2, rtol=1e-6)


def test_mixture_is_wider_than_its_mode() -> None:
    design = with_sources(design_of(rows(10), FEATURES), FEATURES, [LIKE, OTHER])
    scale, mode = learn_deviations(design)
    points, weights = MarginalLikelihood(design, scale).mixture(mode)
    assert points.shape == (2 * len(mode), len(mode))
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(np.sqrt(points[:5] * points[5:]), np.tile(mode, (5, 1)), rtol=1e-9)
    mixed, misfit_sd = mixed_covariance(design, scale, mode)
    _, alone = solve(design, scale, mode)
    entries = slice(2, 2 + len(KEYS))
    assert (np.diag(mixed)[entries] > 0.9 * np.diag(alone)[entries]).all()
    assert np.diag(mixed)[entries].sum() > np.diag(alone)[entries].sum()
    assert misfit_sd > mode[1]


def test_prior_covariance_agrees_with_rows() -> None:
    """By the marginal likelihood's own parts, computed elsewhere: rows times prior covariance, and noise."""
    design = with_sources(design_of(rows(6), FEATURES), FEATURES, [noisy(LIKE, 0.1, 1), OTHER])
    scale, mode = learn_deviations(design)
    whole = np.hstack([design.calls, design.counts])
    noise = design.noise + mode[1] ** 2 * np.eye(6)
    expected = whole @ prior_covariance(design, scale, mode) @ whole.T + noise
    np.testing.assert_allclose(MarginalLikelihood(design, scale).covariance(mode), expected, rtol=1e-8)
    knows_nothing = replace(design, noise=1e12 * design.noise)
    prior = prior_covariance(design, scale, mode)
    _, covariance = solve(knows_nothing, scale, mode)
    np.testing.assert_allclose(covariance[: len(prior), : len(prior)], prior, rtol=1e-4, atol=1e-9)


def test_errors_of_rows_left_out_by_hand() -> None:
    """Variances 4, covariance 2, errors 3 and 0: each row leaves 4 - 2 * 2 / 4 = 3 open of the other.

    From the second row's 0 the first is expected at 0, and is 3 off; from the first's 3 the second is expected at
    3 * 2 / 4 = 1.5. Both in deviations of sqrt(3).
    """
    pair = SimpleNamespace(
        residual=np.array([3.0, 0.0]), covariance=lambda _: np.array([[4.0, 2.0], [2.0, 4.0]])
    )
    errors = MarginalLikelihood.left_out_errors(pair, np.ones(5))  # type: ignore[arg-type]
    assert errors == pytest.approx([3 / 3**0.5, -1.5 / 3**0.5])


def test_mixture_reaches_as_far_as_the_curvature_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bowl of deviations 0.2 and 5; the prior's 0.3 bounds the second. Both points of an axis weigh alike."""
    design = design_of(rows(10), FEATURES)
    likelihood = MarginalLikelihood(design, np.ones(len(design.keys)))
    monkeypatch.setattr(likelihood, "cost", lambda logs: float(((logs / [0.2, 5.0]) ** 2).sum()))
    monkeypatch.setattr(likelihood, "_sd", np.array([0.7, 0.3]))
    points, weights = likelihood.mixture(np.ones(2))
    reach = np.sqrt(2) * np.diag([0.2, 0.3])
    np.testing.assert_allclose(np.log(points), np.vstack([reach, -reach]), rtol=1e-6, atol=1e-12)
    share = np.exp(-1) / (2 * np.exp(-1) + 2 * np.exp(-(0.3**2) / 25))
    np.testing.assert_allclose(weights, [share, 0.5 - share, share, 0.5 - share])


def test_mixture_contains_the_distance_of_its_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture of one point besides the mode: its covariance, and the square of how far its mean is away.

    Means by the textbook, P W' (W P W' + N)^-1 r (Rasmussen and Williams 2006, 2.2), with prior covariance P.
    """
    design = with_sources(design_of(rows(10), FEATURES), FEATURES, [LIKE, OTHER])
    scale, mode = learn_deviations(design)
    other = 3.0 * mode
    monkeypatch.setattr(MarginalLikelihood, "mixture", lambda *_: (other[None], np.ones(1)))
    around_mode, _ = mixed_covariance(design, scale, mode)
    around_itself, _ = mixed_covariance(design, scale, other)
    marginal, whole = MarginalLikelihood(design, scale), np.hstack([design.calls, design.counts])
    means = [
        prior_covariance(design, scale, at)
        @ whole.T
        @ np.linalg.inv(marginal.covariance(at))
        @ marginal.residual
        for at in (mode, other)
    ]
    apart = means[1] - means[0]
    np.testing.assert_allclose(around_mode - around_itself, np.outer(apart, apart), rtol=1e-5, atol=1e-12)
    assert np.abs(apart).max() > 1e-3


def test_errors_of_a_source_do_not_direct_the_plan() -> None:
    doubted = noisy(LIKE, 0.2, 20)
    exact = SourceEntries(doubted.name, doubted.entry_ms, doubted.base_ms)
    priors = [prior_from_sources(FEATURES, [source], networks(40, 3)) for source in (doubted, exact)]
    np.testing.assert_array_equal(priors[0].covariance, priors[1].covariance)
