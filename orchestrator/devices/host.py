"""The machine that `bench` runs on, measured by an agent in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from luts.format.paths import cache_folder
from luts.format.provenance import ROOT
from orchestrator.agent.agent import LOOPBACK, TOKEN_VARIABLE
from orchestrator.agent.programs import AgentProgram, agent_program
from orchestrator.agent.store import DEFAULT_MAX_BYTES
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLost, DeviceError

# Importing torch and ExecuTorch, as an agent without native calls does, takes seconds, on a cold disk of a busy
# machine a minute.
START_TIMEOUT_S = 180.0

_STOP_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 10.0

# How long our own last connection may be cleaned up after: the round that it was lost in may still be executed.
# One that was lost in a load takes as long as that.
_BUSY_TIMEOUT_S = 15.0


def default_store_dir(device_name: str) -> Path:
    """Folder of a host agent's model store, under the user's cache folder; agents do not share one."""
    return cache_folder() / f"agent-store-{device_name}"


class HostDevice:
    """Starts the host agent when first connected, again when it has died or hangs, and stops it at the end.

    The agent's messages go to `log_path`, which errors name.
    """

    def __init__(
        self,
        program: AgentProgram | None = None,
        store_dir: Path | None = None,
        port: int = 0,
        log_path: Path | None = None,
        timeout_s: float = 60.0,
        store_max_bytes: int = DEFAULT_MAX_BYTES,
        identity: str = "host",
    ) -> None:
        self._program = program or agent_program("python")
        self.name = self._program.device_name
        self.identity = identity
        self._store_dir = store_dir or default_store_dir(self.name)
        self._store_max_bytes = store_max_bytes
        self._port = port
        self._timeout_s = timeout_s
        self._log_path = log_path or Path(tempfile.gettempdir()) / f"blocktime-agent-{os.getpid()}.log"
        self._token = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._agent_port = 0
        self._client: AgentClient | None = None
        self.agent_starts = 0
        self.fixed_performance = False
        self.allow: tuple[str, ...] = ()

    @property
    def agent_pid(self) -> int | None:
        """Process id of the running agent; None where none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def describe(self) -> str:
        return self._program.title

    def connect(self) -> AgentClient:
        """A greeted connection to the agent, started where none runs or where ours hangs.

        DeviceError where that fails; AgentError `busy` where an earlier connection of this device is still open.
        """
        if self._process is not None:
            client = self._greet_running()
            if client is not None:
                return client
            self._stop()
        self._start()
        return self._greet()

    def read_log(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def bring_to_front(self) -> None:
        """Nothing: the agent has no window."""

    def _greet_running(self) -> AgentClient | None:
        """None where the agent has died or hangs: it does not answer, or does not see that its client has gone."""
        left_s = self._client.load_left_s if self._client is not None else 0.0
        deadline_s = time.monotonic() + max(_BUSY_TIMEOUT_S, left_s)
        while True:
            try:
                return self._greet()
            except AgentLost:
                return None
            except AgentError as error:
                if error.code != "busy" or self._client is None or not self._client.closed:
                    raise
            if time.monotonic() > deadline_s:
                return None

    def _greet(self) -> AgentClient:
        try:
            sock = socket.create_connection((LOOPBACK, self._agent_port), timeout=_CONNECT_TIMEOUT_S)
        except OSError as error:
            raise AgentLost(f"the host agent does not answer: {error}; its log is {self._log_path}") from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = AgentClient.greeted(sock, self._token, self._timeout_s, self.name)
        return self._client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        command = [*self._program.command, "--parent-watch", "--port", str(self._port)]
        command += ["--store", str(self._store_dir), "--store-bytes", str(self._store_max_bytes)]
        with self._log_path.open("ab") as log:
            # A session of its own: Ctrl-C reaches the client alone, which then ends the agent in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, TOKEN_VARIABLE: self._token},
                start_new_session=True,
            )
        self.agent_starts += 1
        try:
            self._agent_port = self._read_port(self._process)
        except BaseException:
            self._stop()
            raise

    def _read_port(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        deadline_s, line = time.monotonic() + START_TIMEOUT_S, b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    raise DeviceError(
                        f"the host agent did not start within {START_TIMEOUT_S:.0f} s; "
                        f"its log is {self._log_path}"
                    )
                piece = os.read(process.stdout.fileno(), 4096)
                if not piece:
                    process.wait(_STOP_TIMEOUT_S)
                    raise DeviceError(f"the host agent died at its start: {self._last_words()}")
                line += piece
        try:
            return int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            raise DeviceError(f"the host agent said {line[:100]!r} instead of its port") from None

    def _last_words(self) -> str:
        with self._log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode(errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{words} (its log is {self._log_path})"

    def _stop(self) -> None:
        """Ends the agent: closing its stdin asks, a kill follows where it does not listen."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
