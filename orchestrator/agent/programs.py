"""Agents that run as programs on this machine: in Python always, in Kotlin and Swift if they are built."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from luts.format.errors import UsageError
from luts.format.provenance import is_checkout
from orchestrator.agent.device import built_dir, how_to_build_agents
from orchestrator.wire.errors import DeviceError

AGENTS = ("python", "kotlin", "swift")


@dataclass(frozen=True)
class AgentProgram:
    """A program that takes the options of PROTOCOL.md, "Agents as programs".

    Attributes:
        language: Its language.
        command: How to start it.
        device_name: Device name of LUTs that it measures: figures of two agents are never mixed.
        title: What it measures, in words.
    """

    language: str
    command: tuple[str, ...]
    device_name: str
    title: str


def agent_program(language: str) -> AgentProgram:
    """Return the agent of a language.

    Raises:
        UsageError: There is no agent in that language.
        DeviceError: It is not built.
    """
    if language not in AGENTS:
        raise UsageError(f"unknown agent {language[:32]!r}; known: {', '.join(AGENTS)}", code="unknown_agent")
    title = f"this machine, measured by the {language} agent"
    if language == "python":
        return AgentProgram(language, (sys.executable, "-m", "orchestrator.agent"), "host", title)
    path = built_dir() / language / "blocktime-agent"
    if not os.access(path, os.X_OK):
        on_mac = language == "swift" and platform.system() == "Darwin" and is_checkout()
        step = "run tools/build_swift.sh, which needs Xcode" if on_mac else how_to_build_agents()
        raise DeviceError(f"the {language} agent is not built (no {path}); {step}", code="agent_not_built")
    return AgentProgram(language, (str(path),), f"host-{language}", title)


def core_ml_agent() -> str:
    """Return the language of the agent that calls this machine's Core ML; raises DeviceError if there is none."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Darwin", "arm64"):
        raise DeviceError(
            f"this machine ({system}, {machine}) has no Core ML, which needs an iPhone or a Mac with Apple "
            "silicon; run this on such a Mac, or use --device iphone13",
            code="no_core_ml",
        )
    return "swift"
