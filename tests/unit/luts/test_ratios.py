"""Ratios to the reference, A/A differences, removals and differences between units of a device."""

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import t as student_t

from luts.estimate.latencies import (
    LatencyEstimates,
    QuietLatency,
    RemovalCost,
    class_latency,
    combine_removals,
    removal_cost,
    unit_variation,
)
from luts.estimate.ratios import (
    AA_MEMORY,
    MIN_SCORES,
    START_DF,
    AaDifference,
    AaHistory,
    LoadGroup,
    LoadRatio,
    LoadVariance,
    Ratio,
    history_of,
    interval_of,
    load_variance,
    noise_floor,
    pooled_load_variance,
    segments_of,
)
from luts.estimate.statistics import location_and_se
from luts.format.lut import normalise_samples
from tests.support.errors import raises
from tests.support.lut_world import Noise, make_study, make_world, simulate

QUIET = Noise(load_sd=0.0, round_sd=0.0, outlier_share=0.0, drift_sd=0.3)
TRUTH = {"reference": 2.3, "a": 2.5, "b": 1.9, "c": 2.2}


def rows(*samples: tuple[int, int, int, str, int, int]) -> pa.Table:
    """(batch, segment, round, model, copy, ns) as a samples table."""
    names = ("batch", "segment", "round", "model", "copy", "ns")
    table = {name: [sample[number] for sample in samples] for number, name in enumerate(names)}
    return normalise_samples(
        pa.table({**table, "position": [0] * len(samples), "kept": [True] * len(samples)})
    )


def test_sessions_are_matrices_of_loads_by_rounds() -> None:
    parts = segments_of(
        rows((1, 0, 5, "b", 0, 100), (0, 0, 2, "b", 1, 400), (0, 0, 2, "a", 0, 200), (0, 0, 7, "a", 0, 300))
    )
    assert [(segment.batch, segment.models, segment.copies) for segment in parts] == [
        (0, ("a", "b"), (0, 1)),
        (1, ("b",), (0,)),
    ]
    np.testing.assert_allclose(np.exp(parts[0].log_ns), np.array([[200, 300], [400, np.nan]]))


def test_samples_of_a_round_are_averaged_in_the_logarithm() -> None:
    (segment,) = segments_of(rows((0, 0, 0, "a", 0, 100), (0, 0, 0, "a", 0, 400)))
    np.testing.assert_allclose(np.exp(segment.log_ns), [[200.0]])


def test_drift_cancels_in_ratios() -> None:
    samples = []
    for number, drift in enumerate([1.0, 3.0, 1.5, 2.0]):
        samples += [
            (0, 0, number, "r", 0, round(1e6 * drift)),
            (0, 0, number, "r", 1, round(4e6 * drift)),
            (0, 0, number, "m", 0, round(6e6 * drift)),
        ]
    estimates = LatencyEstimates.of(rows(*samples), "r")
    assert np.exp(estimates.ratios["m"].log_ratio) == pytest.approx(3.0)
    (segment,) = segments_of(rows(*samples))
    assert [ratio.loads_each for ratio in segment.load_ratios("r")] == [1.5], (
        "one of m, and half of each of two"
    )
    assert estimates.ratios["r"].log_ratio == 0.0
    assert (estimates.ratios["m"].loads, estimates.ratios["m"].rounds) == (1, 4)
    assert estimates.differences[0].log_difference == pytest.approx(np.log(4.0))


def test_round_with_one_reference_copy_counts() -> None:
    samples = [(0, 0, number, "r", copy, 1_000_000) for number in range(4) for copy in (0, 1)]
    samples += [(0, 0, 4, "r", 1, 1_000_000)]
    samples += [(0, 0, number, "m", 0, 2_000_000) for number in range(6)]
    ratio = LatencyEstimates.of(rows(*samples), "r").ratios["m"]
    assert ratio.rounds == 5
    assert np.exp(ratio.log_ratio) == pytest.approx(2.0)


