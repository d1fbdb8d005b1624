"""Readers of untrusted data, each with a few valid inputs from the project's own writers.

An input is a byte of flags and content. The flags say which file of several the content replaces (`FILE`), and
whether digests are computed again over what was changed (`SEALED`), so that damage gets past them.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tests.soak.mutations import mutate_bytes, mutate_json

SEALED, FILE = 0x80, 0x7F
SHA = "ab" * 32
STATE = {
    "uptime_ns": 1, "load_average_1m": 0.5, "steal_ms": 0, "thermal_state": "nominal", "thermal_headroom": None,
    "cpus": [{"cpu": 0, "mhz": 1800.0, "max_mhz": 2000.0, "governor": "performance"}],
    "thermal_zones": [{"name": "cpu", "celsius": 40.5}], "throttle_count": None,
    "battery": {"percent": 80.0, "charging": True, "celsius": 30.0}, "low_power_mode": None,
    "free_memory_bytes": 1 << 30, "agent_memory_bytes": 1 << 20, "qos": None, "foreground": None,
}  # fmt: skip
"""A device's state as an agent sends it."""


class Reader(ABC):
    """A reader with valid inputs, in an empty folder of its own.

    Attributes:
        corpus: Valid inputs.
        first_alone_is_read: Whether all valid inputs but the first are refusals, such as an agent's errors.
    """

    corpus: list[bytes]
    first_alone_is_read: ClassVar[bool] = False

    def __init__(self, folder: Path, kept: Path) -> None:
        """Make valid inputs; those that take long to make are kept in `kept` for later seeds."""
        self.folder, self.kept = folder, kept
        self.make()

    @abstractmethod
    def make(self) -> None:
        """Make the corpus."""

    @abstractmethod
    def read(self, data: bytes) -> str:
        """Read an input; return what is wrong with accepting it, or an empty string.

        Raises:
            BlocktimeError: The input is refused.
        """

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Return a damaged input: damaged bytes, or other values within its structure."""
        flags, content = data[0] if data else 0, data[1:]
        if rng.random() < 0.3:
            flags ^= SEALED
        if rng.random() < 0.35:
            return bytes([flags]) + mutate_bytes(content, rng, [other[1:] for other in self.corpus])
        return bytes([flags]) + self.mutate_content(flags & FILE, content, rng)

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return content with other values within its structure; JSON by default."""
        del file
        return mutate_json(content, rng)
