"""Caches of exported models and of this machine's agents: their contents, and making room."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import StorageError
from orchestrator.devices.host import default_store_dir
from orchestrator.export.artifacts.artifact import ArtifactCache

IN_USE_S = 3600.0
"""Entries used within this time are never removed: a running measurement may still send or load them."""


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder that can be made again; `used` is its last use, in seconds of the epoch."""

    kind: str
    path: Path
    payload_bytes: int
    used: float


@dataclass(frozen=True)
class CachePart:
    """All entries of a kind; `used` is the last use, None without entries."""

    kind: str
    folder: Path
    entries: int
    payload_bytes: int
    used: float | None


@dataclass(frozen=True)
class TrimResult:
    """Removed entries and bytes, and how many more stay because they were used just now."""

    entries: int
    payload_bytes: int
    kept_in_use: int


def cache_parts() -> list[CachePart]:
    """Return the contents of the caches by kind."""
    entrys, parts = list(_entrys()), []
    for kind, folder in _folders().items():
        own = [entry for entry in entrys if entry.kind == kind]
        used = max((entry.used for entry in own), default=None)
        parts.append(CachePart(kind, folder, len(own), sum(entry.payload_bytes for entry in own), used))
    return parts


def trim_cache(max_bytes: int, in_use_s: float = IN_USE_S) -> TrimResult:
    """Remove the least recently used entries until at most `max_bytes` are left, except those in use.

    Raises:
        StorageError: an entry can't be removed.
    """
    entrys = sorted(_entrys(), key=lambda entry: (entry.used, str(entry.path)))
    left, now = sum(entry.payload_bytes for entry in entrys), time.time()
    removed, kept = [], 0
    for entry in entrys:
        if left <= max_bytes:
            break
        if now - entry.used < in_use_s:
            kept += 1
            continue
        try:
            _remove(entry.path)
        except OSError as error:
            raise StorageError(
                f"cannot remove {entry.path}: {error.strerror}; remove it by hand", code="cannot_remove"
            ) from error
        left -= entry.payload_bytes
        removed.append(entry)
    return TrimResult(len(removed), sum(entry.payload_bytes for entry in removed), kept)


def _folders() -> dict[str, Path]:
    cache = ArtifactCache()
    return {
        "exported models": cache.models,
        "lowered parts": cache.fragments,
        "unfinished": cache.pending,
        "models of this machine's agents": default_store_dir("host").parent,
    }


def _entrys() -> Iterator[CacheEntry]:
    for kind, folder in _folders().items():
        for path in folder.glob("agent-store-*/*" if "agents" in kind else "*"):
            # another process may remove it meanwhile
            with contextlib.suppress(FileNotFoundError):
                files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
                size = sum(file.stat().st_size for file in files)
                yield CacheEntry(kind, path, size, path.stat().st_mtime)


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder is renamed first, so that it is never left incomplete."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir():
            path = path.rename(path.with_name(f".removed-{uuid.uuid4().hex}"))
            shutil.rmtree(path)
        else:
            path.unlink()