def busy_rounds(generator: np.random.Generator, segments: int) -> pa.Table:
    """Three loads of files that are equally fast, each held up in a quarter of its visits, for itself."""
    samples = []
    for batch in range(segments):
        log_ms = generator.normal(0, 0.01, (3, 40)) + generator.normal(0, 0.004, (3, 1))
        log_ms += (generator.random((3, 40)) < 0.25) * generator.uniform(0.2, 1.5, (3, 40))
        for load, (model, copy) in enumerate((("r", 0), ("r", 1), ("m", 0))):
            samples += [
                (batch, 0, number, model, copy, round(1e7 * value))
                for number, value in enumerate(np.exp(log_ms[load]))
            ]
    return rows(*samples)


def test_interference_does_not_favour_the_side_with_one_load() -> None:
    ratio = LatencyEstimates.of(busy_rounds(np.random.default_rng(8), 150), "r").ratios["m"]
    assert abs(ratio.log_ratio) < 0.002
    assert ratio.low <= 0 <= ratio.high


def test_model_intervals_cover_the_truth_under_interference() -> None:
    ratios = [
        LatencyEstimates.of(busy_rounds(np.random.default_rng(seed), 5), "r").ratios["m"]
        for seed in range(60)
    ]
    assert np.mean([ratio.low <= 0 <= ratio.high for ratio in ratios]) >= 0.9


def test_rejected_batches_count_for_the_noise_floor_only() -> None:
    generator = np.random.default_rng(0)
    samples = simulate(TRUTH, "reference", [["a"], ["a", "b"]], generator, noise=QUIET)
    rejected = pc.equal(samples.column("batch"), 1)
    samples = normalise_samples(
        samples.set_column(samples.column_names.index("kept"), "kept", pc.invert(rejected))
    )
    estimates = LatencyEstimates.of(samples, "reference")
    assert list(estimates.ratios) == ["a", "reference"]
    assert estimates.ratios["a"].loads == 3
    assert len(estimates.differences) == 6


def test_reference_without_a_pair_is_refused() -> None:
    with raises("no_reference_pair"):
        _ = LatencyEstimates.of(rows((0, 0, 0, "r", 0, 1), (0, 0, 0, "m", 0, 1)), "r").ratios


def test_quiet_simulation_is_recovered_exactly() -> None:
    samples = simulate(TRUTH, "reference", [["a", "b"], ["c"]], np.random.default_rng(4), noise=QUIET)
    ratios = LatencyEstimates.of(samples, "reference").ratios
    for name, truth in TRUTH.items():
        assert ratios[name].log_ratio == pytest.approx(truth - TRUTH["reference"], abs=1e-6)


@pytest.mark.parametrize("noise", [Noise(), Noise(load_sd=0.015), Noise(load_sd=0.002, outlier_share=0.1)])
def test_model_intervals_cover_the_truth(noise: Noise) -> None:
    hits = []
    for seed in range(25):
        samples = simulate(
            TRUTH, "reference", [["a", "b"], ["c"], ["a"]] * 2, np.random.default_rng(seed), noise=noise
        )
        ratios = LatencyEstimates.of(samples, "reference").ratios
        hits += [
            ratios[name].low <= TRUTH[name] - TRUTH["reference"] <= ratios[name].high
            for name in ("a", "b", "c")
        ]
    assert 0.88 <= np.mean(hits) <= 1.0


def test_noise_floor_is_the_scaled_median_of_differences() -> None:
    differences = [
        AaDifference(0, number, value, 0.001, 20) for number, value in enumerate([-0.03, 0.01, 0.5])
    ]
    assert noise_floor(differences) == pytest.approx(1.4826 * 0.03)
    limit = 4 * 1.4826 * 0.03
    limited = [*differences[:2], dataclasses.replace(differences[2], log_difference=limit)]
    assert load_variance([], differences) == load_variance([], limited), "a gross one counts for four floors"


def test_load_variance_of_two_loads_by_hand() -> None:
    """An unknown mean costs a degree of freedom; START_LOAD_SD counts as START_DF of them."""
    pair = LoadGroup(np.array([0.39, 0.41]), np.zeros(2), np.ones(2))
    pooled = pooled_load_variance([pair])
    assert pooled.sd == pytest.approx(math.sqrt((2 * 0.008**2 + 2 * 0.01**2) / (2 + 1)), rel=1e-3)
    assert pooled.df == 3


