"""Errors a user may see, each in one line: what, why, what to do next."""

from __future__ import annotations


class BlocktimeError(Exception):
    """Base of all expected errors; `str()` is the one line that the command prints."""


class UsageError(BlocktimeError):
    """A name, option or value that the caller must correct: unknown space, bad architecture."""


class InvalidArtifactError(BlocktimeError):
    """A LUT, journal, checkpoint, architecture or model file is damaged, foreign or too large."""


class StorageError(BlocktimeError):
    """A file could not be written: disk full, no permission. Nothing half-written is left."""


OUT_OF_MEMORY = (
    "out of memory; close other programs or use fewer --workers, then run the same command to go on"
)


def is_out_of_memory(error: BaseException) -> bool:
    """As Python says it, or torch, of this machine or a GPU; torch need not be imported for that."""
    of_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return of_torch or isinstance(error, MemoryError)
