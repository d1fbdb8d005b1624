"""Who connects without the token, to every agent: it costs those nothing who hold it."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
from collections.abc import Iterator

import pytest

from orchestrator.wire.frames import encode_header
from tests.support.agent_programs import Running

STRANGERS = 1000

# "Transport" of PROTOCOL.md.
MAX_WAITING = 512

WAYS = {
    "silent": b"",
    "in the middle of a length": b"\0\0",
    "in the middle of a hello": encode_header({"id": 1, "op": "hello", "protocol": 1})[:-5],
}


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many as may be: a thousand connections need more than many a system gives by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * STRANGERS:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * STRANGERS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def strangers(agent: Running, first_bytes: bytes) -> Iterator[list[socket.socket]]:
    """A thousand connections, one after the other, each of which sends these and then nothing."""
    with contextlib.ExitStack() as stack:
        connected = []
        for _ in range(STRANGERS):
            sock = stack.enter_context(agent.socket())
            # The agent may have dropped it before this is sent.
            with contextlib.suppress(OSError):
                sock.sendall(first_bytes)
            connected.append(sock)
        yield connected


def heard(sock: socket.socket) -> bool:
    """Whether the agent has answered or closed."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def was_dropped(sock: socket.socket) -> bool:
    """Whether the agent closed without an answer."""
    try:
        return heard(sock) and sock.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("way", WAYS)
def test_strangers_do_not_block_the_client(agent: Running, way: str) -> None:
    """Its hello is answered while the last of those who came before it still wait; the first were dropped."""
    with strangers(agent, WAYS[way]) as connected:
        with agent.raw() as client:
            waiting = [not heard(sock) for sock in connected]
            assert client.code({"id": 1, "op": "state"}) == "done"
        assert waiting == [False] * (STRANGERS - MAX_WAITING + 1) + [True] * (MAX_WAITING - 1)
        assert all(was_dropped(sock) for sock, waits in zip(connected, waiting, strict=True) if not waits)
        with agent.raw():
            assert not heard(connected[-1])


def test_a_thousand_strangers_do_not_disturb_the_client(agent: Running) -> None:
    """Nor keep out the next one, who comes as soon as it has left."""
    with agent.raw() as client, strangers(agent, b"") as connected:
        assert client.code({"id": 1, "op": "state"}) == "done"
        assert client.code({"id": 2, "op": "bye"}) == "done"
        with agent.raw():
            assert not heard(connected[-1])


def test_wrong_tokens_are_refused_next_to_other_clients(agent: Running) -> None:
    hello = encode_header({"id": 1, "op": "hello", "protocol": 1, "token": "guessed"})
    with strangers(agent, hello) as connected, agent.raw():
        answers = [sock.recv(1 << 12) for sock in connected[-3:]]
    assert all(b'"unauthorized"' in answer for answer in answers)
