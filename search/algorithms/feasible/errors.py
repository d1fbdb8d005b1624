"""The error of a search."""

from __future__ import annotations

from luts.format.errors import BlocktimeError


class InfeasibleError(BlocktimeError):
    """No architecture of the space meets the constraints."""
