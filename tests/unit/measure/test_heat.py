"""A device that gets hot, or whose clock caps move: batches are thrown away, repeated and split; it cools."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.journal.conditions import read_conditions
from orchestrator.journal.log import read_log, samples_table
from orchestrator.journal.records import BatchRecord, EndRecord, RoundsRecord
from orchestrator.measure import readiness
from orchestrator.measure.engine import Engine
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.wire.messages import DeviceState
from tests.support.errors import raises
from tests.support.fake_device import (
    POLICY,
    QUIET,
    SHA,
    TRUE_MS,
    FakeClient,
    FakeDevice,
    device,
    records,
    run,
)


def throttled():
    return QUIET | {"thermal_state": "serious"}


def test_pause_after_a_throttled_batch(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    policy = dataclasses.replace(POLICY, cooling_s=7.0)
    run(tmp_path / "cool", device(), policy)
    assert pauses == []
    run(tmp_path / "hot", device(states=[QUIET, throttled()]), policy)
    assert pauses == [7.0]


def test_allowed_throttling_skips_cooling(monkeypatch):
    fake = device()
    fake.stands = QUIET | {"thermal_state": "serious"}
    fake.allow = ("throttled",)
    monkeypatch.setattr(readiness, "_sleep", lambda _: pytest.fail("nothing to wait for"))
    readiness.cool_down(DeviceConnection(fake, "executorch", {}), 60.0, pytest.fail)


def test_a_warm_phone_cools_before_a_batch(monkeypatch):
    fake, slept, notes = device(), [], []
    warm, cool = QUIET | {"thermal_headroom": 0.70}, QUIET | {"thermal_headroom": 0.5}
    later = [cool | {"thermal_state": "fair"}, cool]

    def sleep(seconds):
        slept.append(seconds)
        fake.stands = later.pop(0) if later else fake.stands

    monkeypatch.setattr(readiness, "_clock", lambda: sum(slept))
    monkeypatch.setattr(readiness, "_sleep", sleep)
    link = DeviceConnection(fake, "executorch", {})
    fake.stands = warm
    readiness.cool_down(link, 60.0, notes.append)
    assert (len(slept), later) == (2, [])
    fake.stands = warm
    readiness.cool_down(link, 60.0, notes.append)
    assert len(slept) == 2 + 6, "a phone may stay warm for longer than anybody waits"
    assert set(notes) == {"letting fake cool before the next batch"}


def test_a_phone_that_stays_fair_is_measured_after_one_wait(monkeypatch):
    fake, slept, notes = device(), [], []
    monkeypatch.setattr(readiness, "_clock", lambda: sum(slept))
    monkeypatch.setattr(readiness, "_sleep", slept.append)
    link = DeviceConnection(fake, "executorch", {})
    fake.stands = QUIET | {"thermal_state": "fair"}
    for _ in range(3):
        readiness.cool_down(link, 60.0, notes.append)
    assert len(slept) == 6, "only the first batch waits"
    fake.stands = QUIET | {"thermal_state": "serious"}
    readiness.cool_down(link, 60.0, notes.append)
    assert len(slept) == 6 + 6


def test_a_fair_thermal_state_is_a_caveat_of_the_lut(tmp_path):
    fair = QUIET | {"thermal_state": "fair"}
    run(tmp_path / "fair", device(states=[QUIET, fair] * 2))
    conditions = read_conditions(read_log(tmp_path / "fair/journal.jsonl"))
    assert conditions.caveats == ("fair_thermal_state",)
    run(tmp_path / "cool", device())
    assert read_conditions(read_log(tmp_path / "cool/journal.jsonl")).caveats == ()


def test_a_headroom_that_is_missing_after_a_known_one_is_asked_for_again(monkeypatch):
    """Android gives none when asked twice in a row; that does not mean that the phone is cool."""
    fake, slept = device(), []
    hot = QUIET | {"thermal_headroom": 0.8}
    later = [QUIET, QUIET, hot, QUIET | {"thermal_headroom": 0.5}]

    def sleep(seconds):
        slept.append(seconds)
        fake.stands = later.pop(0)

    monkeypatch.setattr(readiness, "_clock", lambda: sum(slept))
    monkeypatch.setattr(readiness, "_sleep", sleep)
    link = DeviceConnection(fake, "executorch", {})
    readiness.cool_down(link, 60.0, pytest.fail)
    assert slept == [], "a device that never reports one is not asked again"
    fake.stands = hot
    readiness.cool_down(link, 60.0, lambda _: None)
    assert (slept, later) == ([10.0, 1.0, 1.0, 10.0], [])


class Phone(FakeDevice):
    """Throttles after `bears_s` of work without a pause, and is cool again when nothing is loaded."""

    def __init__(self, bears_s):
        super().__init__({SHA[name]: ms for name, ms in TRUE_MS.items()})
        self.bears_s, self.worked_s = bears_s, 0.0

    def connect(self):
        super().connect()
        return PhoneClient(self)


class PhoneClient(FakeClient):
    def load(self, *arguments):
        if not self.loaded:
            self.device.worked_s = 0.0
        return super().load(*arguments)

    def run(self, handles, order, *warmup):
        before = self._state()
        result = super().run(handles, order, *warmup)
        self.device.worked_s += result.samples.sum() / 1e9
        return dataclasses.replace(result, state_before=before, state_after=self._state())

    def _state(self):
        hot = self.device.worked_s > self.device.bears_s
        return DeviceState.model_validate(QUIET | {"thermal_state": "serious" if hot else "nominal"})


def test_overheating_batches_are_split(tmp_path):
    """Four models of 2.1 ms on average and twice 1 ms, in 20 rounds of 2 runs: 0.42 s; two models: 0.25 s."""
    policy = dataclasses.replace(POLICY, min_rounds=20, half_width=1e-9)
    result = run(tmp_path, Phone(bears_s=0.3), policy)
    assert {ratio.loads for name, ratio in result.estimates.ratios.items() if name != "model00"} == {3}
    ends = records(tmp_path, EndRecord)
    kept = {end.batch for end in ends if end.kept}
    hot = [end.batch for end in ends if end.reason == "thermal state serious"]
    models = {batch.batch: len(batch.slots) - 2 for batch in records(tmp_path, BatchRecord)}
    assert hot[:2] == [0, 1]
    assert [models[batch] for batch in hot[:2]] == [4, 4]
    assert {models[batch] for batch in kept} <= {1, 2}
    assert run(tmp_path, Phone(bears_s=0.3), policy).estimates.ratios == result.estimates.ratios


@pytest.mark.parametrize(("models", "most"), [(5, 3), (4, 2), (3, 2), (1, 1)])
def test_half_of_an_odd_batch_is_rounded_up(models, most):
    log = SimpleNamespace(batches=lambda: {0: SimpleNamespace(batch=0)}, overheats=lambda _: True)
    engine: Any = SimpleNamespace(
        policy=SimpleNamespace(batch_models=6), log=log, _models=lambda _: set(range(models))
    )
    assert Engine._most_models(engine) == most


def test_warm_start_does_not_split_batches(tmp_path):
    hot = QUIET | {"thermal_state": "serious"}
    run(tmp_path, device(states=[QUIET, hot, hot, hot, hot, QUIET]))
    assert {len(record.slots) - 2 for record in records(tmp_path, BatchRecord)} == {4}


def test_a_throttled_batch_is_thrown_away_and_repeated(tmp_path):
    fake = device(states=[QUIET, throttled()])
    result = run(tmp_path, fake)
    ends = records(tmp_path, EndRecord)
    assert [end.reason for end in ends if not end.kept] == ["thermal state serious"]
    assert (result.batches_kept, result.batches_rejected) == (len(ends) - 1, 1)
    table = samples_table(read_log(tmp_path / "journal.jsonl"))
    kept = dict(zip(table.column("batch").to_pylist(), table.column("kept").to_pylist(), strict=True))
    assert [batch for batch, good in kept.items() if not good] == [ends[0].batch]


def test_constant_throttling_is_an_error(tmp_path):
    fake = device(states=[throttled()] * 1000)
    with raises("batch_rejected"):
        run(tmp_path, fake)
    ends = records(tmp_path, EndRecord)
    assert len(ends) == POLICY.max_attempts


def capped(mhz):
    return QUIET | {"cpus": [{"cpu": 4, "mhz": None, "max_mhz": mhz, "governor": None}]}


def test_clock_cap_change_repeats_rounds(tmp_path):
    full, cut = capped(2367.0), capped(1800.0)
    outcome = run(tmp_path, device(states=[full, cut, cut, cut]))
    assert outcome.batches_rejected == 0
    chunks = records(tmp_path, RoundsRecord)
    assert [chunk.rejected for chunk in chunks[:3]] == [
        "the clock of core 4 was capped at 1800 MHz after 2367 MHz",
        "",
        "",
    ]
    assert [chunk.first_round for chunk in chunks[:2]] == [0, 0]
    kept = sum(len(chunk.order) for chunk in chunks if not chunk.rejected)
    samples = samples_table(read_log(tmp_path / "journal.jsonl"))
    assert samples.num_rows == sum(
        len(chunk.order) * len(chunk.order[0]) // 2 for chunk in chunks if not chunk.rejected
    )
    assert kept > 0


def test_a_cap_that_keeps_moving_rejects_the_batch(tmp_path):
    moving = [capped(2367.0), capped(1800.0)] * (POLICY.max_attempts + 1)
    outcome = run(tmp_path, device(states=moving))
    assert outcome.batches_rejected == 1
    (rejected,) = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, EndRecord) and not r.kept]
    assert rejected.reason == "the clock of core 4 was capped at 1800 MHz after 2367 MHz"


def test_allowed_clock_cap_change_is_a_caveat(tmp_path, monkeypatch):
    moving = device(states=[capped(2367.0), capped(1800.0)] * 100)
    monkeypatch.setattr(moving, "allow", ("throttled",), raising=False)
    outcome = run(tmp_path, moving)
    assert outcome.batches_rejected == 0
    assert not any(r.rejected for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, RoundsRecord))
    assert outcome.conditions.caveats == ("throttled",)