@pytest.mark.parametrize("truth", [0.003, 0.012])
def test_load_variance_is_recovered_from_groups_and_pairs(truth: float) -> None:
    generator = np.random.default_rng(5)
    groups = []
    for _ in range(80):
        errors = generator.uniform(0.001, 0.004, 3)
        values = 0.4 + generator.normal(0, np.sqrt(1.5 * truth**2 + errors**2))
        groups.append(LoadGroup(values, errors, np.full(3, 1.5)))
    errors = np.full(60, 0.002)
    groups.append(
        LoadGroup(
            generator.normal(0, np.sqrt(2 * truth**2 + errors**2)), errors, np.full(60, 2.0), centre=0.0
        )
    )
    pooled = pooled_load_variance(groups)
    assert pooled.sd == pytest.approx(truth, rel=0.2)
    assert pooled.df == START_DF + 160 + 60


def test_models_of_a_segment_share_the_reference_error() -> None:
    samples = simulate(TRUTH, "reference", [["a", "b"], ["c"]], np.random.default_rng(6), segments=2)
    estimates = LatencyEstimates.of(samples, "reference")
    names = list(estimates.ratios)
    covariance = estimates.covariance
    a, b, c, reference = (names.index(name) for name in ("a", "b", "c", "reference"))
    np.testing.assert_allclose(covariance[a, a], estimates.ratios["a"].se ** 2)
    assert covariance[a, b] > estimates.load_variance.sd**2 / 4 * 0.9
    assert covariance[a, c] == 0.0
    assert not covariance[reference].any()
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


ROUNDS = 20
TRIALS = 300

Draw = Callable[[np.random.Generator, int], np.ndarray]


def pair(batch: int, log_ms: np.ndarray, segment: int = 0) -> pa.Table:
    """Samples of the reference's two loads in one batch, log_ms (2, rounds)."""
    rounds = log_ms.shape[1]
    return normalise_samples(
        pa.table(
            {
                "batch": np.full(2 * rounds, batch),
                "segment": np.full(2 * rounds, segment),
                "round": np.tile(np.arange(rounds), 2),
                "position": np.zeros(2 * rounds, dtype=np.int64),
                "model": ["r"] * (2 * rounds),
                "copy": np.repeat([0, 1], rounds),
                "ns": np.exp(log_ms.ravel() + np.log(1e7)).astype(np.int64),
                "kept": np.ones(2 * rounds, dtype=bool),
            }
        )
    )


def quiet(generator: np.random.Generator, _: int) -> np.ndarray:
    return generator.normal(0, 0.003, (2, ROUNDS))


def dependent(generator: np.random.Generator, _: int) -> np.ndarray:
    steps = generator.normal(0, 0.01, (2, ROUNDS))
    for number in range(1, ROUNDS):
        steps[:, number] += 0.6 * steps[:, number - 1]
    return steps


def heavy(generator: np.random.Generator, _: int) -> np.ndarray:
    return 0.006 * generator.standard_t(2, (2, ROUNDS))


def burner(generator: np.random.Generator, _: int) -> np.ndarray:
    stolen = generator.random((2, ROUNDS)) < 0.25
    return generator.normal(0, 0.02, (2, ROUNDS)) + stolen * generator.uniform(0.1, 1.5, (2, ROUNDS))


def comes_and_goes(generator: np.random.Generator, batch: int) -> np.ndarray:
    return burner(generator, batch) if batch // 15 % 2 else generator.normal(0, 0.003, (2, ROUNDS))


def differences(seed: int, draw: Draw, load_sd: float, batches: int) -> list[AaDifference]:
    generator = np.random.default_rng(seed)
    given = []
    for number in range(batches):
        log_ms = draw(generator, number) + generator.normal(0, load_sd, (2, 1))
        value, se = location_and_se(log_ms[1] - log_ms[0])
        given.append(AaDifference(number, 0, value, se, ROUNDS))
    return given


def compatible(given: list[AaDifference], start: int) -> list[bool]:
    """Verdicts on the batches from `start`, each by those before it."""
    verdicts = []
    for number in range(start, len(given)):
        earlier = given[max(0, number - AA_MEMORY) : number]
        history = history_of(earlier, load_variance([], earlier).sd) if earlier else history_of([])
        verdicts.append(interval_of([given[number]], history).compatible)
    return verdicts


