"""Runs that give signs of life, and an agent that hangs: noticed by its silence, and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.programs import agent_program
from orchestrator.devices import host
from orchestrator.devices.host import HostDevice
from orchestrator.wire import client as wire_client
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentLostError
from tests.support.agent_programs import Running, load, require_built
from tests.support.tiny_model import Exported


def test_run_sends_heartbeats(agent: Running, exported: Exported) -> None:
    """Asked for each second; runs grow until one takes long enough, by the agent's own clock.

    A machine that is busy lets a second go by before the first execution too.
    """
    with agent.raw() as raw:
        assert raw.ask({"id": 1, "op": "hello", "protocol": 1, "token": agent.token})["heartbeat"] is True
        handle = load(raw, exported, threads=1)["handle"]
        request = {"id": 5, "op": "run", "handles": [handle], "warmup": 100}
        for rounds in (2_000, 4_000, 8_000, 20_000):
            raw.send(request | {"order": [[0] * 10] * rounds, "heartbeat_s": 1})
            beats = []
            while "running" in (reply := raw.receive() or {}):
                assert reply["id"] == 5
                beats.append(reply["running"])
            assert reply["rounds"] == rounds
            assert beats == sorted(set(beats))
            assert all(0 <= beat < 100 + 10 * rounds for beat in beats)
            if any(beats):
                break
        took_ns = reply["state_after"]["uptime_ns"] - reply["state_before"]["uptime_ns"]
        assert any(beats) or took_ns < 1.5e9
        assert "rounds" in raw.ask(request | {"order": [[0]]})


def test_hung_agent_is_restarted(tmp_path: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped in a run of ten seconds, after a sign of life; only then is little patience left with it.

    The same client notices it whatever the agent's language.
    """
    require_built("python")
    monkeypatch.setattr(wire_client, "HEARTBEAT_S", 1)
    with HostDevice(
        agent_program("python"), store_dir=tmp_path / "store", log_path=tmp_path / "log"
    ) as device:
        client = device.connect()
        client.ensure(exported.path)
        model = client.load(exported.sha256, "executorch", {"threads": 1})
        hung = device.agent_pid
        assert hung is not None
        received, start, patience_s = AgentClient._receive, device._start, device._timeout_s

        def stop_after_first(channel: AgentClient, action: str) -> tuple[dict[str, Any], bytes]:
            header, payload = received(channel, action)
            if "running" in header:
                os.kill(hung, signal.SIGSTOP)
                channel._sock.settimeout(1.0)
                device._timeout_s = 1.0
            return header, payload

        def start_patiently() -> None:
            device._timeout_s = patience_s
            start()

        monkeypatch.setattr(AgentClient, "_receive", stop_after_first)
        monkeypatch.setattr(device, "_start", start_patiently)
        monkeypatch.setattr(host, "_STOP_TIMEOUT_S", 0.1)
        with pytest.raises(
            AgentLostError, match=r"timing tiny\.pte: no heartbeat after [\d,]+ executions within 1 s"
        ):
            client.run([model.handle], [[0] * 10] * 1000, pace_us=1000)
        with device.connect() as again:
            assert device.agent_pid not in (None, hung)
            assert device.agent_starts == 2
            again.load(exported.sha256, "executorch", {"threads": 1})


def test_placements_are_asked_for_apart_from_the_load(agent: Running, exported: Exported) -> None:
    with agent.raw() as raw:
        hello = raw.ask({"id": 1, "op": "hello", "protocol": 1, "token": agent.token})
        assert hello["heartbeat_ops"] == ["load", "placement"]
        handle = load(raw, exported, threads=1)["handle"]
        asked = {"id": 5, "op": "placement", "heartbeat_s": 600}
        assert raw.ask(asked | {"handle": handle}) == {"id": 5, "placement": None}
        assert raw.code(asked | {"handle": handle + 1}) == "unknown_handle"
        again = {"sha256": exported.sha256, "runtime": "executorch", "options": {"threads": 1}}
        loaded = raw.ask({"id": 6, "op": "load", **again, "placement": False, "heartbeat_s": 600})
        assert loaded["placement"] is None
