"""The agent's side of the protocol, with a runtime made of arithmetic."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.agent import agent as reception
from orchestrator.agent import server as connection
from orchestrator.agent.server import listen
from orchestrator.cli.main import exit_code
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, DeviceError
from orchestrator.wire.frames import encode_header, read_frame

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


def test_greeting_tells_agent_device_and_runtimes(served: Any) -> None:
    with served.client() as client:
        hello = client.hello()
    assert hello.protocol == 1
    assert hello.agent.version.startswith("python-")
    assert hello.device.cores >= 1
    assert hello.device.memory_bytes > 0
    assert list(hello.runtimes) == ["doubler"]


def test_wrong_token_is_refused_and_the_next_client_served(served: Any) -> None:
    with pytest.raises(AgentError) as refused:
        served.client("wrong").hello()
    assert refused.value.code == "unauthorized"
    assert exit_code(refused.value) == 3
    with served.client() as client:
        client.hello()


def test_nothing_is_answered_before_hello(served: Any) -> None:
    with served.client() as client, pytest.raises(AgentError) as refused:
        client.state()
    assert refused.value.code == "unauthorized"


def test_other_protocol_version_is_refused(served: Any) -> None:
    with served.socket() as sock:
        sock.sendall(encode_header({"id": 1, "op": "hello", "protocol": 2, "token": "right"}))
        reply = answer(sock)
        assert reply is not None
        assert reply["error"]["code"] == "protocol_version"
        assert not sock.recv(1)


def test_second_client_is_told_busy(served: Any) -> None:
    with served.client() as first:
        first.hello()
        with pytest.raises(AgentError) as refused:
            served.client().hello()
        assert refused.value.code == "busy"
        first.state()
    with served.client() as third:
        third.hello()


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


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "header_too_large"),
        (struct.pack(">I", 3) + b"abc", "bad_header"),
        (struct.pack(">I", 4) + b"null", "bad_header"),
        (encode_header({"id": 1, "op": "hello"})[:-2] + b" x", "bad_header"),
        (encode_header({"op": "x" * 200_000})[:100_000], "header_too_large"),
        (encode_header({"op": "x" * 4_000})[:3_000], "truncated"),
        (bytes(4), "bad_header"),
    ],
)
def test_garbage_is_answered_and_closed(served: Any, garbage: bytes, code: str) -> None:
    with served.socket() as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        reply = answer(sock)
        assert reply is not None
        assert reply["id"] is None
        assert reply["error"]["code"] == code
        assert not sock.recv(1)
    with served.client() as client:
        client.hello()


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


def test_wrong_hash_is_refused_and_the_connection_usable(served: Any, tmp_path: Path) -> None:
    with served.client() as client:
        client.hello()
        with pytest.raises(AgentError) as refused:
            client.ensure(write(tmp_path / "m", "abc"), sha256="0" * 64)
        assert refused.value.code == "hash_mismatch"
        assert exit_code(refused.value) == 6
        assert not served.store.has("0" * 64)
        client.state()


def test_model_over_the_store_bound_is_refused_and_drained(served: Any, tmp_path: Path) -> None:
    with served.client() as client:
        client.hello()
        with pytest.raises(AgentError) as refused:
            put(client, tmp_path, "x" * 1001)
        assert refused.value.code == "storage_full"
        client.state()


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


@pytest.mark.parametrize(
    ("handles", "order", "code"),
    [
        ([1], [[0], [0, 0]], "bad_request"),
        ([1], [[1]], "bad_request"),
        ([1, 7], [[0, 1]], "unknown_handle"),
    ],
)
def test_bad_schedule_is_refused(
    served: Any, tmp_path: Path, handles: list[int], order: list[list[int]], code: str
) -> None:
    with served.client() as client:
        client.hello()
        client.load(put(client, tmp_path, "a"), "doubler")
        with pytest.raises(AgentError) as refused:
            client.run(handles, order)
        assert refused.value.code == code
        client.state()
    assert served.runtime.executions == []


def test_each_failure_has_its_code_and_the_connection_goes_on(served: Any, tmp_path: Path) -> None:
    def code(call: Any) -> str:
        with pytest.raises(AgentError) as refused:
            call()
        client.state()
        return refused.value.code

    with served.client() as client:
        client.hello()
        sha256 = put(client, tmp_path, "a")
        model = client.load(sha256, "doubler")
        failing = client.load(put(client, tmp_path, "fail"), "doubler")
        exploding = put(client, tmp_path, "explode")
        pair = np.zeros(2, np.float32)
        assert code(lambda: client.load("0" * 64, "doubler")) == "unknown_model"
        assert code(lambda: client.load(sha256, "nosuch")) == "unknown_runtime"
        assert code(lambda: client.load(sha256, "doubler", {"threads": 2})) == "bad_option"
        assert code(lambda: client.load(exploding, "doubler")) == "internal"
        assert code(lambda: client.unload(99)) == "unknown_handle"
        assert code(lambda: client.check(model.handle, [np.zeros(3, np.float32)])) == "bad_input"
        assert code(lambda: client.check(model.handle, [np.zeros(2, np.int32)])) == "bad_input"
        assert code(lambda: client.check(model.handle, [])) == "bad_input"
        assert code(lambda: client.check(failing.handle, [pair])) == "run_failed"
        assert code(lambda: client.run([failing.handle], [[0]])) == "run_failed"
        assert code(lambda: client.load("nonsense", "doubler")) == "bad_request"
        client.unload(model.handle)
        assert code(lambda: client.unload(model.handle)) == "unknown_handle"
        assert served.runtime.closed == ["a"]


def test_unknown_op_and_unknown_field_are_refused_with_payload_drained(served: Any) -> None:
    with served.socket() as sock:
        stream = sock.makefile("rb")
        sock.sendall(encode_header(HELLO))
        read_frame(stream)
        for header, payload, code in [
            ({"id": 2, "op": "fly"}, b"x" * 300_000, "unknown_op"),
            ({"id": 3, "op": ["run"]}, b"", "unknown_op"),
            ({"id": 4, "op": "state", "more": 1}, b"", "bad_request"),
            ({"id": 5, "op": "state"}, b"payload", "bad_request"),
            ({"id": -6, "op": "state"}, b"", "bad_request"),
        ]:
            sock.sendall(encode_header(header, len(payload)) + payload)
            frame = read_frame(stream)
            assert frame is not None
            assert frame[0]["error"]["code"] == code
            assert frame[0]["id"] == (header["id"] if header["id"] >= 0 else None)
            json.dumps(frame[0])


def test_client_that_leaves_during_a_run_ends_it(served: Any, tmp_path: Path) -> None:
    sock = served.socket()
    client = AgentClient(sock, "right", timeout_s=300)
    client.hello()
    model = client.load(put(client, tmp_path, "a"), "doubler")

    def leave_at_the_third() -> None:
        if len(served.runtime.executions) == 3:
            sock.shutdown(socket.SHUT_RDWR)

    served.runtime.on_execute = leave_at_the_third
    with pytest.raises(DeviceError):
        client.run([model.handle], [[0]] * 1000)
    with served.client() as other:
        other.hello()
    assert 3 <= len(served.runtime.executions) <= 5


def test_port_in_use_says_what_to_do() -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"port {port} is in use; choose another with --port"):
            listen(port)