@pytest.mark.parametrize("draw", [dependent, heavy, burner, comes_and_goes])
@pytest.mark.parametrize("load_sd", [0.0005, 0.006])
def test_aa_intervals_of_long_measurements_hold_zero(draw: Draw, load_sd: float) -> None:
    drawn = differences(7, draw, load_sd, AA_MEMORY + TRIALS)
    assert 0.93 <= np.mean(compatible(drawn, AA_MEMORY)) <= 0.97


@pytest.mark.parametrize("draw", [quiet, burner])
@pytest.mark.parametrize("load_sd", [0.0005, 0.02])
def test_aa_intervals_of_first_batches_hold_zero(draw: Draw, load_sd: float) -> None:
    """On a machine that is far quieter or noisier than is assumed before the first."""
    runs = np.array([compatible(differences(seed, draw, load_sd, MIN_SCORES), 1) for seed in range(30)])
    assert 0.91 <= runs[:, :5].mean() <= 0.98
    assert 0.92 <= runs.mean() <= 0.97


def test_factor_is_the_second_largest_of_39_scores() -> None:
    generator = np.random.default_rng(3)
    table = pa.concat_tables([pair(n, generator.normal(0, 0.01, (2, ROUNDS))) for n in range(AA_MEMORY + 5)])
    history = LatencyEstimates.of(table, "r").aa_history
    drawn = LatencyEstimates.of(table, "r").differences
    assert history.load_sd == load_variance([], drawn).sd
    scores = [
        abs(difference.log_difference) / np.hypot(np.sqrt(2) * history.load_sd, difference.se)
        for difference in drawn[-AA_MEMORY:]
    ]
    assert history.factor == pytest.approx(sorted(scores)[-2])


def test_nineteen_scores_are_enough_for_a_rank() -> None:
    """Scores 1 to 19: rank (19 + 1) * 0.95 = 19 is the largest; Student's would be 2.09 * sqrt(130) = 23.9."""
    earlier = [AaDifference(number, 0, float(number), 1.0, ROUNDS) for number in range(1, 20)]
    assert history_of(earlier, 0.0).factor == pytest.approx(19.0)


def test_factor_before_nineteen_scores_is_students() -> None:
    generator = np.random.default_rng(5)
    table = pa.concat_tables([pair(n, generator.normal(0, 0.01, (2, ROUNDS))) for n in range(4)])
    history = LatencyEstimates.of(table, "r").aa_history
    squares = [
        difference.log_difference**2 / (2 * history.load_sd**2 + difference.se**2)
        for difference in LatencyEstimates.of(table, "r").differences
    ]
    assert history.factor == pytest.approx(student_t.ppf(0.975, 4) * np.sqrt(sum(squares) / 4))
    first = LatencyEstimates("r", [], []).aa_history
    assert first.load_sd == 0.008
    assert first.factor == pytest.approx(student_t.ppf(0.975, 2))


def test_one_disturbance_widens_no_interval() -> None:
    generator = np.random.default_rng(11)
    batches = [pair(n, generator.normal(0, 0.01, (2, ROUNDS))) for n in range(AA_MEMORY)]
    quiet = LatencyEstimates.of(pa.concat_tables(batches), "r").aa_history
    batches[20] = pair(20, generator.normal(0, 0.01, (2, ROUNDS)) + np.array([[0.0], [1.0]]))
    disturbed = LatencyEstimates.of(pa.concat_tables(batches), "r").aa_history
    next_batch = pair(99, generator.normal(0, 0.01, (2, ROUNDS)))
    before, after = (
        LatencyEstimates.of(next_batch, "r").aa_interval(history) for history in (quiet, disturbed)
    )
    assert after.high - after.low < 1.7 * (before.high - before.low)


def test_segments_of_a_batch_are_one_trial() -> None:
    generator = np.random.default_rng(13)
    parts = [pair(0, generator.normal(0, 0.01, (2, ROUNDS)), segment) for segment in (0, 1)]
    history = AaHistory(0.002, 2.5)
    single = [LatencyEstimates.of(part, "r").aa_interval(history) for part in parts]
    both = LatencyEstimates.of(pa.concat_tables(parts), "r").aa_interval(history)
    weights = [1 / (interval.high - interval.low) ** 2 for interval in single]
    assert both.log_difference == pytest.approx(
        np.average([interval.log_difference for interval in single], weights=weights)
    )
    assert 1 / (both.high - both.low) ** 2 == pytest.approx(sum(weights))


