"""Keep-warm on and off, measured once: recorded, and a policy only where the difference is clear."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.journal.log import read_log
from orchestrator.journal.records import (
    DecisionRecord,
    InterferenceRecord,
    RoundsRecord,
)
from orchestrator.measure.interference import InterferenceResult, excess_without_keep_warm
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import RunResult
from orchestrator.wire.messages import DeviceState
from tests.support.errors import raises
from tests.support.fake_device import QUIET, SHA, TRUE_MS, FakeClient, FakeDevice, run

POLICY = Policy(min_rounds=10, max_rounds=10, min_passes=1, max_passes=1, cooling_s=0.0, self_test=True)


class SpinningDevice(FakeDevice):
    """Takes `cold` times as long where the processor is not kept busy; `user_has` it switched on or off."""

    can_spin = True
    user_has = False
    cold = 1.0

    def connect(self):
        super().connect()
        return SpinningClient(self)


class SpinningClient(FakeClient):
    def hello(self):
        return super().hello().model_copy(update={"keep_warm": self.device.can_spin})

    def state(self):
        return DeviceState.model_validate(QUIET | {"keep_warm": self.device.user_has})

    def run(self, handles, order, warmup=0, warmup_ms=0, pace_us=0, keep_warm=None):
        warm = self.device.user_has if keep_warm is None else keep_warm
        ms = [self.loaded[handle] for handle in handles]
        factor = 1.0 if warm else self.device.cold
        samples = np.array([[int(1e6 * ms[index] * factor) for index in visited] for visited in order])
        state = DeviceState.model_validate(QUIET | {"keep_warm": warm})
        return RunResult(samples, state, state)


def measured(folder: Path, policy: Policy = POLICY, **device):
    fake = SpinningDevice({SHA[name]: ms for name, ms in TRUE_MS.items()})
    for name, value in device.items():
        setattr(fake, name, value)
    result = run(folder, fake, policy, budget_s=0)
    records = read_log(folder / "journal.jsonl")
    (decision,) = [record for record in records if isinstance(record, DecisionRecord)]
    tests = [record.keep_warm for record in records if isinstance(record, InterferenceRecord)]
    states = {r.state_after.keep_warm for r in records if isinstance(r, RoundsRecord)}
    return result, decision, tests, states


def test_keep_warm_without_effect(tmp_path: Path) -> None:
    result, decision, tests, states = measured(tmp_path)
    assert tests == [None, False, True, False, False]
    assert decision.reason.endswith("without keep-warm: +0.0 %")
    assert (decision.keep_warm, states, result.policy["keep_warm"]) == (False, {False}, False)


def test_keep_warm_applies_to_batches(tmp_path: Path) -> None:
    result, decision, tests, states = measured(tmp_path, cold=1.2)
    assert tests == 2 * [None, False, True, False, False], "a second test says the same"
    assert "without keep-warm: +20.0 %" in decision.reason
    assert (decision.keep_warm, states, result.policy["keep_warm"]) == (True, {True}, True)
    assert result.reference.ms == pytest.approx(TRUE_MS["model00"], rel=0.02)


def test_a_pace_lets_clocks_fall_on_purpose(tmp_path: Path) -> None:
    _, decision, _, states = measured(tmp_path, replace(POLICY, pace_us=1), cold=1.2)
    assert (decision.keep_warm, states) == (False, {False})


def test_keep_warm_that_slows_is_refused(tmp_path: Path) -> None:
    with raises("keep_warm_slows"):
        measured(tmp_path, cold=0.8, user_has=True)
    _, decision, _, states = measured(tmp_path / "off", cold=0.8)
    assert (decision.keep_warm, states) == (False, {False})


def test_an_agent_of_before_is_not_asked(tmp_path: Path) -> None:
    _, decision, tests, _ = measured(tmp_path, can_spin=False)
    assert set(tests) == {None}
    assert "keep-warm" not in decision.reason


def test_what_moves_meanwhile_is_no_difference() -> None:
    def settled(ns: float) -> np.ndarray:
        return np.full((8, 6), ns)

    assert excess_without_keep_warm(settled(100), settled(110), settled(110)) == pytest.approx(0.1)
    assert excess_without_keep_warm(settled(110), settled(100), settled(100)) == pytest.approx(100 / 110 - 1)
    assert excess_without_keep_warm(settled(100), settled(100), settled(110)) == 0.0
    drifting = excess_without_keep_warm(settled(100), settled(110), settled(120))
    assert drifting == pytest.approx((1.1 * 1.2) ** 0.5 - 1 - math.log(1.2 / 1.1))
    up, down = InterferenceResult((), {8: 0.0}, 0.1), InterferenceResult((), {8: 0.0}, -0.2)
    assert up.combine(down).cold_excess == 0.0
    assert up.combine(InterferenceResult((), {8: 0.0}, 0.05)).cold_excess == 0.05
