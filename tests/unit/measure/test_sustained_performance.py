"""Android's mode of sustained performance: only phones that have it, and only batches in which it was on."""

import pytest

from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log
from orchestrator.journal.records import EndRecord
from orchestrator.measure.session import check_runtime
from orchestrator.wire.messages import OptionInfo
from tests.support import fake_device
from tests.support.errors import raises
from tests.support.fake_device import QUIET, FakeClient, device


@pytest.fixture
def sustaining(monkeypatch):
    """Agents list the mode from now on, as on phones that have it."""
    hello = FakeClient(device()).hello()
    runtime = hello.runtimes["executorch"]
    options = runtime.options | {"sustained_performance": OptionInfo(type="bool", default=False)}
    listed = {"executorch": runtime.model_copy(update={"options": options})}
    monkeypatch.setattr(FakeClient, "hello", lambda self: hello.model_copy(update={"runtimes": listed}))


SUSTAINED = Variant("executorch", "xnnpack", "fp32", 1, sustained_performance=True)


def test_a_phone_without_sustained_performance_is_not_measured_with_it():
    with raises("unsupported_option"):
        check_runtime("fake", FakeClient(device()).hello(), SUSTAINED)


def test_a_batch_in_which_sustained_performance_was_off_is_repeated(tmp_path, sustaining):
    on, off = (QUIET | {"sustained_performance": value} for value in (True, False))
    result = fake_device.run(tmp_path, device(states=[on, off] + [on] * 10_000), variant=SUSTAINED)
    ends = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, EndRecord) and not r.kept]
    assert [end.reason for end in ends] == ["sustained performance mode was off"]
    assert result.conditions.sustained_performance == "on"
