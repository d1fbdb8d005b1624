"""The agent's model store: files named by their sha256, bounded in total; the least recently loaded is evicted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from orchestrator.wire.errors import AgentError

DEFAULT_MAX_BYTES = 4 << 30

_STALE_AFTER_S = 24 * 3600
"""An incomplete file older than this belongs to no living agent, even if several share the folder."""

_INCOMING = ".incoming-"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ModelStore:
    """Files under `root`, at most `max_bytes` in all; a file is complete or absent."""

    def __init__(self, root: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open or create the store and remove abandoned uploads."""
        self._root = root
        self._max_bytes = max_bytes
        root.mkdir(parents=True, exist_ok=True)
        for path in root.glob(f"{_INCOMING}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_AFTER_S:
                    path.unlink()

    def has(self, sha256: str) -> bool:
        """Return whether the model is stored."""
        return (self._root / sha256).is_file()

    def put(
        self, sha256: str, size_bytes: int, chunks: Iterable[bytes], in_use: Collection[str] = ()
    ) -> None:
        """Store a model, evicting models whose digests are not `in_use` if needed.

        Raises:
            AgentError: `storage_full` or `hash_mismatch`; nothing is left behind.
        """
        self._make_room(size_bytes, {*in_use, sha256})
        incoming = self._root / f"{_INCOMING}{os.getpid()}-{sha256}"
        try:
            digest = hashlib.sha256()
            with incoming.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise AgentError(
                    "hash_mismatch",
                    f"the bytes have sha256 {digest.hexdigest()}, not {sha256}; send them again",
                )
            incoming.replace(self._root / sha256)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise AgentError(
                "storage_full",
                f"no space for {size_bytes} bytes in {self._root}; free some or use another folder",
            ) from None
        finally:
            incoming.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Return the model's file after checking its content, and note its use.

        Raises:
            AgentError: `unknown_model`, or `hash_mismatch` if the file was damaged (it is then removed).
        """
        path = self._root / sha256
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise AgentError("unknown_model", f"no model {sha256[:12]} is stored; put it first") from None
        if digest != sha256:
            path.unlink(missing_ok=True)
            raise AgentError("hash_mismatch", f"the stored model {sha256[:12]} was damaged; put it again")
        os.utime(path)
        return path

    def _make_room(self, size_bytes: int, keep: Collection[str]) -> None:
        """Evict the files loaded longest ago; none if even all of them would not be enough."""
        files = sorted(
            ((path, path.stat()) for path in self._root.iterdir() if not path.name.startswith(".")),
            key=lambda item: item[1].st_mtime_ns,
        )
        loaded_bytes = sum(stat.st_size for path, stat in files if path.name in keep)
        if loaded_bytes + size_bytes > self._max_bytes:
            raise AgentError(
                "storage_full",
                f"{size_bytes} bytes do not fit: the store holds at most {self._max_bytes} and loaded models "
                f"take {loaded_bytes}; unload models or start the agent with a larger store",
            )
        used_bytes = sum(stat.st_size for _, stat in files)
        for path, stat in files:
            if used_bytes + size_bytes <= self._max_bytes:
                return
            if path.name not in keep:
                path.unlink(missing_ok=True)
                used_bytes -= stat.st_size
