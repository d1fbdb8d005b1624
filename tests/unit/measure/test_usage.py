"""What models take besides time in an ordinary measurement, on a phone whose agent keeps what it has freed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from luts.format.store import lut_store
from orchestrator.journal.conditions import Usage, describe_conditions, usage_by_model
from orchestrator.journal.log import read_log
from orchestrator.journal.records import UsageRecord
from orchestrator.measure.session import Measurement
from orchestrator.measure.sustained import measure_memory
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import RunResult
from orchestrator.wire.messages import DeviceState
from tests.support.fake_device import QUIET, SHA, TRUE_MS, VARIANT, FakeClient, FakeDevice, run, subject

POLICY = Policy(min_rounds=10, max_rounds=10, min_passes=1, max_passes=1, cooling_s=0.0)
MIB = 1 << 20
NAMES = ("model00", "model01")


class Phone(FakeDevice):
    """Its agent takes 100 MiB, and 40 for each model that is loaded, of which it keeps 25 of one when all are gone.

    Its battery has a counter in steps of `step_uah`, of which a call takes 100.
    """

    reported, step_uah, calls, peak = True, 100, 0, 0

    def connect(self):
        super().connect()
        return PhoneClient(self)

    def state_with(self, loaded: int) -> DeviceState:
        kept = 25 * MIB if self.loads and not loaded else 0
        resident = 100 * MIB + kept + 40 * MIB * loaded
        self.peak = max(self.peak, resident)
        charge = 3_000_000 - 100 * self.calls // self.step_uah * self.step_uah
        battery = {
            "percent": 70,
            "charging": False,
            "celsius": None,
            "charge_uah": charge,
            "voltage_mv": 4000,
        }
        reported = {"agent_memory_bytes": resident, "agent_peak_memory_bytes": self.peak, "battery": battery}
        nothing = {"agent_memory_bytes": None}
        return DeviceState.model_validate(QUIET | (reported if self.reported else nothing))


class PhoneClient(FakeClient):
    def state(self):
        return self.device.state_with(len(self.loaded))

    def run(self, handles, order, warmup=0, warmup_ms=0, pace_us=0, keep_warm=None):
        self.device.calls += sum(map(len, order)) + warmup * len(handles)
        result = super().run(handles, order, warmup, warmup_ms, pace_us, keep_warm)
        state = self.state()
        return RunResult(result.samples, state, state)


def measured(folder: Path, phone: Phone, usage_of: Sequence[str] = NAMES) -> Measurement:
    return run(folder, phone, POLICY, budget_s=0, usage_of=usage_of)


def phone(**options: Any) -> Phone:
    made = Phone({SHA[name]: ms for name, ms in TRUE_MS.items()})
    for name, value in options.items():
        setattr(made, name, value)
    return made


def test_memory_range(tmp_path: Path) -> None:
    usages = measured(tmp_path, phone()).usages
    first, second = (usages[name].memory for name in NAMES)
    assert first is not None
    assert second is not None
    assert (first.resident_low, first.resident, first.resident_high) == (40 * MIB, 40 * MIB, 40 * MIB)
    assert (second.resident_low, second.resident_high) == (15 * MIB, 40 * MIB), "25 were kept"
    assert (first.peak, second.peak) == (40 * MIB, None), "the second one's is no higher than the first one's"


def test_memory_of_a_model_alone(tmp_path: Path) -> None:
    first = measured(tmp_path, phone()).usages["model00"].memory
    assert measure_memory(phone(), VARIANT, subject(tmp_path).files["model00"]) == first
    assert measure_memory(phone(reported=False), VARIANT, subject(tmp_path).files["model00"]) is None
    refusing = phone(refused={SHA["model01"]})
    assert measure_memory(refusing, VARIANT, subject(tmp_path).files["model01"]) is None


def test_energy_interval(tmp_path: Path) -> None:
    """100 uAh at 4 V are 1.44 J."""
    energy = measured(tmp_path, phone()).usages["model01"].energy
    assert energy is not None
    assert energy.mj_per_call == pytest.approx(1440.0)
    assert energy.low < 1440.0 < energy.high
    coarse = measured(tmp_path / "coarse", phone(step_uah=10**6)).usages["model01"]
    assert coarse.energy is None
    assert "moved too little" in coarse.energy_note


def test_unset_options_cost_nothing(tmp_path: Path) -> None:
    silent = phone(reported=False)
    assert measured(tmp_path, silent).usages == {}
    asked = phone()
    assert measured(tmp_path / "not asked", asked, ()).usages == {}
    assert len(silent.loads) == len(asked.loads)
    assert set(Usage(None, None).columns().values()) == {None}


def test_usage_of_a_failing_model(tmp_path: Path) -> None:
    refusing = phone(refused={SHA["model01"]})
    measured(tmp_path, refusing)
    records = read_log(tmp_path / "journal.jsonl")
    assert list(usage_by_model(records)) == ["model00"]
    measured(tmp_path, phone(refused={SHA["model01"]}))
    again = read_log(tmp_path / "journal.jsonl")
    assert sum(isinstance(record, UsageRecord) for record in again) == 1


def test_a_lut_says_what_its_reference_takes() -> None:
    usage = {"memory_mib": 41.25, "memory_low": 40.5, "memory_high": 42.0, "energy_mj": 12.5}
    usage |= {"energy_low": 11.0, "energy_high": 14.0, "memory_peak": 50.0}
    store = lut_store()
    meta = store.load(store.resolve("linux-x86-64/autovit-nano/executorch-xnnpack-int8-t1").path).meta
    assert "reference alone" not in describe_conditions(meta)
    reported = describe_conditions(meta.model_copy(update={"reference_usage": usage}))["reference alone"]
    assert reported == "41.2 MiB (40.5 to 42), 12.5 mJ (11 to 14)"
