"""The error of a measurement."""

from __future__ import annotations

from luts.format.errors import BlocktimeError


class MeasurementRejectedError(BlocktimeError):
    """The device never was quiet, cool or stable enough for a measurement to count."""
