"""The agent's side of the protocol, with a runtime made of arithmetic."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.agent import agent as reception
from orchestrator.agent import server as connection
from orchestrator.agent.server import listen
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, DeviceError
from orchestrator.wire.frames import encode_header, read_frame
from tests.support.errors import raises

HELLO = {"id": 1, "op": "hello", "protocol": 1, "token": "right"}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def put(client: AgentClient, folder: Path, text: str) -> str:
    client.ensure(write(folder / f"{text[:8]}.model", text))
    return hashlib.sha256(text.encode()).hexdigest()


def answer(sock: socket.socket) -> dict[str, Any] | None:
    frame = read_frame(sock.makefile("rb"))
    return None if frame is None else frame[0]


def test_silent_connection_does_not_hold_the_place(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "HELLO_TIMEOUT_S", 0.05)
    with served.socket() as sock:
        reply = answer(sock)
        assert reply is not None
        assert reply["error"]["code"] == "timeout"


def test_frame_that_stands_still_ends_the_connection(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FRAME_TIMEOUT_S", 0.05)
    with served.socket() as sock:
        sock.sendall(encode_header(HELLO))
        assert answer(sock)
        sock.sendall(b"\x00\x00")
        reply = answer(sock)
        assert reply is not None
        assert reply["error"]["code"] == "timeout"


def test_vanished_client_frees_its_models(served: Any, tmp_path: Path) -> None:
    client = served.client()
    client.hello()
    client.load(put(client, tmp_path, "a"), "doubler")
    client.close()
    with served.client() as other:
        other.hello()
        assert served.runtime.closed == ["a"]


def test_store_sends_once(served: Any, tmp_path: Path) -> None:
    sent: list[tuple[int, int]] = []
    path = write(tmp_path / "m", "abc")
    with served.client() as client:
        client.hello()
        assert client.ensure(path, progress=lambda *numbers: sent.append(numbers)) is True
        assert client.ensure(path, progress=lambda *numbers: sent.append(numbers)) is False
    assert sent == [(3, 3)]


def test_check_and_run(served: Any, tmp_path: Path) -> None:
    with served.client() as client:
        client.hello()
        handles = [client.load(put(client, tmp_path, text), "doubler").handle for text in "ab"]
        (output,) = client.check(handles[0], [np.array([1.5, -2.0], np.float32)])
        assert output.tolist() == [3.0, -4.0]
        served.runtime.executions.clear()
        result = client.run(handles, [[0, 1, 1], [1, 0, 1]], warmup=2)
    assert served.runtime.executions == list("aabb" + "abb" + "bab")
    assert result.samples.shape == (2, 3)
    assert result.samples.dtype == np.int64
    assert (result.samples > 0).all()
    assert result.state_after.uptime_ns >= result.state_before.uptime_ns


def test_failures_of_a_runtime_keep_the_connection(served: Any, tmp_path: Path) -> None:
    """Refusals that every agent has in common are in tests/agents/test_conformance.py."""
    with served.client() as client:
        client.hello()
        model = client.load(put(client, tmp_path, "a"), "doubler")
        failing = client.load(put(client, tmp_path, "fail"), "doubler")
        exploding = put(client, tmp_path, "explode")
        for code, call in (
            ("internal", lambda: client.load(exploding, "doubler")),
            ("bad_input", lambda: client.check(model.handle, [np.zeros(2, np.int32)])),
            ("run_failed", lambda: client.check(failing.handle, [np.zeros(2, np.float32)])),
            ("run_failed", lambda: client.run([failing.handle], [[0]])),
            ("bad_request", lambda: client.load("nonsense", "doubler")),
        ):
            with raises(code, AgentError):
                call()
            client.state()
        client.unload(model.handle)
        assert served.runtime.closed == ["a"]


def test_port_in_use_says_what_to_do() -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"port {port} is in use; choose another with --port"):
            listen(port)
