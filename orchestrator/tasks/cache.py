"""What the caches of exported models and of this machine's agents hold, and making them smaller."""

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
"""What was used since then stays when a cache is trimmed: a measurement that runs may still send or load it."""


@dataclass(frozen=True)
class CachedThing:
    """A file or folder that can be made again; `used` is when it was last, in seconds of the epoch."""

    kind: str
    path: Path
    payload_bytes: int
    used: float


@dataclass(frozen=True)
class CachePart:
    """All things of a kind; `used` is None where there are none."""

    kind: str
    folder: Path
    entries: int
    payload_bytes: int
    used: float | None


@dataclass(frozen=True)
class Trimmed:
    """What was removed, and what was too much but has been used just now."""

    entries: int
    payload_bytes: int
    kept_in_use: int


def cache_parts() -> list[CachePart]:
    """What there is, by kind."""
    things, parts = list(_things()), []
    for kind, folder in _folders().items():
        own = [thing for thing in things if thing.kind == kind]
        used = max((thing.used for thing in own), default=None)
        parts.append(CachePart(kind, folder, len(own), sum(thing.payload_bytes for thing in own), used))
    return parts


def trim_cache(max_bytes: int, in_use_s: float = IN_USE_S) -> Trimmed:
    """Remove what was not used for longest until at most `max_bytes` are left, if so much is not in use.

    Raises:
        StorageError: something can't be removed.
    """
    things = sorted(_things(), key=lambda thing: (thing.used, str(thing.path)))
    left, now = sum(thing.payload_bytes for thing in things), time.time()
    removed, kept = [], 0
    for thing in things:
        if left <= max_bytes:
            break
        if now - thing.used < in_use_s:
            kept += 1
            continue
        try:
            _remove(thing.path)
        except OSError as error:
            raise StorageError(f"cannot remove {thing.path}: {error.strerror}; remove it by hand") from error
        left -= thing.payload_bytes
        removed.append(thing)
    return Trimmed(len(removed), sum(thing.payload_bytes for thing in removed), kept)


def _folders() -> dict[str, Path]:
    cache = ArtifactCache()
    return {
        "exported models": cache.models,
        "lowered parts": cache.fragments,
        "unfinished": cache.pending,
        "models of this machine's agents": default_store_dir("host").parent,
    }


def _things() -> Iterator[CachedThing]:
    for kind, folder in _folders().items():
        for path in folder.glob("agent-store-*/*" if "agents" in kind else "*"):
            # another process may remove it meanwhile
            with contextlib.suppress(FileNotFoundError):
                files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
                size = sum(file.stat().st_size for file in files)
                yield CachedThing(kind, path, size, path.stat().st_mtime)


def _remove(path: Path) -> None:
    """A folder is renamed first, so that it is there whole or not at all."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir():
            path = path.rename(path.with_name(f".removed-{uuid.uuid4().hex}"))
            shutil.rmtree(path)
        else:
            path.unlink()
