"""The app on a fake phone: an agent in a thread, a program, or a script of answers to its first message."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.agent.agent import Agent
from orchestrator.agent.device import agent_info
from orchestrator.agent.server import Server, listen
from orchestrator.agent.store import ModelStore
from orchestrator.wire.frames import encode_header
from orchestrator.wire.messages import DeviceInfo


class App(Protocol):
    """What a phone starts when the app's icon is tapped or a debugger launches it."""

    def start(self, environment: Mapping[str, str]) -> int:
        """Start it and return the port of this computer on which its agent listens."""

    def stop(self) -> None:
        """End it, if it runs."""


class ThreadApp:
    """An agent in a thread: the one that `agent_of` makes for a token, by default one without runtimes."""

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
    """An agent as a program (PROTOCOL.md, "Agents as programs"); its stderr goes to `log`."""

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


class ScriptedApp:
    """An agent that answers the first message of each connection by the next of `answers`.

    An answer is `ok`, `lost` (it hangs up) or the code of an error. Without one it is `ok` if the app has a token
    and `unauthorized` if not.
    """

    def __init__(self, model: str = "Pixel 8") -> None:
        self.answers: list[str] = []
        self.token = ""
        device: dict[str, Any] = {
            "model": model,
            "os": "Android 15",
            "os_build": None,
            "soc": None,
            "cores": 9,
        }
        device |= {"memory_bytes": 1 << 33, "simulated": True}
        agent = {"name": "blocktime-android", "version": "1"}
        self._hello = {"id": 1, "protocol": 1, "agent": agent, "device": device, "runtimes": {}}
        self._listener = listen(0)
        threading.Thread(target=self._serve, name="app", daemon=True).start()

    def start(self, environment: Mapping[str, str]) -> int:
        self.token = environment.get("BLOCKTIME_TOKEN", "")
        return int(self._listener.getsockname()[1])

    def stop(self) -> None:
        self.token = ""

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        clients: list[socket.socket] = []  # the newest are kept open: a real agent waits for the next request
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.recv(1 << 16)
                answer = self.answers.pop(0) if self.answers else "ok" if self.token else "unauthorized"
                if answer == "lost":
                    sock.close()
                    continue
                failed = {"id": 1, "error": {"code": answer, "message": "no"}}
                sock.sendall(encode_header(self._hello if answer == "ok" else failed))
                clients.append(sock)
                if len(clients) > 4:
                    clients.pop(0).close()


def relay(left: socket.socket, right: socket.socket) -> None:
    """Carry bytes both ways; an end on one side is passed on, a break ends both."""
    back = threading.Thread(target=_pump, args=(right, left), name="relay", daemon=True)
    back.start()
    _pump(left, right)
    back.join()
    right.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while chunk := source.recv(1 << 18):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
