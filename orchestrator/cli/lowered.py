"""How models were lowered, as tables have it."""

from __future__ import annotations

from collections.abc import Mapping

ON_THE_DEVICE = "the device decides"
"""For Core ML: which operators a compute unit takes is known after the load there."""


def outside_text(outside: Mapping[str, int] | None) -> str:
    """Operators outside the delegates with their counts."""
    if outside is None:
        return ON_THE_DEVICE
    return " ".join(f"{name.removeprefix('aten.')}x{count}" for name, count in outside.items()) or "nothing"
