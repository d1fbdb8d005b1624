"""The client against peers that answer wrongly, break off, or never answer."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luts.format.errors import InvalidArtifactError
from orchestrator.cli.main import exit_code
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentLostError, FrameError
from orchestrator.wire.frames import MAX_PAYLOAD_BYTES, encode_header, read_frame
from orchestrator.wire.messages import TensorSpec, unpack
from tests.support.errors import raises

Peer = Callable[..., AgentClient]
MODEL = {"load_ns": 1, "options": {}, "inputs": [], "outputs": [], "delegates": None, "placement": None}


@pytest.fixture
def peer() -> Iterator[Peer]:
    """`peer(*answers)` is a client of a peer that sends `answers[i]` after the i-th request, then closes."""
    threads: list[threading.Thread] = []

    def start(*answers: bytes) -> AgentClient:
        ours, theirs = socket.socketpair()

        def serve() -> None:
            with contextlib.suppress(FrameError), theirs, theirs.makefile("rb") as stream:
                for answer in answers:
                    frame = read_frame(stream)
                    assert frame is not None
                    frame[1].drain()
                    theirs.sendall(answer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return AgentClient(ours, "token", timeout_s=60)

    yield start
    for thread in threads:
        thread.join(timeout=300)


def reply(request_id: int, **fields: Any) -> bytes:
    return encode_header({"id": request_id, **fields})


def test_error_reply_keeps_the_connection(peer: Peer) -> None:
    error = {"code": "storage_full", "message": "no space"}
    client = peer(reply(1, error=error), reply(2, present=True, op="have"))
    with raises("storage_full") as refused:
        client.state()
    assert (refused.value.code, exit_code(refused.value)) == ("storage_full", 1)
    with pytest.raises(AgentLostError):
        client.state()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "closed the connection"),
        (reply(1)[:5], "ended inside the header"),
        (encode_header({"id": 1}, 10) + b"short", "ended inside the payload"),
        (struct.pack(">I", 2) + b"[]", "not a JSON object"),
        (b"HTTP/1.1 200 OK", "over the limit"),
        (reply(1, state={}), "broke the protocol"),
        (reply(1, error="none"), "broke the protocol"),
        (reply(2, error=None), "broke the protocol"),
    ],
)
def test_broken_answer_loses_the_agent(answer: bytes, why: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs, AgentClient(ours, "token", timeout_s=60) as client:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(AgentLostError, match=why) as lost:
            client.state()
        assert exit_code(lost.value) == 3
        with raises("connection_closed"):
            client.state()


def test_answer_to_another_request_loses_the_agent(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    with raises("agent_lost"):
        peer(reply(9, present=True)).ensure(tmp_path / "m")


def test_silence_loses_the_agent() -> None:
    ours, theirs = socket.socketpair()
    with theirs, raises("agent_lost"):
        AgentClient(ours, "token", timeout_s=0.05).state()


def test_death_while_loading_names_the_model(peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "mobilevit.pte"
    path.write_bytes(b"x")
    client = peer(reply(1, present=True), b"")
    client.ensure(path, sha256="a" * 64)
    with raises("agent_lost"):
        client.load("a" * 64, "executorch")


def test_death_while_timing_names_the_models(peer: Peer) -> None:
    client = peer(reply(1, handle=1, **MODEL), b"")
    client.load("b" * 64, "executorch")
    with raises("agent_lost"):
        client.run([1], [[0]])


@pytest.mark.parametrize("payload_bytes", [8, 24, 40])
def test_too_few_or_many_samples_lose_the_agent(peer: Peer, payload_bytes: int) -> None:
    """Two rounds of two calls are 4 samples of 8 bytes."""
    golden = Path(__file__).resolve().parents[3] / "protocol/golden/run.reply.bin"
    with golden.open("rb") as file:
        frame = read_frame(file)
    assert frame is not None
    header = {**frame[0], "id": 1, "rounds": 2, "visits": 2, "payload": payload_bytes}
    raw = json.dumps(header).encode()
    client = peer(struct.pack(">I", len(raw)) + raw + bytes(payload_bytes))
    with raises("agent_lost"):
        client.run([1], [[0, 0], [0, 0]])


class Running:
    """A peer that knows heartbeats or not, and answers a run with 2 signs of life and the samples 5 and 7."""

    def __init__(self, knows: bool) -> None:
        self.requests: list[dict[str, Any]] = []
        golden = Path(__file__).resolve().parents[3] / "protocol/golden"
        hello = self._header(golden / ("hello.reply.heartbeat.bin" if knows else "hello.reply.bin"))
        run = {**self._header(golden / "run.reply.bin"), "id": 2, "visits": 1}
        beats = encode_header({"id": 2, "running": 3}) + encode_header({"id": 2, "running": 4})
        samples = encode_header(run, 16) + struct.pack(">2Q", 5, 7)
        self.answers = [encode_header(hello | {"id": 1}), (beats if knows else b"") + samples]

    @staticmethod
    def _header(path: Path) -> dict[str, Any]:
        with path.open("rb") as file:
            frame = read_frame(file)
        assert frame is not None
        return frame[0]

    def serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream:
            for answer in self.answers:
                frame = read_frame(stream)
                assert frame is not None
                self.requests.append(frame[0])
                sock.sendall(answer)


@pytest.mark.parametrize("knows", [True, False])
def test_heartbeats_need_a_capable_agent(knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    limits: list[float | None] = []
    peer = Running(knows)
    thread = threading.Thread(target=peer.serve, args=(theirs,), daemon=True)
    thread.start()
    client = AgentClient(ours, "token", timeout_s=60)
    client.hello()
    received = client._receive

    def receive(action: str) -> Any:
        limits.append(ours.gettimeout())
        return received(action)

    monkeypatch.setattr(client, "_receive", receive)
    assert client.run([1], [[0], [0]]).samples.tolist() == [[5], [7]]
    client.close()
    thread.join(300)
    assert peer.requests[1].get("heartbeat_s") == (10 if knows else None)
    assert limits == ([180.0] * 3 if knows else [3600.0])


@pytest.mark.parametrize("order", [[], [[]], [[0] * 1001] * 200, [[255] * 1000] * 200 + [[0] * 1000]])
def test_impossible_schedule_is_not_sent(peer: Peer, order: list[list[int]]) -> None:
    client = peer()
    with raises("bad_schedule"):
        client.run([1], order)
    client.close()


def test_schedule_over_the_header_limit_is_not_sent(peer: Peer) -> None:
    client = peer()
    with raises("too_large"):
        client.load("a" * 64, "x", {"option": "y" * (1 << 20)})
    client.close()


def test_files_that_no_agent_takes_are_not_sent(peer: Peer, tmp_path: Path) -> None:
    client = peer()
    (tmp_path / "empty").touch()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_PAYLOAD_BYTES + 1)
    for name, why in [("missing", "No such file"), ("empty", "0 bytes"), ("huge", "1 byte to 1 GiB")]:
        with pytest.raises(InvalidArtifactError, match=why):
            client.ensure(tmp_path / name)
    client.close()


def test_file_that_shrinks_while_sent_is_an_error(peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"x" * 600_000)
    client = peer(reply(1, present=False), b"")

    def shrink(_sent: int, _total: int) -> None:
        path.write_bytes(b"")

    with raises("damaged_file"):
        client.ensure(path, progress=shrink)


HELLO = {
    "protocol": 1,
    "agent": {"name": "blocktime-ios", "version": "1"},
    "device": {
        "model": "iPhone14,5",
        "os": "iOS 18.1",
        "os_build": None,
        "soc": None,
        "cores": 6,
        "memory_bytes": 1,
    },
    "runtimes": {},
}
PLACED = {"cpu": 1, "gpu": 0, "neural_engine": 5, "operations": []}


class Answers:
    """A connection whose other end gives one sign of life every 10 s of its own clock before each answer."""

    def __init__(self, signs: int, **hello: Any) -> None:
        self.now_s, self.requests = 0.0, []
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.client = AgentClient(ours, "token", timeout_s=5, clock_s=lambda: self.now_s)
        self._signs, self._hello = signs, {**HELLO, **hello}
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()

    def waited(self, seconds: float) -> None:
        assert seconds == self.now_s
        self.now_s += 10.0

    def _serve(self, sock: socket.socket) -> None:
        answers = {
            "hello": self._hello,
            "load": {**MODEL, "handle": 1},
            "placement": {"placement": PLACED},
        }
        with contextlib.suppress(FrameError, OSError), sock, sock.makefile("rb") as stream:
            while (frame := read_frame(stream)) is not None:
                header = frame[0]
                self.requests.append(header)
                for _ in range(self._signs if "heartbeat_s" in header else 0):
                    sock.sendall(reply(header["id"], running=0))
                sock.sendall(reply(header["id"], **answers[header["op"]]))


def test_a_load_of_five_minutes_is_waited_for() -> None:
    """Its signs of life end every silence; where the model runs is asked for apart from it."""
    agent = Answers(signs=30, heartbeat_ops=["load", "placement"])
    agent.client.hello()
    handle = agent.client.load("a" * 64, "coreml", waited=agent.waited).handle
    assert agent.now_s == 300.0
    placement = agent.client.placement(handle)
    assert placement is not None
    assert placement.neural_engine == 5
    _, load, place = agent.requests
    assert (load["placement"], load["heartbeat_s"], place["heartbeat_s"]) == (False, 10, 10)


def test_a_load_that_never_ends_is_given_up() -> None:
    agent = Answers(signs=1000, heartbeat_ops=["load"])
    agent.client.hello()
    with raises("agent_lost"):
        agent.client.load("a" * 64, "coreml", waited=agent.waited)
    assert 1200 < agent.now_s <= 1210
    assert agent.client.load_left_s == 0.0


def test_lost_connection_knows_the_rest_of_a_load() -> None:
    agent = Answers(signs=30, heartbeat_ops=["load"])
    agent.client.hello()

    def cut(seconds: float) -> None:
        agent.now_s += 10.0
        if seconds == 200.0:
            raise KeyboardInterrupt

    assert agent.client.load("a" * 64, "coreml", waited=agent.waited).handle == 1
    assert agent.client.load_left_s == 0.0
    with pytest.raises(KeyboardInterrupt):
        agent.client.load("b" * 64, "coreml", waited=cut)
    assert agent.client.load_left_s == 1200.0 - 210.0


def test_agent_without_heartbeats() -> None:
    """One of before is not sent what it would refuse, and answers the placement with the load."""
    agent = Answers(signs=0)
    agent.client.hello()
    assert agent.client.load("a" * 64, "coreml").handle == 1
    assert agent.socket.gettimeout() == 1200.0
    assert agent.client.placement(1) is None
    assert [request["op"] for request in agent.requests] == ["hello", "load"]
    assert not {"placement", "heartbeat_s"} & agent.requests[1].keys()


@pytest.mark.parametrize(("payload_bytes", "fits"), [(20, False), (24, True), (25, False), (28, False)])
def test_tensors_fill_their_payload(payload_bytes: int, fits: bool) -> None:
    """Four elements of 4 bytes and one of 8."""
    specs = [TensorSpec(dtype="float32", shape=[2, 2]), TensorSpec(dtype="int64", shape=[1])]
    with contextlib.nullcontext() if fits else pytest.raises(ValueError, match="need 24 bytes"):
        assert [array.shape for array in unpack(specs, bytes(payload_bytes))] == [(2, 2), (1,)]
