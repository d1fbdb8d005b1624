"""Where things are kept: caches may be thrown away, runs and LUTs are data."""

from __future__ import annotations

import os
from pathlib import Path

from luts.store import LutStore, default_roots


def runs_root() -> Path:
    """Folder of measurement runs: $BLOCKTIME_RUNS, else in the XDG data folder."""
    if runs := os.environ.get("BLOCKTIME_RUNS"):
        return Path(runs)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "blocktime" / "runs"


def lut_store(first: Path | None = None) -> LutStore:
    """The user's LUTs and those that came with the package; `first` goes before both."""
    roots = default_roots(os.environ)
    return LutStore((first, *roots) if first else roots)
