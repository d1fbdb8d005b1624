"""The agent that measures this machine with ExecuTorch, and ONNX Runtime and LiteRT where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from orchestrator.agent.agent import Agent
from orchestrator.agent.device import agent_info, describe_host
from orchestrator.agent.executorch import ExecutorchRuntime, find_loader
from orchestrator.agent.litert import LiteRtRuntime
from orchestrator.agent.onnx import OnnxRuntime
from orchestrator.agent.runtime import Runtime
from orchestrator.agent.store import ModelStore

_OPTIONAL: dict[str, tuple[str, Callable[[str], Runtime]]] = {
    "onnx": ("onnxruntime", OnnxRuntime),
    "litert": ("ai-edge-litert", LiteRtRuntime),
}
"""Package and class of the runtimes that ExecuTorch's figures are held against."""


def host_agent(token: str, store: ModelStore) -> Agent:
    """What its connections share."""
    loader = find_loader()
    return Agent(
        token=token,
        store=store,
        runtimes={"executorch": ExecutorchRuntime(loader), **_installed()},
        info=agent_info(settings=loader.version.encode(), calls=loader.version.partition(" ")[0]),
        device=describe_host(),
    )


def _installed() -> dict[str, Runtime]:
    """Runtimes by name; they are imported by the first load, so that they cost an agent that needs none nothing."""
    found: dict[str, Runtime] = {}
    for name, (package, runtime) in _OPTIONAL.items():
        try:
            found[name] = runtime(version(package))
        except PackageNotFoundError:
            continue
    return found
