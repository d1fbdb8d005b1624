"""The computer that `bench` runs on, and simulated devices: agents in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from luts.format.files import cache_folder
from luts.format.provenance import ROOT
from orchestrator.agent.agent import LOOPBACK, TOKEN_VARIABLE
from orchestrator.agent.programs import AgentProgram, agent_program
from orchestrator.agent.store import DEFAULT_MAX_BYTES
from orchestrator.devices.common.device import ANSWER_TIMEOUT_S, Device
from orchestrator.simulate.device import Scenario, find_scenario
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError

SIMULATED = "simulated"
"""What the names of simulated devices begin with."""

DEFAULT_SCENARIO = "quiet"

# An agent without native calls imports torch and ExecuTorch: seconds, or a minute from a cold disk.
START_TIMEOUT_S = 180.0

_STOP_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 10.0

# How long to connect again to an agent that closes without an answer, as if hundreds connected before our hello.
_CROWDED_S = 2.0
_CROWDED_POLL_S = 0.05

# How long the agent may take to notice that our last connection is gone: the round during which it was lost may
# still run. If it was lost during a load, that load must end first.
_STALE_TIMEOUT_S = 15.0


def default_store_dir(device_name: str) -> Path:
    """Return the model store of a host agent, in the user's cache folder; agents do not share one."""
    return cache_folder() / f"agent-store-{device_name}"


class HostDevice(Device):
    """Starts the host agent on first connection, again if it has died or hangs, and stops it at the end."""

    def __init__(
        self,
        program: AgentProgram | None = None,
        store_dir: Path | None = None,
        port: int = 0,
        log_path: Path | None = None,
        identity: str = "host",
    ) -> None:
        """Prepare a device; its agent is started by `connect`.

        Args:
            program: The agent to start, the Python agent by default.
            store_dir: Folder of its model store, `default_store_dir` by default.
            port: Port that it listens on, 0 for any free one.
            log_path: File that receives its messages, which errors name.
            identity: As in `Device`; empty for a simulated device.
        """
        self._program = program or agent_program("python")
        self.name = self._program.device_name
        self.identity = identity
        self._store_dir = store_dir or default_store_dir(self.name)
        self._port = port
        self._timeout_s = ANSWER_TIMEOUT_S
        self._log_path = log_path or Path(tempfile.gettempdir()) / f"blocktime-agent-{os.getpid()}.log"
        self._token = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._agent_port = 0
        self._client: AgentClient | None = None

    @property
    def agent_pid(self) -> int | None:
        """Process id of the running agent, None if none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def describe(self) -> str:
        """Return one line for people: what the device is and how it is connected."""
        return self._program.title

    def connect(self) -> AgentClient:
        """Return a connection to the agent, which is started if it does not run or hangs.

        Raises:
            DeviceError: The agent does not start.
            AgentError: `busy`: an earlier connection of this device is still open.
        """
        if self._process is not None:
            client = self._connect_running()
            if client is not None:
                return client
            self._stop()
        self._start()
        return self._connect_agent()

    def read_log(self) -> str:
        """Return the agent's recent log, empty if it cannot be read."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def _connect_running(self) -> AgentClient | None:
        """Return None if the agent has died or hangs: no answer, or it does not notice that its client is gone."""
        load_s = self._client.load_left_s if self._client is not None else 0.0
        deadline_s = time.monotonic() + max(_STALE_TIMEOUT_S, load_s)
        while True:
            try:
                return self._connect_agent()
            except AgentLostError:
                return None
            except AgentError as error:
                if error.code != "busy" or self._client is None or not self._client.closed:
                    raise
            if time.monotonic() > deadline_s:
                return None

    def _connect_agent(self) -> AgentClient:
        """Connect and greet, again if an agent that lives drops us: hundreds of others may be connecting."""
        deadline_s = time.monotonic() + _CROWDED_S
        while True:
            try:
                return self._greet()
            except AgentLostError:
                if self.agent_pid is None or time.monotonic() > deadline_s:
                    raise
            time.sleep(_CROWDED_POLL_S)

    def _greet(self) -> AgentClient:
        try:
            sock = socket.create_connection((LOOPBACK, self._agent_port), timeout=_CONNECT_TIMEOUT_S)
        except OSError as error:
            raise AgentLostError(
                f"the host agent does not answer: {error}; its log is {self._log_path}", code="agent_silent"
            ) from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = AgentClient.greeted(sock, self._token, self._timeout_s, self.name)
        return self._client

    def __exit__(self, *_: object) -> None:
        """Stop the agent."""
        self._stop()

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        command = [*self._program.command, "--parent-watch", "--port", str(self._port)]
        command += ["--store", str(self._store_dir), "--store-bytes", str(DEFAULT_MAX_BYTES)]
        with self._log_path.open("ab") as log:
            # In a session of its own, the agent does not get Ctrl-C; the client then stops it in order.
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
                        f"its log is {self._log_path}",
                        code="agent_not_started",
                    )
                piece = os.read(process.stdout.fileno(), 4096)
                if not piece:
                    process.wait(_STOP_TIMEOUT_S)
                    raise DeviceError(
                        f"the host agent died at its start: {self._last_log_line()}", code="agent_not_started"
                    )
                line += piece
        try:
            return int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            raise DeviceError(
                f"the host agent printed {line[:100]!r} instead of its port; its log is {self._log_path}",
                code="agent_not_started",
            ) from None

    def _last_log_line(self) -> str:
        with self._log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it logged nothing")
        return f"{last} (its log is {self._log_path})"

    def _stop(self) -> None:
        """End the agent: close its stdin, which asks it to end, then kill it if it does not."""
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


def scenario_of(device_name: str) -> Scenario | None:
    """Return the scenario in the name of a simulated device, None for any other device.

    Raises:
        UsageError: Unknown scenario.
    """
    prefix, colon, rest = device_name.partition(":")
    if prefix != SIMULATED:
        return None
    return find_scenario(rest if colon else DEFAULT_SCENARIO)


def simulated_program(scenario: Scenario) -> AgentProgram:
    """Return the agent program that simulates a device in this scenario."""
    return AgentProgram(
        language="python",
        command=(sys.executable, "-m", "orchestrator.simulate", "--scenario", scenario.model_dump_json()),
        device_name=f"{SIMULATED}-{scenario.name}",
        title=f"a simulated device, scenario {scenario.name}: for tests and planning only",
    )