def test_disturbed_copy_is_incompatible() -> None:
    samples = normalise_samples(
        simulate(
            {"r": 2.3, "a": 2.5},
            "r",
            [["a"]] * 12,
            np.random.default_rng(1),
            noise=Noise(load_sd=0.003),
        )
    )
    history = LatencyEstimates.of(samples, "r").aa_history
    batch = samples.filter(pc.equal(samples.column("batch"), 3))
    second = pc.equal(batch.column("copy"), 1)
    slowed = pc.if_else(
        second, pc.cast(pc.multiply(batch.column("ns"), 1.1), pa.int64(), safe=False), batch["ns"]
    )
    disturbed = batch.set_column(batch.column_names.index("ns"), "ns", slowed)
    assert LatencyEstimates.of(batch, "r").aa_interval(history).compatible
    interval = LatencyEstimates.of(disturbed, "r").aa_interval(history)
    assert not interval.compatible
    assert interval.low < np.log(1.1) + 0.01
    assert interval.high > np.log(1.1) - 0.01


def prepared(samples: pa.Table) -> LatencyEstimates:
    return LatencyEstimates.of(samples, "reference")


def by_hand(base_batch: int) -> pa.Table:
    """Reference 10 ms, base 20 ms, base without the block 17 ms, under drift that all share."""
    rows = []
    for number, drift in enumerate([1.0, 2.0, 1.3, 1.1]):
        for model, copy, ms, batch in (
            ("reference", 0, 10, 0),
            ("reference", 1, 10, 0),
            ("reference", 0, 10, 1),
            ("reference", 1, 10, 1),
            ("removal", 0, 17, 0),
            ("base", 0, 20, base_batch),
        ):
            rows.append((batch, 0, number, 0, model, copy, round(ms * 1e6 * drift), True))
    names = ("batch", "segment", "round", "position", "model", "copy", "ns", "kept")
    return pa.table({name: [row[number] for row in rows] for number, name in enumerate(names)})


@pytest.mark.parametrize("base_batch", [0, 1])
def test_removal_is_exact_without_noise(base_batch: int) -> None:
    cost = removal_cost(prepared(by_hand(base_batch)), "base", "removal")
    assert cost.ms * 10 == pytest.approx(3.0)
    assert cost.low < cost.ms < cost.high


def test_error_of_a_removal_by_hand() -> None:
    """Measured apart: the logarithms' errors of 3 and 4 % add up to 5 %; a quarter of the base is saved."""
    ratios = {
        name: Ratio(math.log(ratio), se, 0.0, 0.0, 1, 20)
        for name, ratio, se in (("base", 2.0, 0.04), ("removal", 1.5, 0.03))
    }
    estimation: Any = SimpleNamespace(
        ratios=ratios, load_variance=LoadVariance(0.001, 50), load_ratios=lambda *_: []
    )
    cost = removal_cost(estimation, "base", "removal")
    assert cost.ms == pytest.approx(0.5)
    assert cost.se == pytest.approx(2 * math.hypot(0.75 * 0.05, 0.25 * 0.04))


def test_uncertainty_of_the_reference_widens_each_end_by_its_own() -> None:
    low, high = QuietLatency(10.0, 9.0, 12.0).widen(20.0, 19.0, 23.0)
    assert (low, high) == pytest.approx((20 - math.hypot(1, 2), 20 + math.hypot(3, 4)))


def test_reference_may_be_the_base() -> None:
    assert removal_cost(prepared(by_hand(0)), "reference", "removal").ms == pytest.approx(1 - 1.7)


def test_pairing_within_a_session_is_narrower() -> None:
    truth = {"reference": 2.3, "base": 2.6, "removal": 2.55}
    noise = Noise(load_sd=0.004)
    together, apart = (
        removal_cost(prepared(simulate(truth, "reference", batches, np.random.default_rng(3), noise=noise)),
                     "base", "removal")
        for batches in ([["base", "removal"]] * 4, [["base"], ["removal"]] * 4)
    )  # fmt: skip
    assert together.se < 0.95 * apart.se


