"""How a search's best are measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from luts.format.store import LutStore
from orchestrator.devices.common.device import Access


@dataclass(frozen=True)
class Trial:
    """How a search's best are measured.

    Attributes:
        device: `host`, a phone's name or serial, or `simulated[:SCENARIO]`.
        access: How it is driven.
        count: Architectures measured.
        budget_s: Time after which no further pass is begun.
        feed_into: Store that gets the LUT's next version, with these measurements in it; None for none.
    """

    device: str
    access: Access = field(default_factory=Access)
    count: int = 3
    budget_s: float = 120.0
    feed_into: LutStore | None = None
