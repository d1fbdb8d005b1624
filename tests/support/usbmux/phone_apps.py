"""The app on a fake phone: an agent in a thread, or a program that speaks the protocol."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.agent.agent import Agent
from orchestrator.agent.device import agent_info
from orchestrator.agent.server import Server, listen
from orchestrator.agent.store import ModelStore
from orchestrator.wire.messages import DeviceInfo


class App(Protocol):
    """What a phone starts when the app's icon is tapped or a debugger launches it."""

    def start(self, environment: Mapping[str, str]) -> int:
        """Starts it; the port of this machine on which its agent listens."""

    def stop(self) -> None:
        """Ends it; nothing where it does not run."""


class ThreadApp:
    """An agent in a thread: that of `agent_of` a token, else one without runtimes, for tests of the way to it."""

    def __init__(self, store: Path, agent_of: Callable[[str], Agent] | None = None) -> None:
        self._store = store
        self._agent_of = agent_of or self._without_runtimes
        self._serving: tuple[Server, socket.socket] | None = None

    def start(self, environment: Mapping[str, str]) -> int:
        listener = listen(0)
        server = Server(self._agent_of(environment["BLOCKTIME_TOKEN"]), listener)
        self._serving = server, listener
        threading.Thread(target=server.serve, name="app", daemon=True).start()
        return int(listener.getsockname()[1])

    def _without_runtimes(self, token: str) -> Agent:
        device = DeviceInfo(
            model="iPhone14,5",
            os="iOS 16.7.10",
            os_build="20H350",
            soc=None,
            cores=6,
            memory_bytes=4 << 30,
            simulated=True,
        )
        return Agent(token, ModelStore(self._store, 1 << 30), {}, agent_info(), device)

    def stop(self) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            server, listener = serving
            server.stop()
            listener.close()


class ProgramApp:
    """An agent as a program (PROTOCOL.md, "Agents as programs"); what it says on stderr goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> int:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "--parent-watch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the agent died at its start: {self._log.read_text()[-2000:]}")
        return int(json.loads(line)["port"])

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
