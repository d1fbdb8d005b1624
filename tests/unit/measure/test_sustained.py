"""A device that heats up in made-up time, run without a pause: what is kept, gone on with, and said of it."""

import hashlib
import math
from itertools import pairwise

import numpy as np
import pytest

from orchestrator.journal.conditions import MemoryUse, sustained_usage
from orchestrator.journal.log import MeasurementLog, read_log
from orchestrator.journal.records import BatchRecord, Header
from orchestrator.journal.sustained import (
    SustainedPoint,
    merge_points,
    slowdown,
    sustained_percentiles,
    sustained_points,
)
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import make_identity
from orchestrator.measure.sustained import called_s, run_sustained
from orchestrator.report.draw import write_figure
from orchestrator.report.figures import sustained_figure
from orchestrator.simulate.device import Noise, Processor, Throttling
from orchestrator.tasks import target
from orchestrator.tasks.sustained import SustainedCommand, measure_sustained
from orchestrator.tasks.target import Target
from orchestrator.wire.client import RunResult
from orchestrator.wire.errors import AgentLostError
from orchestrator.wire.messages import DeviceState
from tests.support.errors import raises
from tests.support.fake_device import POLICY, QUIET, SHA, VARIANT, FakeClient, FakeDevice, subject

MODEL_MS, MODEL = 20.0, "model00"
HOT_S = -60 * math.log(1 - 25 / 40)
"""From 25 to 50 degrees on the way to 65, with a time constant of a minute: 58.85 s."""


class HeatingDevice(FakeDevice):
    """One model of 20 ms on a processor of the simulation's; `interrupted`: run calls that Ctrl-C ends."""

    def __init__(self, throttling=None, *, tells=True, interrupted=(), **options):
        super().__init__({SHA[MODEL]: MODEL_MS}, load_sd=0.0, **options)
        self.processor = Processor(Noise(sample_sd=0.01, throttling=throttling))
        self.tells, self.interrupted, self.runs_asked = tells, set(interrupted), []

    def connect(self):
        super().connect()
        return HeatingClient(self)

    def state(self):
        hot = self.processor.throttled
        reported: dict[str, object] = {"thermal_state": None}
        if self.tells:
            mhz, celsius = 1800.0 if hot else 2900.0, self.processor.celsius or 25.0
            reported = {
                "thermal_state": "serious" if hot else "nominal",
                "thermal_zones": [{"name": "skin", "celsius": celsius}],
                "cpus": [{"cpu": 7, "mhz": mhz, "max_mhz": mhz, "governor": None}],
            }
        return DeviceState.model_validate(QUIET | reported | {"uptime_ns": self.processor.now_ns})


class HeatingClient(FakeClient):
    def state(self):
        return self.device.state()

    def run(self, handles, order, warmup=0, warmup_ms=0, pace_us=0, keep_warm=None):
        device = self.device
        device.runs += 1
        device.runs_asked.append(len(order[0]))
        assert not warmup_ms, "a chunk warms the device up for the next one"
        if device.runs in device.lose_after:
            device.processor.rest(30)
            raise AgentLostError("the fake was unplugged")
        if device.runs in device.interrupted:
            raise KeyboardInterrupt
        before, quiet_ns = device.state(), 1e6 * self.loaded[handles[0]]
        for _ in range(warmup):
            device.processor.execute(quiet_ns)
        samples = np.array([[device.processor.execute(quiet_ns) for _ in order[0]]])
        return RunResult(samples, before, device.state())


def measured(tmp_path, device, seconds):
    """The records of a run of so many seconds, gone on with where there is one."""
    files = subject(tmp_path)
    link = DeviceConnection(device, "executorch", {})
    identity = make_identity(link.hello(), VARIANT, files, POLICY, fixed_performance=False)
    header = Header(identity=identity, reference_id=MODEL, seed=0, created="now", simulated=False)
    with MeasurementLog(tmp_path / "journal.jsonl", header) as log:
        run_sustained(link, files.files[MODEL], log, seconds, lambda *_: None)
        return list(log.records), called_s(log)


