import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.ratios import (
    START_DF,
    START_LOAD_SD,
    AaDifference,
    LoadGroup,
    noise_floor,
    pooled_load_variance,
    segments_of,
)
from luts.format.lut import normalise_samples
from tests.support.errors import raises
from tests.support.lut_world import Noise, simulate

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
    estimates = LatencyEstimates.of(rows(*samples), "r").ratios
    assert np.exp(estimates.ratios["m"].log_ratio) == pytest.approx(3.0)
    assert estimates.ratios["r"].log_ratio == 0.0
    assert (estimates.ratios["m"].loads, estimates.ratios["m"].rounds) == (1, 4)
    assert estimates.differences[0].log_difference == pytest.approx(np.log(4.0))


def test_round_with_one_reference_copy_counts() -> None:
    samples = [(0, 0, number, "r", copy, 1_000_000) for number in range(4) for copy in (0, 1)]
    samples += [(0, 0, 4, "r", 1, 1_000_000)]
    samples += [(0, 0, number, "m", 0, 2_000_000) for number in range(6)]
    ratio = LatencyEstimates.of(rows(*samples), "r").ratios.ratios["m"]
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
    ratio = LatencyEstimates.of(busy_rounds(np.random.default_rng(8), 150), "r").ratios.ratios["m"]
    assert abs(ratio.log_ratio) < 0.002
    assert ratio.low <= 0 <= ratio.high


def test_model_intervals_cover_the_truth_under_interference() -> None:
    ratios = [
        LatencyEstimates.of(busy_rounds(np.random.default_rng(seed), 5), "r").ratios.ratios["m"]
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
    estimates = LatencyEstimates.of(samples, "reference").ratios
    assert list(estimates.ratios) == ["a", "reference"]
    assert estimates.ratios["a"].loads == 3
    assert len(estimates.differences) == 6


def test_reference_without_a_pair_is_refused() -> None:
    with raises("no_reference_pair"):
        _ = LatencyEstimates.of(rows((0, 0, 0, "r", 0, 1), (0, 0, 0, "m", 0, 1)), "r").ratios


def test_quiet_simulation_is_recovered_exactly() -> None:
    samples = simulate(TRUTH, "reference", [["a", "b"], ["c"]], np.random.default_rng(4), noise=QUIET)
    ratios = LatencyEstimates.of(samples, "reference").ratios.ratios
    for name, truth in TRUTH.items():
        assert ratios[name].log_ratio == pytest.approx(truth - TRUTH["reference"], abs=1e-6)


@pytest.mark.parametrize("noise", [Noise(), Noise(load_sd=0.015), Noise(load_sd=0.002, outlier_share=0.1)])
def test_model_intervals_cover_the_truth(noise: Noise) -> None:
    hits = []
    for seed in range(25):
        samples = simulate(
            TRUTH, "reference", [["a", "b"], ["c"], ["a"]] * 2, np.random.default_rng(seed), noise=noise
        )
        ratios = LatencyEstimates.of(samples, "reference").ratios.ratios
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


def test_load_variance_before_any_measurement_is_the_starting_value() -> None:
    variance = pooled_load_variance([])
    assert variance.sd == pytest.approx(START_LOAD_SD, rel=1e-3)
    assert variance.df == START_DF


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
    estimates = LatencyEstimates.of(samples, "reference").ratios
    names = list(estimates.ratios)
    covariance = estimates.covariance
    a, b, c, reference = (names.index(name) for name in ("a", "b", "c", "reference"))
    np.testing.assert_allclose(covariance[a, a], estimates.ratios["a"].se ** 2)
    assert covariance[a, b] > estimates.load_variance.sd**2 / 4 * 0.9
    assert covariance[a, c] == 0.0
    assert not covariance[reference].any()
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