def test_removal_intervals_cover_the_truth() -> None:
    hits = []
    for seed in range(25):
        generator = np.random.default_rng(seed)
        world = make_world(generator)
        study = make_study(
            generator, world, designs=4, removals=6, noise=Noise(drift_sd=0.0, outlier_share=0.02)
        )
        lut = study.lut()
        for entry in lut.entries:
            if entry.removal_ms is not None:
                assert entry.removal_ci_low is not None
                assert entry.removal_ci_high is not None
                hits.append(entry.removal_ci_low <= world.entry_ms[entry.key] <= entry.removal_ci_high)
    assert len(hits) == 150
    assert 0.90 <= np.mean(hits) <= 0.99


def test_combined_removals() -> None:
    one, same = RemovalCost(1.0, 0.1, 0.8, 1.2), RemovalCost(1.1, 0.1, 0.9, 1.3)
    other = RemovalCost(2.0, 0.1, 1.8, 2.2)
    agreed = combine_removals([one, same], df=50)
    assert agreed.ms == pytest.approx(1.05)
    assert agreed.se == pytest.approx(0.1 / np.sqrt(2))
    disputed = combine_removals([one, other], df=50)
    assert disputed.ms == pytest.approx(1.5)
    assert disputed.low < 1.0 < 2.0 < disputed.high


def quiet_units(ms, share=0.0):
    return QuietLatency(ms, ms * (1 - share), ms * (1 + share))


def test_class_latency_is_the_mean_of_units():
    one = quiet_units(10.0, 0.01)
    assert class_latency([one]) is one
    both = class_latency([quiet_units(10.0), quiet_units(12.1)])
    assert both.ms == pytest.approx(11.0)
    # sd of two logs is |difference| / sqrt(2); over sqrt(2) units; t(0.975, 1 df) = 12.706
    half = 12.7062 * math.log(1.21) / 2
    assert (math.log(both.ms / both.low), math.log(both.high / both.ms)) == pytest.approx(
        (half, half), rel=1e-4
    )


def load(model, batch, value):
    return LoadRatio(model, batch, 0, value, 0.001, 20, 1.5, 0.0)


def test_unit_variation_of_the_reference():
    seen = unit_variation({"a": quiet_units(1.0), "b": quiet_units(math.exp(0.02))}, [], {})
    assert (seen.units, seen.ratio) == (2, None)
    assert seen.reference == pytest.approx(0.02 / math.sqrt(2))
    assert unit_variation({"a": quiet_units(1.0)}, [], {}).reference is None


def test_unit_variation_of_ratios_by_hand():
    # One model, two loads on each of two units: cells {0, 2} and {4, 6}; within mean square 2, between 16; n0 = 2.
    loads = [load("m", batch, value) for batch, value in enumerate((0.0, 2.0, 4.0, 6.0))]
    unit_of = {(0, 0): "a", (1, 0): "a", (2, 0): "b", (3, 0): "b"}
    assert unit_variation({"a": quiet_units(1.0)}, loads, unit_of).ratio == pytest.approx(
        math.sqrt((16 - 2) / 2)
    )
    twice = [*loads, *(load("n", place, each.log_ratio) for place, each in enumerate(loads))]
    assert unit_variation({"a": quiet_units(1.0)}, twice, unit_of).ratio == pytest.approx(math.sqrt(7))
    assert unit_variation({"a": quiet_units(1.0)}, loads[:2], unit_of).ratio is None, (
        "one unit tells of no other"
    )


def test_unit_variation_is_recovered():
    rng = np.random.default_rng(3)

    def of(unit_sd):
        loads, unit_of, batch = [], {}, 0
        for model in range(60):
            own = rng.normal(0, unit_sd, 4)
            for unit in rng.integers(0, 4, 8):
                loads.append(load(f"m{model}", batch, own[unit] + rng.normal(0, 0.005)))
                unit_of[batch, 0] = f"u{unit}"
                batch += 1
        return unit_variation({"a": quiet_units(1.0)}, loads, unit_of).ratio

    assert of(0.02) == pytest.approx(0.02, rel=0.2)
    assert of(0.0) < 0.002
