"""The benchmark app as an agent in a thread of this process: nothing to build, and tests can make it up."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.agent.agent import Agent
from orchestrator.agent.server import Server, listen
from tests.support.fakephone.bench_app import AgentProgram, BenchApp


@dataclass(frozen=True)
class AgentThread:
    """In the place of an AgentProgram; `agent_of` makes the agent of a token."""

    agent_of: Callable[[str], Agent]

    def app(self, store: Path) -> BenchApp:
        """The app that is this agent."""
        return _ThreadApp(self, store)


class _ThreadApp(BenchApp):
    def __init__(self, thread: AgentThread, store: Path) -> None:
        super().__init__(AgentProgram((), None), store)
        self._thread = thread
        self._serving: tuple[Server, socket.socket] | None = None

    @property
    def pid(self) -> int | None:
        return os.getpid() if self._serving is not None else None

    def _start_process(self) -> None:
        listener = listen(0)
        self._port = listener.getsockname()[1]
        self._serving = Server(self._thread.agent_of(self.token), listener), listener
        threading.Thread(target=self._serving[0].serve, name="app", daemon=True).start()

    def _stop_process(self) -> None:
        serving, self._serving, self._port = self._serving, None, None
        if serving is not None:
            serving[0].stop()
            serving[1].close()
