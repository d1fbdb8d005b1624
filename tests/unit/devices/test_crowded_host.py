"""The host agent drops a connection without an answer, as if hundreds of strangers had come before our hello."""

import sys
from pathlib import Path

import pytest

from orchestrator.agent.programs import AgentProgram
from orchestrator.devices import host
from orchestrator.wire.errors import AgentLostError
from tests.soak.frame_readers import REPLY_HEADERS, stream_of

AGENT = """
import json, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"port": listener.getsockname()[1], "pid": 1}), flush=True)
for _ in range(DROPPED):
    listener.accept()[0].close()
sock = listener.accept()[0]
sock.recv(4096)
sock.sendall(REPLY)
sock.recv(1)
"""


def device(folder: Path, dropped: int) -> host.HostDevice:
    """A device whose agent drops so many connections before it serves one."""
    script = AGENT.replace("DROPPED", str(dropped)).replace("REPLY", repr(stream_of(REPLY_HEADERS[:1])))
    program = AgentProgram("python", (sys.executable, "-c", script), "host", "a stand-in")
    return host.HostDevice(program, folder / "store", log_path=folder / "log")


def test_a_client_that_is_dropped_connects_again(tmp_path: Path) -> None:
    with device(tmp_path, dropped=3) as crowded:
        assert crowded.connect().hello().protocol == 1
        assert crowded.agent_starts == 1


def test_an_agent_that_drops_every_connection_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_CROWDED_S", 0.2)
    with device(tmp_path, dropped=1_000_000) as crowded, pytest.raises(AgentLostError):
        crowded.connect()