def test_slowdown_of_a_throttling_device(tmp_path) -> None:
    records, worked = measured(tmp_path, HeatingDevice(Throttling()), 600)
    points = sustained_points(records)
    assert worked == pytest.approx(600, abs=10)
    found = slowdown(points)
    assert found.first_ms == pytest.approx(MODEL_MS, rel=0.01)
    assert found.slow_ms == pytest.approx(1.6 * MODEL_MS, rel=0.01)
    assert found.since_s is not None
    assert abs(found.since_s - HOT_S) < 2 * 5.0 + 1, "of chunks of five seconds"
    assert f"slowed down after {found.since_s:.0f} s: 19.9" in str(found)
    assert "(+60 %)" in str(found)
    assert "thermal state serious from 5" in str(found)
    assert "its clock capped at 1,800 MHz, 2,900 at first" in str(found)


def test_cool_device_has_no_slowdown(tmp_path) -> None:
    records, _ = measured(tmp_path, HeatingDevice(), 120)
    found = slowdown(sustained_points(records))
    assert found.since_s is None
    assert str(found).startswith("did not slow down: 19.9")
    assert found.rise == pytest.approx(0, abs=0.01)
    reported = sustained_percentiles(records)
    assert reported.p99 is not None
    assert reported.p99.ms == pytest.approx(MODEL_MS * math.exp(0.01 * 2.326), rel=0.005)


def test_unexplained_slowdown(tmp_path) -> None:
    device = HeatingDevice(Throttling(), tells=False)
    found = slowdown(sustained_points(measured(tmp_path, device, 200)[0]))
    assert found.since_s is not None
    assert str(found).endswith("the device does not report heat or clock")
    cool = [point(i, 10.0 if i < 20 else 13.0) for i in range(60)]
    assert "another process may be the cause" in str(slowdown(cool))


def test_a_burst_and_a_drift_are_no_slowdown() -> None:
    burst = [point(i, 20.0 if i in (30, 31) else 10.0) for i in range(60)]
    drift = [point(i, 10.0 * (1 + 0.04 * i / 59)) for i in range(60)]
    assert slowdown(burst).since_s is None
    assert slowdown(drift).since_s is None
    assert slowdown(drift).rise == pytest.approx(0.038, abs=0.003)


def test_an_interrupted_run_loses_nothing_and_goes_on(tmp_path) -> None:
    device = HeatingDevice(interrupted={5})
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, device, 60)
    device.processor.rest(300)
    records, worked = measured(tmp_path, device, 60)
    points = sustained_points(records)
    assert [p.segment for p in points[:4]] == [0] * 4, "the four chunks before Ctrl-C"
    assert {p.segment for p in points[4:]} == {1}
    assert worked == pytest.approx(60, abs=2), "time of calls, of both parts"
    assert points[4].start_s - points[3].end_s == pytest.approx(300, abs=1), "the pause is in the time"


def test_lost_cable_starts_a_segment(tmp_path) -> None:
    device = HeatingDevice(lose_after=(3, 20))
    points = sustained_points(measured(tmp_path, device, 60)[0])
    assert max(p.segment for p in points) == 2
    assert len(device.loads) == 3, "a fresh load each"
    gone = HeatingDevice(lose_after=range(1, 100))
    with pytest.raises(AgentLostError):
        measured(tmp_path / "gone", gone, 60)


def test_a_model_that_is_refused_is_named(tmp_path) -> None:
    device = HeatingDevice()
    device.refused = {SHA[MODEL]}
    with raises("reference_failed"):
        measured(tmp_path, device, 60)


def test_the_journal_says_that_clocks_were_fixed(tmp_path, monkeypatch) -> None:
    model, device = tmp_path / "model.pte", HeatingDevice()
    model.write_bytes(b"a model")
    device.true_ms[hashlib.sha256(b"a model").hexdigest()] = MODEL_MS
    device.fixed_performance = True
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(target, "resolve", lambda *_: device)
    monkeypatch.setattr(target, "kind_of", lambda *_: "host")
    run = measure_sustained(SustainedCommand(target=Target("fake", threads=1), files=(model,), duration_s=3))
    header = read_log(run.folder / "journal.jsonl")[0]
    assert isinstance(header, Header)
    assert header.identity.fixed_performance


def test_durations_of_sustained_runs(tmp_path) -> None:
    device = HeatingDevice()
    measured(tmp_path, device, 30)
    assert device.runs_asked[0] == 10
    assert all(49 <= calls <= 51 for calls in device.runs_asked[1:-2]), "a second of 20 ms"


def test_device_restart_keeps_time_order(tmp_path) -> None:
    device = HeatingDevice(interrupted={4})
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, device, 30)
    device.processor.now_ns = 0
    points = sustained_points(measured(tmp_path, device, 30)[0])
    assert all(after.start_s >= before.end_s - 1e-6 for before, after in pairwise(points))


