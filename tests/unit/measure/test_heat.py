"""A device that gets hot: its batches are thrown away, repeated and split, and it is left to cool."""

import dataclasses

import pytest

from orchestrator.journal.log import read_log, samples_table
from orchestrator.journal.records import BatchRecord, EndRecord
from orchestrator.measure import readiness
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.wire.messages import DeviceState
from tests.support.errors import raises
from tests.support.fake_device import POLICY, QUIET, SHA, TRUE_MS, FakeClient, FakeDevice, device, run


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
    warm, fair = QUIET | {"thermal_headroom": 0.70}, QUIET | {"thermal_state": "fair"}
    later = [fair, QUIET]

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
    records = read_log(tmp_path / "journal.jsonl")
    kept = {record.batch for record in records if isinstance(record, EndRecord) and record.kept}
    hot = [r.batch for r in records if isinstance(r, EndRecord) and r.reason == "thermal state serious"]
    models = {r.batch: len(r.slots) - 2 for r in records if isinstance(r, BatchRecord)}
    assert hot[:2] == [0, 1]
    assert [models[batch] for batch in hot[:2]] == [4, 4]
    assert {models[batch] for batch in kept} <= {1, 2}
    assert run(tmp_path, Phone(bears_s=0.3), policy).estimates.ratios == result.estimates.ratios


def test_warm_start_does_not_split_batches(tmp_path):
    hot = QUIET | {"thermal_state": "serious"}
    run(tmp_path, device(states=[QUIET, hot, hot, hot, hot, QUIET]))
    records = read_log(tmp_path / "journal.jsonl")
    assert {len(record.slots) - 2 for record in records if isinstance(record, BatchRecord)} == {4}


def test_a_throttled_batch_is_thrown_away_and_repeated(tmp_path):
    fake = device(states=[QUIET, throttled()])
    result = run(tmp_path, fake)
    ends = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, EndRecord)]
    assert [end.reason for end in ends if not end.kept] == ["thermal state serious"]
    assert (result.batches_kept, result.batches_rejected) == (len(ends) - 1, 1)
    table = samples_table(read_log(tmp_path / "journal.jsonl"))
    kept = dict(zip(table.column("batch").to_pylist(), table.column("kept").to_pylist(), strict=True))
    assert [batch for batch, good in kept.items() if not good] == [ends[0].batch]


def test_constant_throttling_is_an_error(tmp_path):
    fake = device(states=[throttled()] * 1000)
    with raises("batch_rejected"):
        run(tmp_path, fake)
    ends = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, EndRecord)]
    assert len(ends) == POLICY.max_attempts
