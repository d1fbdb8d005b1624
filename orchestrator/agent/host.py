"""The agent that measures this machine with ExecuTorch."""

from __future__ import annotations

from orchestrator.agent.agent import Agent
from orchestrator.agent.device.identity import agent_info
from orchestrator.agent.device.state import describe_host
from orchestrator.agent.runtime.executorch import ExecutorchRuntime, find_loader
from orchestrator.agent.store import ModelStore


def host_agent(token: str, store: ModelStore) -> Agent:
    """What its connections share."""
    loader = find_loader()
    return Agent(
        token=token,
        store=store,
        runtimes={"executorch": ExecutorchRuntime(loader)},
        info=agent_info(settings=loader.version.encode(), calls=loader.version.partition(" ")[0]),
        device=describe_host(),
    )
