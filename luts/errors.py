"""Errors a user may see: one line (what, why, what to do next) and the exit code of the command."""

from __future__ import annotations


class BlocktimeError(Exception):
    """Base of all expected errors; `str()` is the one line that the command prints."""

    exit_code = 1


class UsageError(BlocktimeError):
    """A name, option or value that the caller must correct: unknown space, bad architecture."""

    exit_code = 2


class DeviceError(BlocktimeError):
    """A device was not found, refused the connection or was lost."""

    exit_code = 3


class MeasurementRejectedError(BlocktimeError):
    """The device never was quiet, cool or stable enough for a measurement to count."""

    exit_code = 4


class InfeasibleError(BlocktimeError):
    """No architecture of the space meets the constraints."""

    exit_code = 5


class InvalidArtifactError(BlocktimeError):
    """A LUT, journal, checkpoint, architecture or model file is damaged, foreign or too large."""

    exit_code = 6


class StorageError(BlocktimeError):
    """A file could not be written: disk full, no permission. Nothing half-written is left."""
