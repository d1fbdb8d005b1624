"""Times of operators from a runtime's trace: which event is whose, and what goes into the journal."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.journal.log import MeasurementLog, read_log, traces
from orchestrator.journal.records import TraceRecord
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import make_header
from orchestrator.measure.traces import EXECUTIONS, operator_times, partners, record_traces
from orchestrator.plan.plan import Policy
from orchestrator.wire.errors import AgentError, AgentLostError
from orchestrator.wire.messages import TracedOperation
from tests.support.fake_device import VARIANT, device, subject

KEYS = (
    "border(n=100,tensors=2)", "gemm(m=4,k=2,n=3)", "clamp(n=12)", "add_broadcast(n=12,other=3,run=3)",
    "portable.gt.bool(in=12,out=12)", "depthwise(h=2,w=2,c=3,kh=3,kw=3)",
)  # fmt: skip


def event(name: str, ns: float, call: int | None = 0) -> TracedOperation:
    return TracedOperation(name=name, call=call, ns=ns)


EVENTS = (
    event("Transpose (ND, X32) #1", 9_000.0),
    event("Fully Connected (NC, F32) GEMM #1", 4_000.0),
    event("Add (ND) #1", 1_000.0),
    event("native_call_gt.Scalar_out", 2_500.0, None),
    event("Convolution (NHWC, F32) DWConv #1", 3_000.0),
)


def test_an_event_without_an_operator_and_operators_without_an_event():
    """XNNPACK's own transpose is nobody's; the border has no event, the clamp was fused."""
    assert operator_times(EVENTS, KEYS) == [0, 0.0045, 0, 0.0015, 0.0025, 0.0035]


def test_an_agent_cannot_give_times_that_no_journal_holds():
    (time,) = operator_times([event("Clamp (NC) #1", 1e15)], ["clamp(n=12)"])
    assert TraceRecord(model="one", operator_ms=[time]).operator_ms == [time]


@pytest.mark.parametrize(
    ("events", "operators", "expected"),
    [
        ("", "a", []),
        ("a b", "", [None, None]),
        ("a b c", "a b c", [0, 1, 2]),
        ("x a b a", "a c b a", [None, 0, 2, 3]),
        ("b a", "a b a b", [1, 2]),
        ("a b a b c", "b c", [None, 0, None, None, 1]),
    ],
)
def test_partners(events: str, operators: str, expected: Sequence[int | None]):
    assert partners(events.split(), operators.split()) == expected


class Agent:
    """An agent with a tracer, or without; some of its programs fail."""

    def __init__(self, options: Sequence[str] = ("trace",), failing: dict[str, Exception] | None = None):
        self.runtime, self.options = "executorch", {"threads": 1}
        self.client, self._options, self._failing = self, options, failing or {}
        self.loaded, self.dropped = list[dict[str, Any]](), 0

    def hello(self) -> Any:
        return SimpleNamespace(runtimes={"executorch": SimpleNamespace(options=self._options)})

    def ensure(self, path: Any, sha256: str) -> None:
        if path.name in self._failing:
            raise self._failing[path.name]

    def load(self, sha256: str, runtime: str, options: dict[str, Any]) -> Any:
        self.loaded.append(options)
        return SimpleNamespace(handle=7)

    def run(self, handles: Sequence[int], order: Sequence[Sequence[int]], warmup: int) -> Any:
        assert (handles, len(order)) == ([7], EXECUTIONS)
        return SimpleNamespace(operations=[EVENTS])

    def unload(self, handle: int) -> None:
        assert handle == 7

    def drop(self) -> None:
        self.dropped += 1


def record(folder, agent: Agent, models: Sequence[str]) -> dict[str, list[float]]:
    header = make_header(device().connect().hello(), VARIANT, subject(folder), Policy(), False, "2026-11-27")
    with MeasurementLog(folder / "journal.jsonl", header) as log:
        connection = cast(DeviceConnection, agent)
        record_traces(connection, subject(folder).files, log, dict.fromkeys(models, KEYS), lambda _: None)
        return traces(log.records)


def test_each_program_is_traced_once_and_those_that_fail_are_left_out(tmp_path):
    lost, refused = AgentLostError("gone", code="lost"), AgentError("bad_model", "no")
    first = Agent(failing={"model01": refused, "model02": lost})
    found = record(tmp_path, first, ["model00", "model01", "model02", "model03"])
    assert found == dict.fromkeys(["model00", "model03"], operator_times(EVENTS, KEYS))
    assert (first.loaded, first.dropped) == ([{"threads": 1, "trace": True}] * 2, 1)
    again = Agent()
    assert set(record(tmp_path, again, ["model00", "model01"])) == {"model00", "model01", "model03"}
    assert len(again.loaded) == 1
    kept = [each for each in read_log(tmp_path / "journal.jsonl") if isinstance(each, TraceRecord)]
    assert [each.model for each in kept] == ["model00", "model03", "model01"]


def test_nothing_without_a_tracer(tmp_path):
    agent = Agent(options=("threads",))
    assert record(tmp_path, agent, ["model00"]) == {}
    assert agent.loaded == []
