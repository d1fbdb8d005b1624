"""Agents that run as programs on this machine: which there are, how they are built, started and spoken to."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.agent import LOOPBACK, TOKEN_VARIABLE
from orchestrator.agent.programs import AgentProgram
from orchestrator.wire.client import AgentClient
from orchestrator.wire.frames import encode_header, read_frame
from tests.support.tiny_model import Exported

ROOT = Path(__file__).resolve().parents[2]

# A language, the compiler that must be there, and the script that builds its agent.
BUILT = {
    "kotlin": (ROOT / ".toolchains/kotlin/kotlinc", ROOT / "tools/build_kotlin.sh"),
    "swift": (ROOT / ".toolchains/swift/usr/libexec/swift/bin/swift", ROOT / "tools/build_swift.sh"),
}
# The Python agent without the native library: it calls ExecuTorch through its Python binding.
BINDING = "python-binding"
PROGRAMS = ("python", BINDING, *BUILT)

STORE_BYTES = 2_000_000

# The hash of no model that a test stores.
MISSING = "0" * 64


@functools.cache
def require_built(language: str, *options: str) -> None:
    """Builds the agent of `language`; skips the test where its compiler is not installed."""
    if language == "python":
        if shutil.which("g++") is None:
            pytest.skip("no g++: the agent calls ExecuTorch through its Python binding, which is tested too")
        subprocess.run([ROOT / "tools/build_native.sh"], timeout=1000, check=True)
        return
    compiler, script = BUILT[language]
    if not compiler.exists():
        pytest.skip(f"no {compiler.relative_to(ROOT)}; run tools/toolchains/{language}.sh")
    done = subprocess.run([script, *options], capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Running:
    """An agent program that listens."""

    language: str
    process: subprocess.Popen[bytes]
    port: int
    token: str
    store: Path
    announced: dict[str, Any]

    def socket(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection((LOOPBACK, self.port), timeout=300)

    def client(self) -> AgentClient:
        """A connection that has not said hello."""
        return AgentClient(self.socket(), self.token, timeout_s=300)

    def greeted(self) -> AgentClient:
        """A connection that has."""
        client = self.client()
        client.hello()
        return client

    def raw(self) -> Raw:
        """A greeted connection that sends whatever a test wants."""
        raw = Raw(self.socket())
        reply = raw.ask({"id": 0, "op": "hello", "protocol": 1, "token": self.token})
        assert "error" not in reply, reply
        return raw


class Raw:
    """Frames as dictionaries over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._stream = sock.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.sock.close()

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.sock.sendall(encode_header(header, len(payload)) + payload)

    def receive(self) -> dict[str, Any] | None:
        """The next reply's header; None where the agent has closed."""
        frame = read_frame(self._stream)
        if frame is None:
            return None
        frame[1].drain()
        return frame[0]

    def ask(self, header: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
        self.send(header, payload)
        reply = self.receive()
        assert reply is not None, f"the agent closed instead of answering {header}"
        return reply

    def code(self, header: dict[str, Any], payload: bytes = b"") -> str:
        """The code of the error that the request is answered with; `done` where it is answered without."""
        return str(self.ask(header, payload).get("error", {"code": "done"})["code"])


@contextmanager
def started(
    program: AgentProgram,
    store: Path,
    *options: str,
    preexec: Callable[[], None] | None = None,
    **environment: str,
) -> Iterator[Running]:
    """The program, listening; ended by closing its stdin."""
    token = secrets.token_hex(8)
    command = [*program.command, "--parent-watch", "--store", str(store), *options]
    with (store.parent / f"{store.name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), TOKEN_VARIABLE: token, **environment},
            preexec_fn=preexec,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], 300)[0], "the agent does not say where it listens"
        announced = json.loads(process.stdout.readline())
        yield Running(program.language, process, announced["port"], token, store, announced)
    finally:
        process.stdin.close()
        try:
            process.wait(300)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(raw: Raw, data: bytes) -> str:
    assert raw.code({"id": 1, "op": "put", "sha256": digest(data)}, data) == "done"
    return digest(data)


def load(raw: Raw, exported: Exported, **options: Any) -> dict[str, Any]:
    put(raw, exported.path.read_bytes())
    fields = {"sha256": exported.sha256, "runtime": "executorch", "options": options}
    return raw.ask({"id": 2, "op": "load", **fields})
