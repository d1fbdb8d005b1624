"""The agent's version: a digest of the sources that decide what it measures and how."""

from __future__ import annotations

import hashlib
from pathlib import Path

from orchestrator.wire.messages import AgentInfo


def agent_info() -> AgentInfo:
    """Name and version; the version changes with any source file of the agent or the wire."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted([*(package / "agent").glob("*.py"), *(package / "wire").glob("*.py")]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return AgentInfo(name="blocktime-host", version=f"python-{digest.hexdigest()[:16]}")
