"""Those who wait for the agent's place, with time limits that no test reaches."""

from __future__ import annotations

import errno
import socket
import threading
from typing import Any

import pytest

from orchestrator.agent import agent as reception
from orchestrator.agent.server import listen
from orchestrator.wire.frames import encode_header, read_frame

HELLO = {"id": 7, "op": "hello", "protocol": 1, "token": "right"}
STRANGERS = 100


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "HELLO_TIMEOUT_S", 600.0)
    monkeypatch.setattr(reception, "HANDOVER_S", 600.0)
    # Both ends of all connections are in this process, which may have no more than 1,024 descriptors.
    monkeypatch.setattr(reception, "MAX_WAITING", 64)


def answer(sock: socket.socket) -> dict[str, Any] | None:
    with sock.makefile("rb") as stream:
        frame = read_frame(stream)
    return None if frame is None else frame[0]


def test_oldest_stranger_is_dropped(served: Any) -> None:
    with served.client() as first, served.socket() as following:
        first.hello()
        following.sendall(encode_header(HELLO))
        strangers = [served.socket() for _ in range(STRANGERS)]
        driven_out = STRANGERS - reception.MAX_WAITING + 1
        assert [sock.recv(1) for sock in strangers[:driven_out]] == [b""] * driven_out
        first.bye()
        reply = answer(following)
        assert reply is not None
        assert (reply["id"], "error" in reply) == (7, False)
        for sock in strangers[driven_out:]:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        for sock in strangers:
            sock.close()


def test_hello_in_pieces(served: Any) -> None:
    with served.socket() as sock, sock.makefile("rb") as stream:
        for byte in encode_header(HELLO) + encode_header({"id": 8, "op": "state"}):
            sock.sendall(bytes([byte]))
        replies = [read_frame(stream) for _ in range(2)]
        assert [reply and reply[0]["id"] for reply in replies] == [7, 8]


def test_long_hello_is_refused_early(served: Any) -> None:
    with served.socket() as sock:
        sock.sendall((reception.MAX_HELLO_BYTES + 1).to_bytes(4, "big"))
        reply = answer(sock)
        assert reply is not None
        assert reply["error"]["code"] == "header_too_large"


class FullTable:
    """A listener whose first accept finds no free descriptor."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.refusals = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.refusals:
            self.refusals += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()


def test_no_free_descriptor_does_not_end_the_reception() -> None:
    with listen(0) as listener:
        full = FullTable(listener)
        receiving = reception.ConnectionQueue("right", full)  # type: ignore[arg-type]
        thread = threading.Thread(target=receiving.receive, daemon=True)
        thread.start()
        with socket.create_connection(listener.getsockname(), timeout=300) as sock:
            sock.sendall(encode_header(HELLO))
            client = receiving.next_client()
            assert client is not None
            client[0].close()
        receiving.stop()
        thread.join(60)
    assert full.refusals == 1
