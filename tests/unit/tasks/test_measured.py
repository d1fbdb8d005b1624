"""How models are measured beside each other, and which runs are the same."""

from types import SimpleNamespace

import pytest

from luts.format.lut import Lut
from orchestrator.export.artifacts.spec import Variant
from orchestrator.tasks import measured as task
from orchestrator.tasks.options import MeasureOptions
from orchestrator.wire.client import ModelFile
from tests.support.winner_world import make_lut

VARIANT = Variant("simulated", "", threads=1)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The policy and the journal of every measurement; nothing is measured."""
    calls = []

    def measure(device, variant, models, journal, policy, *_, **__):
        calls.append((policy, journal))
        return SimpleNamespace(failures={})

    files = {task.REFERENCE: ModelFile(tmp_path / "model", "0" * 64)}
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(task, "measure", measure)
    monkeypatch.setattr(task, "model_files", lambda *_: files)
    return calls


def profiled_with(**policy) -> Lut:
    lut = make_lut()
    meta = lut.meta.model_copy(update={"policy": lut.meta.policy | policy})
    return Lut(meta, lut.entries, lut.models, lut.samples)


def beside(lut) -> None:
    device = SimpleNamespace(name="phone")
    task.measure_with_lut(device, VARIANT, lut, {}, MeasureOptions(budget_s=1.0))


def test_measuring_for_a_lut_uses_its_pace_and_self_test(measured) -> None:
    beside(profiled_with(pace_us=33_333, warmup_ms=0, self_test=False))
    beside(profiled_with(self_test=True))
    (paced, _), (plain, _) = measured
    assert (paced.pace_us, paced.warmup_ms, paced.self_test) == (33_333, 0, False)
    assert (plain.pace_us, plain.warmup_ms, plain.self_test) == (0, 2000, True)


def test_a_lut_of_before_is_back_to_back_and_the_device_is_tested(measured) -> None:
    lut = make_lut()
    policy = {name: value for name, value in lut.meta.policy.items() if name not in ("pace_us", "self_test")}
    beside(Lut(lut.meta.model_copy(update={"policy": policy}), lut.entries, lut.models, lut.samples))
    assert (measured[0][0].pace_us, measured[0][0].self_test) == (0, True)


def test_an_open_run_at_another_pace_or_with_another_self_test_is_another_run(measured, tmp_path) -> None:
    device, files = SimpleNamespace(name="phone"), {"a": ModelFile(tmp_path / "model", "0" * 64)}
    for how in ({}, {"pace_us": 33_333}, {"pace_us": 20_000}, {"self_test": False}, {}):
        task.measure_files(device, VARIANT, files, "a", MeasureOptions(budget_s=1.0, **how))
    journals = [journal for _, journal in measured]
    assert journals[0] == journals[4], "the same again goes on"
    assert len(set(journals)) == 4
