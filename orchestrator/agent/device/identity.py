"""An agent's version: a digest of the sources that decide what it measures and how."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from orchestrator.wire.replies import AgentInfo

SOURCES = ("agent", "wire")
"""Folders of this package whose files decide what the host agent measures."""


def agent_info(
    name: str = "blocktime-host", sources: Sequence[str] = SOURCES, settings: bytes = b"", calls: str = ""
) -> AgentInfo:
    """Name and version; the version changes with any source file in the folders, and with the settings.

    It ends with `calls`, the way in which the runtime is called where there is more than one.
    """
    package = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256(settings)
    for path in sorted(path for folder in sources for path in (package / folder).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    version = f"python-{digest.hexdigest()[:16]}"
    return AgentInfo(name=name, version=f"{version}+{calls}" if calls else version)
