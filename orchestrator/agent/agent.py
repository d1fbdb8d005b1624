"""What all connections of an agent share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.agent.device.state import read_state
from orchestrator.agent.pace import spin
from orchestrator.agent.runtime.model import Runtime
from orchestrator.agent.store import ModelStore
from orchestrator.wire.device_state import DeviceState
from orchestrator.wire.replies import AgentInfo, DeviceInfo


@dataclass(frozen=True)
class Agent:
    """An agent; `clock` (monotonic ns), `sleep` (seconds) and `state` are the machine's own or made up.

    `spin` keeps the processor busy for a moment, before visits that are to be kept warm; None: it can't do that.
    """

    token: str
    store: ModelStore
    runtimes: Mapping[str, Runtime]
    info: AgentInfo
    device: DeviceInfo
    clock: Callable[[], int] = time.perf_counter_ns
    state: Callable[[], DeviceState] = read_state
    sleep: Callable[[float], None] = time.sleep
    spin: Callable[[], None] | None = spin
