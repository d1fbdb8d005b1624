"""Folders of this user for data and caches.

The folders follow the XDG specification on every system, so that runs and caches of earlier versions are found.
"""

from __future__ import annotations

from pathlib import Path

from platformdirs.unix import Unix


def data_folder() -> Path:
    """Return $XDG_DATA_HOME/blocktime, by default ~/.local/share/blocktime; it need not exist."""
    return Path(Unix("blocktime").user_data_dir)


def cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/blocktime, by default ~/.cache/blocktime; it need not exist."""
    return Path(Unix("blocktime").user_cache_dir)
