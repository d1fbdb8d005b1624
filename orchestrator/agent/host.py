"""The agent that measures this machine with ExecuTorch."""

from __future__ import annotations

from orchestrator.agent.executorch_runtime import ExecutorchRuntime
from orchestrator.agent.identity import agent_info
from orchestrator.agent.session import Agent
from orchestrator.agent.state import describe_host
from orchestrator.agent.store import ModelStore


def host_agent(token: str, store: ModelStore) -> Agent:
    """What its connections share."""
    return Agent(
        token=token,
        store=store,
        runtimes={"executorch": ExecutorchRuntime()},
        info=agent_info(),
        device=describe_host(),
    )
