import numpy as np
import pyarrow as pa
import pytest

from luts.build import build_lut
from luts.estimate.latencies import LatencyEstimates, RemovalCost, combine_removals, removal_cost
from tests.support.lut_world import Noise, make_study, make_world, simulate


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
def test_removal_is_exact_without_noise_paired_or_not(base_batch: int) -> None:
    cost = removal_cost(prepared(by_hand(base_batch)), "base", "removal")
    assert cost.ms * 10 == pytest.approx(3.0)
    assert cost.low < cost.ms < cost.high


def test_the_reference_may_be_the_base() -> None:
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
        lut = build_lut(study.inputs, study.models, study.estimation, study.features)
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
