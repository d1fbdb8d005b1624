"""A model as a device takes it: a file, its digest, and its bytes in pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import InvalidArtifactError
from orchestrator.wire.frames import CHUNK_BYTES, MAX_PAYLOAD_BYTES


@dataclass(frozen=True)
class ModelFile:
    """A file, the digest by which a device knows it, and its runtime where that is not the measurement's."""

    path: Path
    sha256: str
    runtime: str = ""


def file_size(path: Path) -> int:
    """Bytes of a model; InvalidArtifactError where it can't be read, or no agent takes so many."""
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InvalidArtifactError(
            f"can't read the model {path}: {error.strerror}; export it again"
        ) from None
    if not 0 < size_bytes <= MAX_PAYLOAD_BYTES:
        raise InvalidArtifactError(f"the model {path} has {size_bytes} bytes; an agent takes 1 byte to 1 GiB")
    return size_bytes


def file_digest(path: Path) -> str:
    """Its sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_chunks(path: Path, size_bytes: int, progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    """The file's bytes; `progress` is called after each piece with the bytes so far and in all.

    Raises:
        InvalidArtifactError: the file ends before `size_bytes`.
    """
    sent_bytes = 0
    with path.open("rb") as file:
        while sent_bytes < size_bytes:
            chunk = file.read(min(CHUNK_BYTES, size_bytes - sent_bytes))
            if not chunk:
                raise InvalidArtifactError(
                    f"the model {path} shrank while it was sent; run the command again"
                )
            yield chunk
            sent_bytes += len(chunk)
            if progress is not None:
                progress(sent_bytes, size_bytes)
