"""Negative controls against a device whose two loads differ as much as it says."""

import pytest

from orchestrator.measure.engine import ModelSet
from orchestrator.wire.client import ModelFile
from tests.support.fake_device import FakeDevice
from tools.benchmarks.controls import COMPANION, control, coverage_interval

SHA = {"reference": "1" * 64, COMPANION: "2" * 64}
TRIALS = 45


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    home = tmp_path_factory.mktemp("controls")
    files = {name: ModelFile(home / name, sha) for name, sha in SHA.items()}
    device = FakeDevice({SHA["reference"]: 2.0, SHA[COMPANION]: 0.5}, load_sd=0.006, noise=0.004)
    return control(device, ModelSet(files, "reference", "0" * 64, seed=1), home / "journal.jsonl", TRIALS)


def test_every_batch_is_a_trial_and_about_one_in_twenty_is_incompatible(found):
    assert len(found.intervals) == TRIALS
    assert 0.88 <= found.compatible / TRIALS < 1.0


def test_the_spread_of_loads_is_found_again(found):
    assert found.load_sd == pytest.approx(0.006, rel=0.25)
    assert found.noise_floor == pytest.approx(2**0.5 * 0.006, rel=0.35)
    assert found.latency_ms == pytest.approx(2.0, rel=0.2)


def test_the_interval_of_a_share_is_clopper_and_pearsons():
    assert coverage_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    low, high = coverage_interval(190, 200)
    assert (low, high) == pytest.approx((0.910, 0.976), abs=0.001)