def test_merged_points() -> None:
    points = [point(i, 10.0 + i, segment=i // 5, heat="serious" if i == 2 else "nominal") for i in range(10)]
    rows = merge_points(points, 4)
    assert [(row.segment, row.calls, row.thermal_state) for row in rows] == [
        (0, 300, "serious"),
        (0, 200, "nominal"),
        (1, 300, "nominal"),
        (1, 200, "nominal"),
    ]
    assert (rows[0].p50_ms, rows[0].start_s, rows[0].end_s) == (11.0, 0.0, 3.0)


def test_sustained_figure_panels(tmp_path) -> None:
    points = [point(i, 10.0, segment=i // 30, mhz=2000.0 + i, heat="fair") for i in range(60)]
    write_figure(tmp_path / "all.svg", sustained_figure(points, slowdown(points), "a phone"))
    alone = [point(i, 10.0, heat=None) for i in range(60)]
    write_figure(tmp_path / "alone.svg", sustained_figure(alone, slowdown(alone), "a host"))
    text = (tmp_path / "all.svg").read_text()
    assert "MHz, fastest core" in text
    assert "shaded: thermal state fair" in text
    assert "the device reports no thermal state" in (tmp_path / "alone.svg").read_text()


class Phone(HeatingDevice):
    """Draws 900 mA at 4 V from a counter in steps of 500 uAh; its agent has 100 MiB, with the model 140."""

    charging, step_uah, reported = False, 500, True

    def state(self):
        state = super().state()
        used_uah = 900_000 * self.processor.now_ns / 3600e9
        charge = 3_000_000 - int(used_uah / self.step_uah) * self.step_uah
        battery = {"percent": 70, "charging": self.charging, "celsius": None}
        battery |= {"charge_uah": charge, "voltage_mv": 4000} if self.reported else {}
        resident = (140 if self.runs else 100) * 2**20
        memory = {
            "agent_memory_bytes": resident,
            "agent_peak_memory_bytes": resident + 2**20 * 5 * bool(self.runs),
        }
        return DeviceState.model_validate(state.model_dump() | {"battery": battery} | memory)


def test_energy_from_the_battery_counter(tmp_path) -> None:
    """0.9 A at 4 V are 3.6 W: over 20 ms 72 mJ, but for the counter's steps."""
    used = sustained_usage(measured(tmp_path, Phone(), 300)[0]).energy
    assert used is not None
    assert used.low <= 72.0 <= used.high
    assert used.mj_per_call == pytest.approx(72.0, rel=0.01)
    assert used.high - used.mj_per_call == pytest.approx(3.6 * 500 * 4 / 15_000, rel=0.01), "one step"


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("charging", True, "the phone was on external power"),
        ("step_uah", 50_000, "moved too little; measure for longer"),
        ("reported", False, ""),
    ],
)
def test_no_energy_is_reported(tmp_path, name, value, note) -> None:
    phone = Phone()
    setattr(phone, name, value)
    used = sustained_usage(measured(tmp_path, phone, 300)[0])
    assert used.energy is None
    assert note in str(used)
    assert bool(used.energy_note) == bool(note) == ("energy" in str(used))


def test_memory_of_a_load(tmp_path) -> None:
    memory = sustained_usage(measured(tmp_path, Phone(), 30)[0]).memory
    assert memory == MemoryUse(
        resident=40 << 20, resident_low=40 << 20, resident_high=40 << 20, peak=45 << 20
    )


def test_earlier_peak_is_unknown(tmp_path) -> None:
    records = measured(tmp_path, Phone(), 30)[0]
    batch = next(record for record in records if isinstance(record, BatchRecord))
    assert batch.state_before is not None
    peaked = batch.state_before.model_copy(update={"agent_peak_memory_bytes": 900 << 20})
    earlier = batch.model_copy(update={"state_before": peaked})
    memory = sustained_usage([earlier if record is batch else record for record in records]).memory
    assert memory is not None
    assert memory.peak is None
    without = batch.model_copy(update={"state_before": None})
    assert sustained_usage([without if record is batch else record for record in records]).memory is None


def point(number, ms, segment=0, heat="nominal", mhz=None) -> SustainedPoint:
    """A second of calls."""
    return SustainedPoint(
        segment, float(number), number + 1.0, 100, ms, 1.01 * ms, heat, None, None, mhz, None
    )
