"""One unit of a fleet: a device that is leased for a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Protocol

from luts.format.errors import BlocktimeError
from orchestrator.devices.common.device import Device


class Unit(Protocol):
    """An open unit. `serial` tells it from all others of the fleet."""

    serial: str
    device: Device

    def held(self) -> AbstractContextManager[None]:
        """Within, no other program measures on it. BusyError where one does."""

    def close(self) -> None:
        """End what was started for it, even where it hangs; raises nothing."""


OpenUnit = Callable[[Collection[str]], Unit]
"""Opens a unit whose serial is none of those. DeviceError where there is none, or it can't be reached."""


class UnfitUnit(BlocktimeError):
    """A unit that is not like the others: its samples can't be in one LUT with theirs."""
