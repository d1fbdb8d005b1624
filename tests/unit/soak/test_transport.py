"""One seed of a transport fault, with the product as it is and with mistakes that the soak must notice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.journal.log import Journal
from orchestrator.wire.errors import DeviceError
from tests.soak import transport
from tests.soak.faults import Outcome
from tests.support.proxy import Direction, Link

SEED = ("cut", "adb-server", 0)


@pytest.fixture(autouse=True)
def in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strike when half of what is measured has been carried."""

    def middle(self: transport.Undisturbed, _: object, direction: Direction, __: float) -> int:
        return (self.begun[direction] + self.ended[direction]) // 2

    monkeypatch.setattr(transport.Undisturbed, "draw_byte", middle)


def test_a_cut_connection_costs_nothing(tmp_path: Path) -> None:
    outcome = transport.run(*SEED, tmp_path)
    assert outcome == Outcome(tries=1)


@pytest.mark.parametrize(("times", "lost", "doubled"), [(0, 70, 0), (2, 0, 70)])
def test_rounds_that_are_not_written_once_are_noticed(
    times: int, lost: int, doubled: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third run of ten rounds of seven loads."""
    transport.undisturbed(SEED[1])
    append, chunks = Journal.append, []

    def append_often(self: Journal, record: dict[str, Any]) -> None:
        chunks.append(record["kind"] == "chunk")
        for _ in range(times if chunks[-1] and sum(chunks) == 3 else 1):
            append(self, record)

    monkeypatch.setattr(Journal, "append", append_often)
    outcome = transport.run(*SEED, tmp_path)
    assert (outcome.lost, outcome.doubled) == (lost, doubled)


def test_a_command_that_can_not_be_resumed_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections are cut: the byte in the middle may be of one that asks for the phone's state."""
    transport.undisturbed(SEED[1])

    def cut_for_good(world: transport.World, _: object) -> transport.Injection:
        def strike(_: Link) -> None:
            monkeypatch.setattr("orchestrator.devices.android.device.AndroidDevice.connect", refuse)
            world.phone.proxy.cut_all()

        return transport.Injection(strike)

    def refuse(_: object) -> None:
        raise DeviceError("KeyError('phone')", code="lost")

    monkeypatch.setitem(transport.KINDS, SEED[0], cut_for_good)
    outcome = transport.run(*SEED, tmp_path)
    assert outcome.wrong == 1
    assert "ended with 3" in outcome.detail
    assert "not resumed" in outcome.detail


def test_a_command_that_waits_for_ever_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport.undisturbed(SEED[1])
    monkeypatch.setattr(transport, "LIMIT_S", 2.0)
    monkeypatch.setattr(Link, "cut", lambda self, reset=False: self.thawed.clear())
    monkeypatch.setattr("orchestrator.wire.client.AgentClient._receive", lambda *_: time.sleep(60))
    outcome = transport.run(*SEED, tmp_path)
    assert outcome.hung == 1
