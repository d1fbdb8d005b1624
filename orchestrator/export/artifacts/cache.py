"""Content-addressed store of exported models, safe for many processes at once.

Layout: `models/<cache key>/` holds the model and `record.json`. An entry is written aside and renamed into
place, so it is there whole or not at all; what was damaged later is noticed by its sha256 and dropped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from luts.format.errors import BlocktimeError
from orchestrator.export.artifacts.artifact import Artifact, Report
from orchestrator.export.artifacts.package import PACKED_SUFFIX
from orchestrator.export.artifacts.spec import ExportSpec

MAX_RECORD_BYTES = 1 << 20
"""Largest record that is read; a real one has a few KiB."""

STALE_S = 24 * 3600
"""Age after which an unfinished entry belongs to a process that died."""

_CHUNK_BYTES = 1 << 20
_SUFFIX = {
    "executorch": "model.pte",
    "coreml": f"model{PACKED_SUFFIX}",
    "onnx": "model.onnx",
    "litert": "model.tflite",
}


def default_root() -> Path:
    """`$BLOCKTIME_CACHE`, else `blocktime` in the XDG cache folder."""
    own = os.environ.get("BLOCKTIME_CACHE")
    if own:
        return Path(own).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg and Path(xdg).is_absolute() else Path.home() / ".cache") / "blocktime"


class ArtifactCache:
    """Exported models by cache key."""

    def __init__(self, root: Path | None = None):
        self.root = root or default_root()
        self.models = self.root / "models"
        self.pending = self.root / "pending"

    @property
    def fragments(self) -> Path:
        """Folder of what later exports can be put together from (`orchestrator.export.reuse`)."""
        return self.root / "fragments"

    def get(self, spec: ExportSpec) -> Artifact | None:
        """The model of a spec, its bytes verified; None where there is none or it is damaged."""
        entry = self.models / spec.cache_key
        try:
            with (entry / "record.json").open("rb") as file:
                document = json.loads(file.read(MAX_RECORD_BYTES))
            artifact = Artifact(path=entry / _SUFFIX[spec.runtime], spec=spec, **document)
            sha256, size = digest(artifact.path)
        except (OSError, ValueError, TypeError, ValidationError):
            return None
        intact = (sha256, size, spec.cache_key) == (
            artifact.sha256,
            artifact.payload_bytes,
            artifact.cache_key,
        )
        if not intact:
            return None
        # `bench cache --trim` removes what was not used for longest; a cache that is shared may be read-only
        with contextlib.suppress(OSError):
            os.utime(entry)
        return artifact

    def put(self, spec: ExportSpec, write: Callable[[Path], Report]) -> Artifact:
        """Store the file that `write` puts at the path it is given.

        An intact entry that another process stored meanwhile wins.

        Raises:
            BlocktimeError: disk full, or no permission; nothing is left behind.
        """
        pending = self.pending / f"{spec.cache_key[:16]}-{uuid.uuid4().hex}"
        try:
            self._drop_stale()
            pending.mkdir(parents=True)
            model = pending / _SUFFIX[spec.runtime]
            report = write(model)
            sha256, size = digest(model)
            record = {
                "sha256": sha256,
                "payload_bytes": size,
                "cache_key": spec.cache_key,
                "report": report.model_dump(),
            }
            (pending / "record.json").write_text(json.dumps(record), encoding="utf-8")
            _sync(pending)
            return self._publish(spec, pending)
        except OSError as error:
            raise self._explain(error) from error
        finally:
            shutil.rmtree(pending, ignore_errors=True)

    def _publish(self, spec: ExportSpec, pending: Path) -> Artifact:
        entry = self.models / spec.cache_key
        self.models.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            try:
                pending.rename(entry)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                artifact = self.get(spec)
                if artifact is None:
                    self._discard(entry)
                    continue
                return artifact
            artifact = self.get(spec)
            if artifact is not None:
                return artifact
            raise BlocktimeError(f"{entry}: unreadable right after it was written; check the disk")
        raise BlocktimeError(f"{entry}: cannot be replaced; delete it and try again")

    def _discard(self, entry: Path) -> None:
        """Move a damaged entry out of the way at once, then delete it."""
        aside = self.pending / f"damaged-{uuid.uuid4().hex}"
        try:
            entry.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _drop_stale(self) -> None:
        self.pending.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - STALE_S
        for path in self.pending.iterdir():
            try:
                stale = path.stat().st_mtime < oldest
            except FileNotFoundError:
                continue
            if stale:
                shutil.rmtree(path, ignore_errors=True)

    def _explain(self, error: OSError) -> BlocktimeError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return BlocktimeError(
                f"no space left in the model cache {self.root}; free some, or point BLOCKTIME_CACHE elsewhere"
            )
        return BlocktimeError(
            f"cannot write to the model cache {self.root} ({error.strerror}); set BLOCKTIME_CACHE to a "
            "folder you may write to"
        )


def digest(path: Path) -> tuple[str, int]:
    """sha256 and bytes of a file."""
    with path.open("rb") as file:
        whole = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            whole.update(chunk)
        return whole.hexdigest(), file.tell()


def _sync(folder: Path) -> None:
    """Force the files' data out, so that a full disk shows now and a crash cannot leave a renamed empty file."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
