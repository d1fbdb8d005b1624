"""When an agent alone has enough: its estimates by hand, and beside those of a live run."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from luts.estimate.statistics import location_and_se
from orchestrator.bundle.archive import Stop
from orchestrator.bundle.stopping import BatchRatios, ending, half_width

STOP = Stop(min_rounds=4, load_se=0.01, min_passes=3, half_width=0.01, budget_s=60.0)
WIDE, NARROW = [0.0, 0.1, 0.2], [1.0, 1.001, 0.999]


def batch(rounds: list[list[int]], slots: list[int]) -> BatchRatios:
    """Of nanoseconds by round, in the order of visits."""
    ratios = BatchRatios()
    samples = b"".join(struct.pack(">Q", ns) for visits in rounds for ns in visits)
    ratios.add([slots] * len(rounds), samples)
    return ratios


def test_a_ratio_is_to_the_mean_of_both_references_and_of_the_last_visit() -> None:
    """Slot 2 takes e^2 times the geometric mean of 100 and 400 in all rounds; visits before the last are ten times
    as long."""
    ns = round(200 * math.e**2)
    ratios = batch([[1000, 100, 10 * ns, ns, 400]] * 4, [0, 0, 2, 2, 1])
    assert ratios.locations() == pytest.approx({2: 2.0}, abs=1e-3)
    assert ratios.noise() == pytest.approx(0.0, abs=1e-12)
    assert ratios.rounds == 4


def test_noise_is_the_winsorized_error_of_the_worst() -> None:
    """Log ratios 0 … 7 of eight rounds: 2 … 5 are kept, and winsorized they are 2, 2, 2, 3, 4, 5, 5, 5, whose
    variance is 14 / 7. Slot 3 has none."""
    rounds = [[10**9, 10**9, round(10**9 * math.exp(log)), 10**9] for log in (7, 0, 3, 4, 1, 6, 5, 2)]
    ratios = batch(rounds, [0, 1, 2, 3])
    assert ratios.locations() == pytest.approx({2: 3.5, 3: 0.0}, abs=1e-6)
    assert ratios.noise() == pytest.approx(math.sqrt(14 / 7 / 8) / 0.5, rel=1e-6)


def test_noise_is_that_of_a_live_run_in_quiet_rounds() -> None:
    """Over many batches: one bootstrap of 40 rounds is itself off by a tenth."""
    generator = np.random.default_rng(5)
    own, live = [], []
    for _ in range(50):
        logs = 0.02 * generator.standard_normal(40)
        rounds = [[10**9, 10**9, int(10**9 * math.exp(log))] for log in logs]
        own.append(batch(rounds, [0, 1, 2]).noise())
        live.append(location_and_se(logs)[1])
    assert np.mean(own) == pytest.approx(np.mean(live), rel=0.1)


def test_a_batch_is_enough_with_its_rounds_and_little_noise() -> None:
    quiet, noisy = [100, 100, 200], [100, 100, 300]
    assert not batch([quiet] * 3, [0, 1, 2]).are_enough(STOP)
    assert batch([quiet] * 4, [0, 1, 2]).are_enough(STOP)
    assert not batch([quiet, noisy] * 2, [0, 1, 2]).are_enough(STOP)
    assert not batch([quiet] * 4, [0, 1, 2]).are_enough(None)
    assert not batch([quiet], [0, 1, 2]).are_enough(STOP.model_copy(update={"min_rounds": 1}))


def test_width_is_of_all_models_spread_and_of_the_fewest_loads() -> None:
    """Squares of 0.02 and of 0 over three degrees of freedom, two loads of one: 2 sqrt(0.02 / 3 / 2)."""
    assert half_width([[0.0, 0.2], [5.0, 5.0, 5.0]]) == pytest.approx(2 * math.sqrt(0.02 / 3 / 2))
    assert half_width([[0.0, 0.0], [1.0]]) == math.inf
    assert half_width([[0.0, 0.0], []]) == math.inf
    assert half_width([]) == 0.0


@pytest.mark.parametrize(
    ("passes", "loads", "worked_s", "ended"),
    [
        (2, {"a": NARROW}, 999.0, None),
        (3, {"a": NARROW}, 999.0, "narrow"),
        (3, {"a": NARROW, "left out": WIDE}, 0.0, "narrow"),
        (3, {"a": WIDE}, 60.0, None),
        (3, {"a": WIDE}, 60.1, "budget"),
        (3, {}, 0.0, None),
    ],
)
def test_passes_end(passes: int, loads: dict[str, list[float]], worked_s: float, ended: str | None) -> None:
    assert ending(STOP, passes, loads, {"a"}, worked_s) == ended
    assert ending(None, passes, loads, {"a"}, worked_s) is None
