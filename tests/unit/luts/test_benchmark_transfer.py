"""The benchmark of transfer in its smallest form: its own arithmetic, and that a missed target is told."""

import functools

import numpy as np

from luts.format.schema import KeyFeatures
from tools.benchmarks import _transfer_devices, _transfer_trial, transfer
from tools.benchmarks._phones import features_of_keys
from tools.benchmarks._transfer_trial import Score


def test_a_published_key_is_read_as_its_block_by_hand() -> None:
    """56 px, 24 to 32 channels, expansion 4, stride 2, kernel 5, with a squeeze: 96 channels between at 28 px."""
    key = "conv_56_24_32_4_2_hard_swish_5_se"
    gate = 2 * 96 * 24
    macs = 56**2 * 24 * 96 + 28**2 * 96 * 25 + 28**2 * 96 * 32 + gate
    elements = 56**2 * (24 + 192) + 28**2 * (192 + 32) + 2 * 28**2 * 96
    expected = KeyFeatures(
        kind="conv",
        macs=macs,
        depthwise_macs=28**2 * 96 * 25,
        traffic_bytes=4 * elements,
        params=24 * 96 + 96 * 25 + 96 * 32 + gate,
    )
    assert features_of_keys([key]) == {key: expected}


def test_a_trial_leaves_the_device_out_and_transfer_beats_scratch(monkeypatch) -> None:
    for name, value in (("CANDIDATES", 60), ("HELDOUT", 20), ("KEYS", 40)):
        monkeypatch.setattr(_transfer_devices, name, value)
    keys = [
        f"transffn_{side}_{wide}_{ratio}_hard_swish_ln"
        for side in (7, 14, 28)
        for wide in range(64, 264, 8)
        for ratio in (2, 4)
    ]
    generator = np.random.default_rng(0)
    shape = {
        key: feature.macs**0.8 * float(np.exp(generator.normal(0, 0.3)))
        for key, feature in features_of_keys(keys).items()
    }
    tables = {
        name: {key: speed * ms * float(np.exp(generator.normal(0, 0.03))) for key, ms in shape.items()}
        for name, speed in (("a", 1e-6), ("b", 3e-6), ("c", 2e-6))
    }
    make = functools.partial(_transfer_devices.phone_trial, tables, "a")
    trial = make(0, chosen=True)
    assert [source.name for source in trial.sources] == ["b", "c"]
    scores = {method: _transfer_trial.score(trial, method, 5) for method in _transfer_trial.METHODS}
    assert scores["transfer"].mape < 0.5 * scores["scratch"].mape
    assert _transfer_trial.score(trial, "scratch", 0) is None
    wrong = make(0, chosen=False, shuffled="too")
    assert "shuffled" in _transfer_trial.score(wrong, "transfer", 5).dropped


def test_missed_targets_are_told() -> None:
    good, bad = Score(0.01, 0.95), Score(0.02, 0.9)
    scores = {("p", "random", method, 10): [good] for method in _transfer_trial.METHODS}
    assert transfer._missed(scores, {}) == "No target is missed."
    told = transfer._missed(
        scores | {("p", "random", "transfer", 10): [bad]}, {("p", "only", 3): (0.03, 0.04, 0.0)}
    )
    assert "p, 10 random networks: MAPE 2.00%, above 1.5%" in told
    assert "90.0% inside the 95 % interval" in told
    assert "2.00% by transfer, 1.00% from scratch" in told
    assert "p, 3 random networks, shuffled source only: 4.00%, 3.00% from scratch" in told
