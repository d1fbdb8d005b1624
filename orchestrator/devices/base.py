"""What the rest of the program needs of a device."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from orchestrator.wire.client import AgentClient


class Device(Protocol):
    """A device that can be measured. Used as a context manager, which ends whatever `connect` started.

    `name` is the folder name in luts/data. `agent_starts` counts how often `connect` had to start an agent: when
    it stands still over a loss, the cable was at fault; when it grows, the agent had died.
    """

    name: str
    agent_starts: int

    def describe(self) -> str:
        """One line for people: what and where the device is."""

    def connect(self) -> AgentClient:
        """A greeted connection; starts or restarts the agent where needed. DeviceError where that fails."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
