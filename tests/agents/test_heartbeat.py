"""Runs that give signs of life, and agents that hang: noticed by their silence, and started again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.programs import AgentProgram
from orchestrator.devices.host import HostDevice
from orchestrator.wire import client as wire_client
from orchestrator.wire.channel import Channel
from orchestrator.wire.errors import AgentLost
from tests.support.agent_programs import Raw, Running, load
from tests.support.tiny_model import Exported

MAX_VISITS = 200_000


def run_request(raw: Raw, exported: Exported, least_s: float) -> dict[str, Any]:
    """A run that takes longer than `least_s`, by a factor of three for a machine that is busy now."""
    handle = load(raw, exported, threads=1)["handle"]
    request = {"id": 5, "op": "run", "handles": [handle], "order": [[0]] * 100, "warmup": 100}
    start_s = time.monotonic()
    assert raw.code(request) == "done"
    one_s = (time.monotonic() - start_s) / 200
    return request | {"order": [[0] * 10] * min(MAX_VISITS // 10, int(0.3 * least_s / one_s) + 1)}


def test_a_run_gives_signs_of_life_where_it_is_asked_to(agent: Running, exported: Exported) -> None:
    with agent.raw() as raw:
        assert raw.ask({"id": 1, "op": "hello", "protocol": 1, "token": agent.token})["heartbeat"] is True
        request = run_request(raw, exported, 2.0)
        executions = 100 + 10 * len(request["order"])
        start_s = time.monotonic()
        raw.send(request | {"heartbeat_s": 1})
        beats = []
        while "running" in (reply := raw.receive() or {}):
            assert reply["id"] == 5
            beats.append(reply["running"])
        assert reply["rounds"] == len(request["order"])
        if time.monotonic() - start_s > 2.0:
            assert beats
        assert beats == sorted(set(beats))
        assert all(0 < beat < executions for beat in beats)
        assert "rounds" in raw.ask(request)


def test_an_agent_that_hangs_is_noticed_and_started_again(
    program: AgentProgram, tmp_path: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the middle of a run, after a sign of life."""
    monkeypatch.setattr(wire_client, "HEARTBEAT_S", 1)
    monkeypatch.setattr(wire_client, "SILENCE_LIMIT_S", 10.0)
    with HostDevice(program, store_dir=tmp_path / "store", log_path=tmp_path / "log", timeout_s=10) as device:
        client = device.connect()
        client.ensure(exported.path)
        model = client.load(exported.sha256, "executorch", {"threads": 1})
        hung = device.agent_pid
        assert hung is not None
        received = Channel._receive

        def stop_after_first(channel: Channel, action: str) -> tuple[dict[str, Any], bytes]:
            header, payload = received(channel, action)
            if "running" in header:
                os.kill(hung, signal.SIGSTOP)
            return header, payload

        monkeypatch.setattr(Channel, "_receive", stop_after_first)
        with pytest.raises(
            AgentLost, match=r"timing tiny\.pte: no sign of life after [\d,]+ executions within 10 s"
        ):
            while True:
                client.run([model.handle], [[0] * 100] * 2000)
        with device.connect() as again:
            assert device.agent_pid not in (None, hung)
            assert device.agent_starts == 2
            again.load(exported.sha256, "executorch", {"threads": 1})
