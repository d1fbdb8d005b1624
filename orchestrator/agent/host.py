"""The agent that measures this machine with ExecuTorch."""

from __future__ import annotations

from orchestrator.agent.executorch_runtime import ExecutorchRuntime, find_engine
from orchestrator.agent.identity import agent_info
from orchestrator.agent.session import Agent
from orchestrator.agent.state import describe_host
from orchestrator.agent.store import ModelStore


def host_agent(token: str, store: ModelStore) -> Agent:
    """What its connections share."""
    engine = find_engine()
    return Agent(
        token=token,
        store=store,
        runtimes={"executorch": ExecutorchRuntime(engine)},
        info=agent_info(settings=engine.version.encode(), calls=engine.version.partition(" ")[0]),
        device=describe_host(),
    )
