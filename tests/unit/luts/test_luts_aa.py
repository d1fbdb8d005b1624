from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from lut_world import Noise, simulate
from scipy.stats import t as student_t

from luts.errors import InvalidArtifactError
from luts.estimate.aa import (
    AA_MEMORY,
    MIN_SCORES,
    AaHistory,
    aa_history,
    aa_interval,
    first_history,
    history_of,
    interval_of,
)
from luts.estimate.location import location_and_se
from luts.estimate.ratios import AaDifference, aa_differences, load_variance
from luts.estimate.rounds import sessions
from luts.samples import normalise_samples

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
    found = []
    for number in range(batches):
        log_ms = draw(generator, number) + generator.normal(0, load_sd, (2, 1))
        value, se = location_and_se(log_ms[1] - log_ms[0])
        found.append(AaDifference(number, 0, value, se, ROUNDS))
    return found


def compatible(found: list[AaDifference], start: int) -> list[bool]:
    """Verdicts on the batches from `start`, each by those before it."""
    verdicts = []
    for number in range(start, len(found)):
        earlier = found[max(0, number - AA_MEMORY) : number]
        history = history_of(earlier, load_variance([], earlier).sd) if earlier else first_history()
        verdicts.append(interval_of([found[number]], history).compatible)
    return verdicts


@pytest.mark.parametrize("draw", [dependent, heavy, burner, comes_and_goes])
@pytest.mark.parametrize("load_sd", [0.0005, 0.006])
def test_intervals_of_a_long_measurement_hold_zero_in_95_percent_of_batches(
    draw: Draw, load_sd: float
) -> None:
    found = differences(7, draw, load_sd, AA_MEMORY + TRIALS)
    assert 0.93 <= np.mean(compatible(found, AA_MEMORY)) <= 0.97


@pytest.mark.parametrize("load_sd", [0.0005, 0.006])
def test_intervals_of_the_first_batches_hold_zero_about_as_often(load_sd: float) -> None:
    runs = [compatible(differences(seed, burner, load_sd, MIN_SCORES), 0) for seed in range(15)]
    assert 0.92 <= np.mean(runs) <= 0.99


def test_the_factor_is_the_second_largest_of_39_scores() -> None:
    generator = np.random.default_rng(3)
    table = pa.concat_tables([pair(n, generator.normal(0, 0.01, (2, ROUNDS))) for n in range(AA_MEMORY + 5)])
    history = aa_history(table, "r")
    found = aa_differences(sessions(table), "r")
    assert history.load_sd == load_variance([], found).sd
    scores = [
        abs(difference.log_difference) / np.hypot(np.sqrt(2) * history.load_sd, difference.se)
        for difference in found[-AA_MEMORY:]
    ]
    assert history.factor == pytest.approx(sorted(scores)[-2])


def test_before_nineteen_scores_the_factor_is_students_times_their_size() -> None:
    generator = np.random.default_rng(5)
    table = pa.concat_tables([pair(n, generator.normal(0, 0.01, (2, ROUNDS))) for n in range(4)])
    history = aa_history(table, "r")
    squares = [
        difference.log_difference**2 / (2 * history.load_sd**2 + difference.se**2)
        for difference in aa_differences(sessions(table), "r")
    ]
    assert history.factor == pytest.approx(student_t.ppf(0.975, 6) * np.sqrt((2 + sum(squares)) / 6))


def test_one_gross_disturbance_does_not_widen_the_next_interval() -> None:
    generator = np.random.default_rng(11)
    batches = [pair(n, generator.normal(0, 0.01, (2, ROUNDS))) for n in range(AA_MEMORY)]
    quiet = aa_history(pa.concat_tables(batches), "r")
    batches[20] = pair(20, generator.normal(0, 0.01, (2, ROUNDS)) + np.array([[0.0], [1.0]]))
    disturbed = aa_history(pa.concat_tables(batches), "r")
    next_batch = pair(99, generator.normal(0, 0.01, (2, ROUNDS)))
    before, after = (aa_interval(next_batch, "r", history) for history in (quiet, disturbed))
    assert after.high - after.low < 1.7 * (before.high - before.low)


def test_segments_of_a_batch_are_one_trial() -> None:
    generator = np.random.default_rng(13)
    parts = [pair(0, generator.normal(0, 0.01, (2, ROUNDS)), segment) for segment in (0, 1)]
    history = AaHistory(0.002, 2.5)
    single = [aa_interval(part, "r", history) for part in parts]
    both = aa_interval(pa.concat_tables(parts), "r", history)
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
    history = aa_history(samples, "r")
    batch = samples.filter(pc.equal(samples.column("batch"), 3))
    second = pc.equal(batch.column("copy"), 1)
    slowed = pc.if_else(
        second, pc.cast(pc.multiply(batch.column("ns"), 1.1), pa.int64(), safe=False), batch["ns"]
    )
    disturbed = batch.set_column(batch.column_names.index("ns"), "ns", slowed)
    assert aa_interval(batch, "r", history).compatible
    interval = aa_interval(disturbed, "r", history)
    assert not interval.compatible
    assert interval.low < np.log(1.1) + 0.01
    assert interval.high > np.log(1.1) - 0.01


def test_a_batch_without_a_pair_is_refused() -> None:
    batch = pair(0, np.zeros((2, ROUNDS)))
    with pytest.raises(InvalidArtifactError, match="repeat it"):
        aa_interval(batch.filter(pc.equal(batch["copy"], 0)), "r", first_history())
