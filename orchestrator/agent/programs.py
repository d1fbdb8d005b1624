"""Agents that run as programs on this machine: in Python always, in Kotlin and Swift where they were built."""

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
    """A program that takes the options of PROTOCOL.md, `Agents as programs`.

    `device_name` is the name under which LUTs that it measures are kept: figures of two agents are never mixed.
    `title` says for people what it measures.
    """

    language: str
    command: tuple[str, ...]
    device_name: str
    title: str


def agent_program(language: str) -> AgentProgram:
    """The agent of that language.

    Raises:
        UsageError: there is no agent in that language.
        DeviceError: it was not built.
    """
    if language not in AGENTS:
        raise UsageError(f"no agent {language[:32]!r}; there are {', '.join(AGENTS)}")
    title = f"this machine, measured by the {language} agent"
    if language == "python":
        return AgentProgram(language, (sys.executable, "-m", "orchestrator.agent"), "host", title)
    path = built_dir() / language / "blocktime-agent"
    if not os.access(path, os.X_OK):
        on_mac = language == "swift" and platform.system() == "Darwin" and is_checkout()
        step = "run tools/build_swift.sh, which needs Xcode" if on_mac else how_to_build_agents()
        raise DeviceError(f"the {language} agent is not built ({path} is not there); {step}")
    return AgentProgram(language, (str(path),), f"host-{language}", title)


def core_ml_agent() -> str:
    """Language of the agent that calls this machine's Core ML; DeviceError where there is none."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Darwin", "arm64"):
        raise DeviceError(
            f"this machine ({system}, {machine}) has no Core ML, which lives on iPhones and on Macs with Apple "
            "silicon; run this on such a Mac, or give --device iphone13"
        )
    return "swift"
