"""The simulated processor: every disturbance has the size that it was asked for, and only that one."""

import numpy as np
import pytest

from orchestrator.simulate.device import Noise, Processor, StolenCore, Throttling

MS = 1_000_000
NO_NOISE = Noise()


def times(processor: Processor, count: int, quiet_ns: float = MS, **how) -> np.ndarray:
    return np.array([processor.execute(quiet_ns, **how) for _ in range(count)]) / quiet_ns


def test_without_noise_an_execution_takes_what_it_takes() -> None:
    processor = Processor(NO_NOISE)
    assert set(times(processor, 100)) == {1.0}
    assert processor.draw_load() == 1.0
    assert processor.now_ns == 100 * MS
    processor.rest(2.0)
    assert processor.now_ns == 100 * MS + 2_000_000_000
    assert processor.celsius is None
    assert not processor.throttled


def test_same_seed_same_times() -> None:
    noise = Noise(sample_sd=0.1, outlier_share=0.1, drift_sd=0.1, stolen_core=StolenCore())
    first, second, other = (times(Processor(noise, 2, seed), 200) for seed in (5, 5, 6))
    assert (first == second).all()
    assert (first != other).any()


def test_loads_and_samples_have_their_deviations() -> None:
    processor = Processor(Noise(load_sd=0.02, sample_sd=0.01))
    loads = np.log([processor.draw_load() for _ in range(4000)])
    assert loads.std() == pytest.approx(0.02, rel=0.05)
    samples = np.log(times(processor, 4000))
    assert samples.std() == pytest.approx(0.01, rel=0.05)
    assert abs(samples.mean()) < 0.001


def test_another_model_right_before_costs() -> None:
    assert set(times(Processor(Noise(cold_share=0.25)), 3, cold=True)) == {1.25}


def test_outlier_distribution() -> None:
    samples = times(Processor(Noise(outlier_share=0.05, outlier_scale=0.5, outlier_tail=1.5)), 20_000)
    late = samples[samples != 1.0] - 1.0
    assert late.size / samples.size == pytest.approx(0.05, rel=0.1)
    assert late.min() > 0
    # Lomax: P(x > 0.5 p) = (1 + p)^-1.5; a normal tail would have nothing twenty medians out.
    for p in (1.0, 3.0, 10.0):
        assert (late > 0.5 * p).mean() == pytest.approx((1 + p) ** -1.5, rel=0.35)


def test_drift_of_the_clock() -> None:
    ends = []
    for seed in range(60):
        processor = Processor(Noise(drift_sd=0.01), seed=seed)
        walk = np.log(times(processor, 401, quiet_ns=100 * MS))
        assert abs(np.diff(walk)).max() < 5 * 0.01 * np.sqrt(0.1) * 1.2
        ends.append(walk[-1])
    assert np.std(ends) == pytest.approx(0.01 * np.sqrt(40.0), rel=0.3)


def test_throttling_has_hysteresis_and_rest_ends_it() -> None:
    case = Throttling(tau_s=10.0, slowdown=2.0)
    processor = Processor(Noise(throttling=case))
    seen = []
    for _ in range(12_000):
        before = processor.throttled
        factor = processor.execute(10 * MS) / (10 * MS)
        assert factor == (2.0 if before else 1.0)
        seen.append((processor.celsius, processor.throttled))
    changes = [i for i in range(1, len(seen)) if seen[i][1] != seen[i - 1][1]]
    assert len(changes) >= 4
    for i in changes:
        edge_c = case.hot_c if seen[i][1] else case.cool_c
        assert seen[i][0] == pytest.approx(edge_c, abs=0.1)
    # From ambient, by Newton's law: tau * ln(rise / (rise - (hot - ambient))).
    first_s = seen.index(next(s for s in seen if s[1])) * 0.01
    assert first_s == pytest.approx(10 * np.log(40 / 15), rel=0.01)
    processor.rest(100.0)
    assert not processor.throttled
    assert processor.celsius == pytest.approx(case.ambient_c, abs=0.1)


def test_stolen_core() -> None:
    noise = Noise(stolen_core=StolenCore(mean_quiet_s=3.0, mean_burst_s=1.0, strength=0.8))
    slow = {}
    for threads in (1, 2):
        samples = times(Processor(noise, cores=2, seed=1), 60_000, quiet_ns=10 * MS, threads=threads)
        slow[threads] = float(samples.max())
        hit = samples > 1.0
        assert set(samples) == {1.0, slow[threads]}
        bursts = np.count_nonzero(np.diff(hit.astype(int)) == 1)
        busy_s = hit.sum() * 0.01 * slow[threads]
        assert busy_s / bursts == pytest.approx(1.0, rel=0.3), "a burst's mean length"
        quiet_s = (~hit).sum() * 0.01
        assert quiet_s / bursts == pytest.approx(3.0, rel=0.3), "time between two bursts"
    assert slow == {1: pytest.approx(1.4), 2: pytest.approx(1.8)}
