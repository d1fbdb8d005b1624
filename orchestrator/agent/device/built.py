"""Where agents and native libraries for this machine are built."""

from __future__ import annotations

import os
from pathlib import Path

from luts.format.installation import ROOT, is_checkout

AGENTS_VARIABLE = "BLOCKTIME_AGENTS"
"""Environment variable: another folder that holds `kotlin/`, `swift/` and `native/`."""


def built_dir() -> Path:
    """The folder that the environment names, else `build` of the checkout, else one in the XDG data folder."""
    if named := os.environ.get(AGENTS_VARIABLE):
        return Path(named)
    if is_checkout():
        return ROOT / "build"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "blocktime" / "agents"


def how_to_build_agents() -> str:
    """What to do where an agent in another language is missing."""
    if is_checkout():
        return "run `make agents`"
    return f"run `make agents` in a clone of blocktime and set {AGENTS_VARIABLE} to its folder `build`"
