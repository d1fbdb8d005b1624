"""Other devices' entries as the prior of a fit: what they tell, when they are dropped, how sure the result is."""

import numpy as np
import pytest

from luts.estimate.design import most_informative, prior_from_sources
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
from luts.estimate.sources import SourceEntries, with_sources
from luts.estimate.statistics import predictive_quantile
from luts.format.schema import KeyFeatures
from tests.support.errors import raises

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
    beside = fit_entries(rows(10), FEATURES, [LIKE, SHUFFLED, OTHER])
    np.testing.assert_array_equal(beside.ms, fit_entries(rows(10), FEATURES, [LIKE, OTHER]).ms)


def test_several_sources_that_mislead_alike_are_all_dropped() -> None:
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


def test_intervals_hold_networks_and_say_how_much_is_measured() -> None:
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


def test_source_equal_to_the_device_leaves_its_scale() -> None:
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


def test_missing_entries_are_filled_by_physics() -> None:
    plain = {key: 0.5 + FEATURES[key].macs / 1e6 for key in KEYS}
    known = {key: ms for key, ms in plain.items() if key not in ("attn3", "conv7")}
    filled = SourceEntries("partial", known).filled(KEYS, FEATURES)
    assert filled[KEYS.index("attn3")] == pytest.approx(plain["attn3"], rel=1e-6)
    with raises("source_lacks_blocks"):
        SourceEntries("partial", dict(list(plain.items())[:3])).filled(KEYS, FEATURES)


def test_networks_are_chosen_for_what_sources_leave_open() -> None:
    """Sources that agree on all but attention's worth: a network full of attention tells most."""
    candidates = [("mb1",) * 10, ("attn5",) * 9 + ("mb1",), ("conv2",) * 10]
    posterior = prior_from_sources(FEATURES, [LIKE], networks(40, 3))
    for key in ("mb1", "conv2"):
        posterior.learn(posterior.row((key,) * 10))
    stacked = np.stack([posterior.row(blocks) for blocks in candidates])
    targets = np.stack([posterior.row(blocks) for blocks in networks(40, 3)])
    assert most_informative(posterior, stacked, targets) == 1


def test_the_quantile_of_calibrated_intervals_by_hand() -> None:
    """10 networks' worth of variance 1 and 4 errors of 3 deviations: (10 + 36) / 14, Student's t of 14 degrees;
    never below the posterior's own width."""
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
    """A source whose entries err by a fifth: 95 % intervals hold the true entries where that is counted, and too
    few where it is not."""
    held: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(3):
        source = noisy(LIKE, 0.2, 20 + seed)
        for counted in held:
            told = source if counted else SourceEntries(source.name, source.entry_ms, source.base_ms)
            found = fit_entries(rows(10), FEATURES, [told])
            true = np.array([TRUE[key] for key in found.keys])
            held[counted] += (np.abs(found.ms - true) <= found.reach * found.se).tolist()
    assert np.mean(held[True]) > 0.93
    assert np.mean(held[False]) < 0.92


def test_correlated_source_errors_widen_entries() -> None:
    """Two sources of the same errors: half of the mean's variance is in common; predictions go without it."""
    pair = [noisy(LIKE, 0.2, 20), noisy(LIKE, 0.2, 20)]
    design = with_sources(design_of(rows(10), FEATURES), FEATURES, pair)
    assert design.entry_se is not None
    assert design.correlated_se is not None
    np.testing.assert_allclose(design.entry_se, design.correlated_se, rtol=1e-9)
    found = fit_entries(rows(10), FEATURES, pair)
    posterior = np.sqrt(np.diag(found.covariance)[2:])
    assert (found.se > posterior).all()


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
