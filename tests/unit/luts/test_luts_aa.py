from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import t as student_t

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.ratios import (
    AA_MEMORY,
    MIN_SCORES,
    AaDifference,
    AaHistory,
    first_history,
    history_of,
    interval_of,
    load_variance,
)
from luts.estimate.statistics import location_and_se
from luts.format.lut import normalise_samples
from tests.support.errors import raises
from tests.support.lut_world import Noise, simulate

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
        history = history_of(earlier, load_variance([], earlier).sd) if earlier else first_history()
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


def test_the_factor_is_the_second_largest_of_39_scores() -> None:
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


def test_factor_before_nineteen_scores_is_students() -> None:
    generator = np.random.default_rng(5)
    table = pa.concat_tables([pair(n, generator.normal(0, 0.01, (2, ROUNDS))) for n in range(4)])
    history = LatencyEstimates.of(table, "r").aa_history
    squares = [
        difference.log_difference**2 / (2 * history.load_sd**2 + difference.se**2)
        for difference in LatencyEstimates.of(table, "r").differences
    ]
    assert history.factor == pytest.approx(student_t.ppf(0.975, 4) * np.sqrt(sum(squares) / 4))
    assert first_history().load_sd == 0.008
    assert first_history().factor == pytest.approx(student_t.ppf(0.975, 2))


def test_one_gross_disturbance_does_not_widen_the_next_interval() -> None:
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


def test_a_disturbed_copy_is_not_compatible() -> None:
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


def test_a_batch_without_a_pair_is_refused() -> None:
    batch = pair(0, np.zeros((2, ROUNDS)))
    with raises("no_reference_pair"):
        LatencyEstimates.of(batch.filter(pc.equal(batch["copy"], 0)), "r").aa_interval(first_history())
