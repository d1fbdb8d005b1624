"""Agents that run as programs on this machine: in Python always, in Kotlin and Swift where they were built."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from luts.errors import DeviceError, UsageError

ROOT = Path(__file__).resolve().parents[2]
"""Where this package lies: the checkout in which `make agents` builds."""

AGENTS_VARIABLE = "BLOCKTIME_AGENTS"
"""Environment variable: another folder that holds `kotlin/`, `swift/` and `native/`."""

AGENTS = ("python", "kotlin", "swift")


def built_dir() -> Path:
    """The folder in which `make agents` builds, or the one that the environment names."""
    return Path(os.environ.get(AGENTS_VARIABLE) or ROOT / "build")


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
        raise DeviceError(f"the {language} agent is not built ({path} is not there); run `make agents`")
    return AgentProgram(language, (str(path),), f"host-{language}", title)
