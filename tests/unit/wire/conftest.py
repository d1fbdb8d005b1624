"""An agent with a runtime made of arithmetic, served in this process over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.agent.agent import LOOPBACK, Agent
from orchestrator.agent.device import agent_info, describe_host
from orchestrator.agent.runtime import Model
from orchestrator.agent.store import ModelStore
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError
from orchestrator.wire.messages import RuntimeInfo, TensorSpec
from tests.support.served_agent import serving

TOKEN = "right"


class Doubler(Model):
    """Answers twice its float32[2] input. A file of text `fail` loads but fails to execute."""

    inputs = (TensorSpec(dtype="float32", shape=[2]),)
    outputs = inputs

    def __init__(self, runtime: DoublerRuntime, text: str) -> None:
        self.options = {}
        self._runtime = runtime
        self._text = text
        self._input: np.ndarray | None = None
        self._output = np.zeros(2, np.float32)

    def bind(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        def set_inputs() -> None:
            self._input = arrays[0].copy()

        return set_inputs

    def execute(self) -> None:
        self._runtime.executions.append(self._text)
        self._runtime.on_execute()
        if self._text == "fail" or self._input is None:
            raise RuntimeError("no input was set, or the file says so")
        self._output, self._input = 2 * self._input, None

    def get_outputs(self) -> list[np.ndarray]:
        return [self._output]

    def close(self) -> None:
        self._runtime.closed.append(self._text)


@dataclass
class DoublerRuntime:
    """Records what was executed and closed; `on_execute` lets a test step in."""

    executions: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    on_execute: Callable[[], None] = lambda: None

    def describe(self) -> RuntimeInfo:
        return RuntimeInfo(version="1", backends=[], options={})

    def load(self, path: Path, options: Mapping[str, Any]) -> Doubler:
        if options:
            raise AgentError("bad_option", "there are no options")
        text = path.read_text()
        if text == "explode":
            raise ZeroDivisionError("a defect")
        return Doubler(self, text)


@dataclass(frozen=True)
class Served:
    """A running agent."""

    port: int
    runtime: DoublerRuntime
    store: ModelStore

    def socket(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection((LOOPBACK, self.port), timeout=300)

    def client(self, token: str = TOKEN) -> AgentClient:
        """A connection that has not said hello."""
        return AgentClient(self.socket(), token, timeout_s=300)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    runtime = DoublerRuntime()
    store = ModelStore(tmp_path / "store", max_bytes=1000)
    agent = Agent(TOKEN, store, {"doubler": runtime}, agent_info(), describe_host())
    with serving(agent) as port:
        yield Served(port, runtime, store)
